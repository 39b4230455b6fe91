"""Stochastic gradient descent on the flat buffers, and learning-rate schedules."""
import math


class SGD:
    """g = mean gradient + weight_decay * w;  v = momentum * v + g;  w -= learning_rate * v  (nesterov: g + momentum * v).

    ``learning_rate`` is a number or a function of the update count (0, 1, ...); see ``step_decay``, ``cosine`` and ``warmup``.
    """

    def __init__(self, learning_rate=1e-3, momentum=0.0, nesterov=False, weight_decay=0.0):
        if not callable(learning_rate) and not learning_rate >= 0:
            raise ValueError(f"learning_rate must be a number >= 0 or a function of the step, got {learning_rate!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum > 0")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        self.learning_rate, self.momentum = learning_rate, momentum
        self.nesterov, self.weight_decay = nesterov, weight_decay
        self.steps, self.velocity = 0, None

    def rate(self):
        """Return the learning rate of the next update."""
        return float(self.learning_rate(self.steps) if callable(self.learning_rate) else self.learning_rate)

    def prepare(self, model):
        """Make the velocity for ``model`` if there is none yet."""
        if self.velocity is None:
            self.velocity = model.kernels.zeros(model.parameters.shape, model.parameters.dtype)
        elif self.velocity.shape != model.parameters.shape:
            raise ValueError(f"this optimizer belongs to a model of {self.velocity.size} parameters, not {model.parameters.size}: "
                             "make a new one")

    def update(self, model, events):
        """Apply one step with the summed gradients of ``events`` events; nothing happens for 0 events."""
        self.prepare(model)
        if events:
            w, dw = model.parameters, model.gradients[:model.parameters.size]
            model.kernels.sgd(w, dw, self.velocity, self.rate(), self.momentum, self.nesterov, self.weight_decay,
                              1.0 / events, out=(w, self.velocity))
            model.weights_changed()
        self.steps += 1


def step_decay(rate, every, factor=0.1):
    """Return step -> rate * factor^(step // every)."""
    return lambda step: rate * factor ** (step // every)


def cosine(rate, steps, final=0.0):
    """Return step -> half a cosine from ``rate`` to ``final`` over ``steps`` (Loshchilov, Hutter 2017), then ``final``."""
    return lambda step: final + (rate - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def warmup(schedule, steps):
    """Return ``schedule`` (a number or function) scaled by (step + 1) / steps during the first ``steps`` (Goyal et al. 2017)."""
    rate = schedule if callable(schedule) else lambda step: schedule
    return lambda step: rate(step) * min((step + 1) / steps, 1.0)
