"""Optimizers on the flat buffers, and learning-rate schedules."""

import math


class Optimizer:
    """A rule that turns the summed gradients of a step into new weights.

    ``learning_rate`` is a number or a function of the update count (0, 1, ...); see ``step_decay``,
    ``cosine`` and ``warmup``. ``state`` holds what the rule remembers, {name: vector like the
    parameters}: it is broadcast, averaged and saved with the weights. A subclass names its vectors
    in ``state_names`` and defines ``step``.
    """

    state_names = ()

    def __init__(self, learning_rate, weight_decay=0.0):
        if not callable(learning_rate) and not learning_rate >= 0:
            raise ValueError(
                f"learning_rate must be a number >= 0 or a function of the step, got {learning_rate!r}"
            )
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.steps, self.state, self.shared = 0, {}, {}

    def share(self, layer, updates):
        """Keep the weights of the Dense layer of this name equal at all positions of the image, for
        the first ``updates``; returns self.

        A Dense layer behind Flatten has weights of its own for every position, and would have to
        learn at each of them what a particle looks like. Here they begin as those of the first
        position, and their gradient is its mean over positions: what is learned at one place is
        known at all, and the layers before get the same demand from everywhere. As long as this
        lasts the network computes a sum over positions followed by Dense (global pooling: Lin,
        Chen, Yan 2014); then every position goes on by itself.
        """
        self.shared[layer] = int(updates)
        return self

    def rate(self):
        """Return the learning rate of the next update."""
        return float(
            self.learning_rate(self.steps) if callable(self.learning_rate) else self.learning_rate
        )

    def prepare(self, model):
        """Make the state for ``model`` if there is none yet."""
        for name in self.state_names:
            if name not in self.state:
                self.state[name] = model.kernels.zeros(
                    model.parameters.shape, model.parameters.dtype
                )
            elif self.state[name].shape != model.parameters.shape:
                raise ValueError(
                    f"this optimizer belongs to a model of {self.state[name].size} parameters, not "
                    f"{model.parameters.size}: make a new one"
                )
        for layer, updates in self.shared.items():
            w = at_positions(model, layer, model.parameters)
            if self.steps == 0 < updates:
                w[...] = w[:1]
                model.weights_changed()

    def update(self, model, events):
        """Apply one step with the summed gradients of ``events`` events; for 0 events nothing
        changes but the count of steps.
        """
        self.prepare(model)
        if events:
            for layer, updates in self.shared.items():
                if self.steps < updates:
                    dw = at_positions(model, layer, model.gradients)
                    dw[...] = dw.mean(0)
            self.step(
                model.kernels,
                model.parameters,
                model.gradients[: model.parameters.size],
                1.0 / events,
            )
            model.weights_changed()
        self.steps += 1

    def step(self, kernels, w, dw, scale):
        """Change w and the state in place, for the gradient scale * dw."""
        raise NotImplementedError(f"{type(self).__name__}.step")


