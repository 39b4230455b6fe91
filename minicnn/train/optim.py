"""Optimizers on the flat buffers; learning-rate schedules are in schedules.py."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..kernels.arguments import AdamStep, SGDStep
from ..kernels.types import Array
from .averaged_weights import AVERAGE, add_sample
from .rest_coordinates import RestCoordinates
from .schedules import (
    Cosine,
    LinearScaling,
    PerEpoch,
    Schedule,
    StepDecay,
    Warmup,
    rate_at,
    rate_config,
    rate_from_config,
)
from .shared_positions import SharedPositions, at_positions

if TYPE_CHECKING:
    from ..engine.engine import Engine

#: Optimizer classes by name: how a model file finds them.
OPTIMIZERS: dict[str, type[Optimizer]] = {}

step_decay, cosine, warmup, linear_scaling = StepDecay, Cosine, Warmup, LinearScaling


class Optimizer:
    """A rule that turns the summed gradients of a step into new weights.

    learning_rate: a number, or a schedule (a function of the update count 0, 1, ...), see
    schedules.py. weight_decay: for parameters that have decay, which biases, scales and offsets
    have not. ``state`` holds what the rule remembers, {name: vector like the parameters}: it is
    broadcast, averaged and saved with the weights. A subclass names its vectors in ``state_names``,
    keeps its arguments as attributes, and defines ``step``.
    """

    state_names: tuple[str, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        OPTIMIZERS[cls.__name__] = cls

    def __init__(self, learning_rate: Any, weight_decay: float = 0.0) -> None:
        if not callable(learning_rate) and not learning_rate >= 0:
            raise ValueError(
                "learning_rate must be a number >= 0 or a function of the step, got "
                f"{learning_rate!r}"
            )
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        #: Times the learning rate; ReduceLROnPlateau lowers it. Saved.
        self.rate_factor = 1.0
        self.steps = 0
        self.state: dict[str, Array] = {}
        self.constraints: list[SharedPositions] = []
        #: Whether weights move in RestCoordinates. Saved.
        self.at_rest = False
        #: Longest mean gradient, None for any. Saved.
        self.longest: float | None = None
        #: Updates over which weights are averaged, None for not at all. Saved.
        self.horizon: float | None = None

    def keep_rest(self) -> Optimizer:
        """Move weights in coordinates in which they do not move the outputs of an empty image;
        returns self. See RestCoordinates.
        """
        self.at_rest = True
        return self

    def clip(self, norm: float) -> Optimizer:
        """Shorten mean gradients whose norm, over all that learns, is above ``norm`` to it
        (Pascanu, Mikolov, Bengio 2013); returns self.
        """
        if not norm > 0:
            raise ValueError(f"gradients are clipped to a norm > 0, got {norm}")
        self.longest = float(norm)
        return self

    def average(self, updates: float) -> Optimizer:
        """Keep the running mean of the weights over about the last ``updates`` updates, in
        state["average"]; returns self. ``fit`` validates and saves models with it and leaves it
        in the model at the end; moments of BatchNormalization are those of the last step.
        """
        if not updates > 0:
            raise ValueError(f"weights are averaged over more than 0 updates, got {updates}")
        self.horizon = float(updates)
        return self

    def share(self, layer: str, updates: int) -> Optimizer:
        """Keep the weights of the Dense layer of this name equal at all positions of the image for
        the first ``updates``; returns self. See SharedPositions.
        """
        self.constraints.append(SharedPositions(layer, updates))
        return self

    def rate(self) -> float:
        """Return the learning rate of the next update."""
        return rate_at(self.learning_rate, self.steps) * self.rate_factor

    def bind(self, steps_per_epoch: int) -> None:
        """Tell a schedule that counts epochs how many updates one has, ``steps_per_epoch``; fit
        does.
        """
        if isinstance(self.learning_rate, Schedule):
            self.learning_rate.bind(steps_per_epoch)

    def prepare(self, model: Engine) -> None:
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
        if self.horizon and AVERAGE not in self.state:
            self.state[AVERAGE] = model.parameters.copy()
        for constraint in self.constraints:
            constraint.prepare(model, self.steps)

    def update(self, model: Engine, events: float) -> None:
        """Apply one step to ``model`` with its summed gradients of ``events`` events; for 0 nothing
        changes but the count of steps. Layers that are not trainable stay as they are.
        """
        self.prepare(model)
        if events:
            for constraint in self.constraints:
                constraint.project(model, self.steps)
            with RestCoordinates(model).moving() if self.at_rest else nullcontext():
                self._step_all(model, 1.0 / events)
            model.weights_changed()
        self.steps += 1
        if self.horizon:
            add_sample(self.state[AVERAGE], model.parameters, self.steps, self.horizon)

    def _step_all(self, model: Engine, scale: float) -> None:
        """Apply ``step`` to everything that learns, with the gradient scale * model.gradients."""
        rate, pieces = self.rate(), self.pieces(model)
        if self.longest is not None:
            squares = sum(_square(model.gradients[piece]) for piece, _, _ in pieces)
            scale *= min(1.0, self.longest / max(scale * squares**0.5, 1e-30))
        for piece, factor, decay in pieces:
            state = {name: vector[piece] for name, vector in self.state.items()}
            w, dw = model.parameters[piece], model.gradients[piece]
            weight_decay = self.weight_decay if decay else 0.0
            self.step(model.kernels, w, dw, state, (rate * factor, weight_decay, scale))

    def pieces(self, model: Engine) -> list[tuple[slice, float, bool]]:
        """Return (piece, factor of the rate, weight decay or not) of what is updated together in
        ``model``.
        """
        found = [(group.piece, group.factor, group.decay) for group in model.parameter_groups()]
        if not self.weight_decay:  # then groups that differ in decay alone need not be apart
            joined: list[tuple[slice, float, bool]] = []
            for piece, factor, _ in found:
                if joined and joined[-1][0].stop == piece.start and joined[-1][1] == factor:
                    piece = slice(joined.pop()[0].start, piece.stop)
                joined.append((piece, factor, False))
            return joined
        return found

    def step(
        self,
        kernels: Any,
        w: Array,
        dw: Array,
        state: dict[str, Array],
        settings: tuple[float, float, float],
    ) -> None:
        """Change w and the state in place, with ops of the backend ``kernels``; settings =
        (learning rate, weight decay, scale), for the gradient scale * dw.
        """
        raise NotImplementedError(f"{type(self).__name__}.step")

    def config(self) -> dict[str, Any]:
        """Return everything but the state vectors, JSON-ready; see optimizer_from_config."""
        names = [
            name for name in inspect.signature(type(self).__init__).parameters if name != "self"
        ]
        missing = [name for name in names if not hasattr(self, name)]
        if missing:
            raise ValueError(
                f"{type(self).__name__} keeps no attribute {missing[0]!r}, so it cannot be saved: "
                f"set self.{missing[0]} in its constructor, or define config()"
            )
        options = {name: getattr(self, name) for name in names}
        if "learning_rate" in options:
            options["learning_rate"] = rate_config(self.learning_rate)
        chosen = {"keep_rest": self.at_rest, "clip": self.longest, "average": self.horizon}
        return {
            "type": type(self).__name__,
            "options": options,
            "rate_factor": self.rate_factor,
            "shared_positions": [constraint.config() for constraint in self.constraints],
            **{name: value for name, value in chosen.items() if value},
        }

    def __repr__(self) -> str:
        options = self.config()["options"]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


def optimizer_from_config(config: dict[str, Any]) -> Optimizer:
    """Return the optimizer that ``config`` describes, without its state; ValueError for an unknown
    class.
    """
    kind = config["type"]
    if kind not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer named {kind}: import the module that defines it")
    options = dict(config["options"])
    if "learning_rate" in options:
        options["learning_rate"] = rate_from_config(options["learning_rate"])
    optimizer = OPTIMIZERS[kind](**options)
    optimizer.rate_factor = config.get("rate_factor", 1.0)
    optimizer.at_rest = config.get("keep_rest", False)
    optimizer.longest, optimizer.horizon = config.get("clip"), config.get("average")
    for constraint in config.get("shared_positions", ()):
        optimizer.share(**constraint)
    return optimizer


def _square(vector: Array) -> float:
    """Return the sum of the squares, in float64."""
    return float((vector * vector).sum(dtype="float64"))


class SGD(Optimizer):
    """g = mean gradient + weight_decay * w;  v = momentum * v + g;  w -= learning_rate * v
    (nesterov: g + momentum * v).
    """

    state_names = ("velocity",)

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum > 0")
        self.momentum, self.nesterov = momentum, nesterov

    def step(
        self,
        kernels: Any,
        w: Array,
        dw: Array,
        state: dict[str, Array],
        settings: tuple[float, float, float],
    ) -> None:
        (rate, weight_decay, scale), v = settings, state["velocity"]
        step = SGDStep(rate, self.momentum, self.nesterov, weight_decay, scale)
        kernels.sgd(w, dw, v, step, out=(w, v))


class Adam(Optimizer):
    """Every weight at a step of its own: the mean of its gradients over the root of their mean
    square, both running.

    g = mean gradient;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    with m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t) at step t = 1, 2, ...:
    w -= learning_rate * (m' / (sqrt(v') + epsilon) + weight_decay * w).

    Kingma, Ba 2015; weight decay apart from the gradient as in Loshchilov, Hutter 2019. Lit pixels
    are few, so gradients of the convolutions are small and uneven: this rule does not depend on
    their scale.
    """

    state_names = ("mean", "square")

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), got {beta1}, {beta2}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def step(
        self,
        kernels: Any,
        w: Array,
        dw: Array,
        state: dict[str, Array],
        settings: tuple[float, float, float],
    ) -> None:
        (rate, weight_decay, scale), m, v = settings, state["mean"], state["square"]
        number, betas = self.steps + 1, (self.beta1, self.beta2)
        step = AdamStep(number, rate, *betas, self.epsilon, weight_decay, scale)
        kernels.adam(w, dw, m, v, step, out=(w, m, v))


class LARS(SGD):
    """SGD with a rate of its own for every layer, for batches so large that one rate does not fit
    all (You, Gitman, Ginsburg 2017).

    For the parameters w of a layer, weights and bias together: ratio = trust * |w| / (|g| +
    weight_decay * |w|), 1 where |w| or |g| is 0; v = momentum * v + ratio * (g + weight_decay * w);
    w -= learning_rate * v. The step of a layer is thus learning_rate * trust of its norm, whatever
    the size of its gradient.
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay=weight_decay)
        if not trust > 0:
            raise ValueError(f"trust must be > 0, got {trust}")
        self.trust = trust

    def pieces(self, model: Engine) -> list[tuple[slice, float, bool]]:
        """Return one piece per layer of ``model``: weights and bias, together."""
        found = []
        for layer in model.layers:
            piece = model.layer_slices[model.layer_name(layer)]
            if piece.stop > piece.start and layer.trainable and layer.learning_rate_factor:
                found.append((piece, layer.learning_rate_factor, True))
        return found

    def step(
        self,
        kernels: Any,
        w: Array,
        dw: Array,
        state: dict[str, Array],
        settings: tuple[float, float, float],
    ) -> None:
        (rate, weight_decay, scale), v = settings, state["velocity"]
        size, slope = _square(w) ** 0.5, _square(dw) ** 0.5
        below = scale * slope + weight_decay * size
        ratio = self.trust * size / below if size and slope else 1.0
        step = SGDStep(rate, self.momentum, False, ratio * weight_decay, ratio * scale)
        kernels.sgd(w, dw, v, step, out=(w, v))


__all__ = [
    "LARS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "Cosine",
    "LinearScaling",
    "Optimizer",
    "PerEpoch",
    "RestCoordinates",
    "Schedule",
    "SharedPositions",
    "StepDecay",
    "Warmup",
    "at_positions",
    "cosine",
    "linear_scaling",
    "optimizer_from_config",
    "step_decay",
    "warmup",
]
