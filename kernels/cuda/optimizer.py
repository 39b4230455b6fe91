"""The update of all weights: one pass over the flat vectors."""
from .checks import floats, shaped


def sgd(k, w, dw, velocity, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0, scale=1.0, out=None):
    """One step of SGD on flat float32 vectors: g = scale * dw + weight_decay * w; v = momentum * v + g;
    w -= learning_rate * (v, or g + momentum * v with ``nesterov``).

    ``weight_decay`` is a scalar or a device vector like w. Returns (w, velocity), written into ``out`` when given (they may be the
    inputs). Sutskever et al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    new, new_velocity = (k.empty(w.shape), k.empty(w.shape)) if out is None else out
    decays = weight_decay if k.runtime.is_array(weight_decay) and weight_decay.ndim else None
    for name, a in (("dw", dw), ("velocity", velocity), ("out[0]", new), ("out[1]", new_velocity), ("weight_decay", decays)):
        if a is not None:
            shaped("sgd", name, a, w.shape)
            floats(k, "sgd", **{name: a})
    if not (new.flags.c_contiguous and new_velocity.flags.c_contiguous):
        raise ValueError("sgd writes to contiguous vectors")
    w, dw, velocity = floats(k, "sgd", w=w, dw=dw, velocity=velocity)
    k.each("optimizer.cu", "sgd", w.size, w, dw, velocity, float(learning_rate), float(momentum), bool(nesterov), decays,
           0.0 if decays is not None else float(weight_decay), float(scale), new, new_velocity)
    return new, new_velocity