class SGD(Optimizer):
    """g = mean gradient + weight_decay * w;  v = momentum * v + g;  w -= learning_rate * v
    (nesterov: g + momentum * v).
    """

    state_names = ("velocity",)

    def __init__(self, learning_rate=1e-3, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(learning_rate, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum > 0")
        self.momentum, self.nesterov = momentum, nesterov

    def step(self, kernels, w, dw, scale):
        v = self.state["velocity"]
        kernels.sgd(
            w,
            dw,
            v,
            self.rate(),
            self.momentum,
            self.nesterov,
            self.weight_decay,
            scale,
            out=(w, v),
        )


class Adam(Optimizer):
    """Every weight at a step of its own: the mean of its gradients over the root of their mean
    square, both running.

    g = mean gradient;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  with m' = m / (1 - beta1^t) and
    v' = v / (1 - beta2^t) at step t = 1, 2, ...:  w -= learning_rate * (m' / (sqrt(v') + epsilon) + weight_decay * w).
    Kingma, Ba 2015; weight decay apart from the gradient as in Loshchilov, Hutter 2019. Lit pixels are few, so gradients of the
    convolutions are small and uneven: this rule does not depend on their scale.
    """

    state_names = ("mean", "square")

    def __init__(self, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0):
        super().__init__(learning_rate, weight_decay)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), got {beta1}, {beta2}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def step(self, kernels, w, dw, scale):
        m, v = self.state["mean"], self.state["square"]
        kernels.adam(
            w,
            dw,
            m,
            v,
            self.steps + 1,
            self.rate(),
            self.beta1,
            self.beta2,
            self.epsilon,
            self.weight_decay,
            scale,
            out=(w, m, v),
        )


class LARS(SGD):
    """SGD with a rate of its own for every layer, for batches so large that one rate does not fit
    all (You, Gitman, Ginsburg 2017).

    For the weights and bias w of a layer, together:  ratio = trust * |w| / (|g| + weight_decay * |w|), 1 where |w| or |g| is 0;
    v = momentum * v + ratio * (g + weight_decay * w);  w -= learning_rate * v.  The step of a layer is thus learning_rate * trust of
    its norm, whatever the size of its gradient.
    """

    def __init__(self, learning_rate=1.0, momentum=0.9, weight_decay=0.0, trust=0.001):
        super().__init__(learning_rate, momentum, weight_decay=weight_decay)
        if not trust > 0:
            raise ValueError(f"trust must be > 0, got {trust}")
        self.trust, self.layers = trust, ()

    def prepare(self, model):
        super().prepare(model)
        self.layers = [piece for piece in model.layer_slices.values() if piece.stop > piece.start]

    def step(self, kernels, w, dw, scale):
        for layer in self.layers:
            part, v = w[layer], self.state["velocity"][layer]
            size, slope = (float((a * a).sum(dtype="float64")) ** 0.5 for a in (part, dw[layer]))
            below = scale * slope + self.weight_decay * size
            ratio = self.trust * size / below if size and slope else 1.0
            kernels.sgd(
                part,
                dw[layer],
                v,
                self.rate(),
                self.momentum,
                False,
                ratio * self.weight_decay,
                ratio * scale,
                out=(part, v),
            )


def at_positions(model, layer, flat):
    """Return the weights of a Dense layer behind Flatten as (positions, channels, units), a view of
    ``flat`` (like model.parameters).

    Raises ValueError if the model has no such layer.
    """
    for before, this, shape in zip(model.layers, model.layers[1:], model.shapes):
        if (
            this.name == layer
            and type(before).__name__ == "Flatten"
            and type(this).__name__ == "Dense"
        ):
            h, w, c = shape
            start = model.layer_slices[layer].start
            return flat[start : start + h * w * c * this.units].reshape(h * w, c, this.units)
    raise ValueError(
        f"{layer!r} is not a Dense layer behind Flatten; the layers are {', '.join(each.name for each in model.layers)}"
    )


def step_decay(rate, every, factor=0.1):
    """Return step -> rate * factor^(step // every)."""
    return lambda step: rate * factor ** (step // every)


def cosine(rate, steps, final=0.0):
    """Return step -> half a cosine from ``rate`` to ``final`` over ``steps`` (Loshchilov, Hutter
    2017), then ``final``.
    """
    return lambda step: (
        final + (rate - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    )


def warmup(schedule, steps):
    """Return ``schedule`` (a number or function) scaled by (step + 1) / steps during the first
    ``steps`` (Goyal et al. 2017).
    """
    rate = schedule if callable(schedule) else lambda step: schedule
    return lambda step: rate(step) * min((step + 1) / steps, 1.0)


def linear_scaling(schedule, factor, steps):
    """Return ``schedule`` (a number or function) for a batch ``factor`` times larger: times a ramp
    from 1 to ``factor`` over ``steps``.

    The linear scaling rule with gradual warm-up (Goyal et al. 2017): k times fewer updates of k
    times the rate go equally far as long as gradients change little in between, which is not so at
    first.
    """
    rate = schedule if callable(schedule) else lambda step: schedule
    return lambda step: (
        rate(step) * (1 + (factor - 1) * (min((step + 1) / steps, 1.0) if steps else 1.0))
    )
