"""Learning rates that change: objects called with the update count (0, 1, ...), so that a model
file can hold them.

    Warmup(Cosine(0.001, steps=10_000), steps=500)
    PerEpoch(StepDecay(0.01, every=30))                 # counts epochs instead of updates
"""

from __future__ import annotations

import math
from typing import Any

SCHEDULES: dict[str, type[Schedule]] = {}


class Schedule:
    """Base: define ``__call__(step) -> rate``; keep the constructor's arguments as attributes."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        SCHEDULES[cls.__name__] = cls

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def bind(self, steps_per_epoch: int) -> None:
        """Learn how many updates an epoch has, ``steps_per_epoch``; fit calls it before the first
        step.
        """
        inner = getattr(self, "schedule", None)
        if isinstance(inner, Schedule):
            inner.bind(steps_per_epoch)

    def config(self) -> dict[str, Any]:
        """Return {"type": class name, **arguments}, JSON-ready."""
        options = {
            key: rate_config(value) if key == "schedule" else value
            for key, value in vars(self).items()
            if not key.startswith("_")
        }
        return {"type": type(self).__name__, **options}

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.config() == other.config()  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]


class StepDecay(Schedule):
    """rate * factor^(step // every)."""

    def __init__(self, rate: float, every: int, factor: float = 0.1) -> None:
        self.rate, self.every, self.factor = rate, every, factor

    def __call__(self, step: int) -> float:
        return self.rate * self.factor ** (step // self.every)


class Cosine(Schedule):
    """Half a cosine from ``rate`` to ``final`` over ``steps`` (Loshchilov, Hutter 2017), then
    ``final``.
    """

    def __init__(self, rate: float, steps: int, final: float = 0.0) -> None:
        self.rate, self.steps, self.final = rate, steps, final

    def __call__(self, step: int) -> float:
        part = min(step / self.steps, 1.0)
        return self.final + (self.rate - self.final) * 0.5 * (1 + math.cos(math.pi * part))


class Warmup(Schedule):
    """``schedule`` (a number or function) times (step + 1) / steps during the first ``steps``
    (Goyal et al. 2017).
    """

    def __init__(self, schedule: Any, steps: int) -> None:
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: int) -> float:
        ramp = min((step + 1) / self.steps, 1.0) if self.steps else 1.0
        return rate_at(self.schedule, step) * ramp


class LinearScaling(Schedule):
    """``schedule`` (a number or function) for a batch ``factor`` times larger: times a ramp from 1
    to ``factor`` over ``steps``.

    The linear scaling rule with gradual warm-up (Goyal et al. 2017): k times fewer updates of k
    times the rate go equally far as long as gradients change little in between, which is not so at
    first.
    """

    def __init__(self, schedule: Any, factor: float, steps: int) -> None:
        self.schedule, self.factor, self.steps = schedule, factor, steps

    def __call__(self, step: int) -> float:
        part = min((step + 1) / self.steps, 1.0) if self.steps else 1.0
        return rate_at(self.schedule, step) * (1 + (self.factor - 1) * part)


class PerEpoch(Schedule):
    """``schedule`` (a function of the epoch, 0, 1, ..., or a list of rates, the last of which
    stays) for steps: fit says how many make an epoch, where ``steps_per_epoch`` does not.
    """

    def __init__(self, schedule: Any, steps_per_epoch: int | None = None) -> None:
        self.schedule, self.steps_per_epoch = schedule, steps_per_epoch

    def bind(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: int) -> float:
        if not self.steps_per_epoch:
            raise ValueError("a PerEpoch schedule needs steps_per_epoch, or fit, which gives it")
        epoch = step // self.steps_per_epoch
        if isinstance(self.schedule, (list, tuple)):
            return float(self.schedule[min(epoch, len(self.schedule) - 1)])
        return rate_at(self.schedule, epoch)


class LostFunction(Schedule):
    """What is left in a model file of a rate that was a bare function; it cannot be called."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, step: int) -> float:
        raise ValueError(
            f"the saved optimizer's learning rate was a function ({self.text}), which no file can "
            "hold: give load_model an optimizer, or use a schedule of minicnn.optim"
        )


def rate_at(rate: Any, step: int) -> float:
    """Return a number as it is, of a schedule or function its value at ``step``."""
    return float(rate(step) if callable(rate) else rate)


def rate_config(rate: Any) -> Any:
    """Return a rate JSON-ready: a number, a list, or a schedule's config."""
    if isinstance(rate, Schedule):
        return rate.config()
    if callable(rate):
        return LostFunction(getattr(rate, "__qualname__", repr(rate))).config()
    return list(rate) if isinstance(rate, (list, tuple)) else float(rate)


def rate_from_config(config: Any) -> Any:
    """Undo ``rate_config``; ValueError for an unknown schedule."""
    if not isinstance(config, dict):
        return config
    options = {k: rate_from_config(v) if k == "schedule" else v for k, v in config.items()}
    kind = options.pop("type")
    if kind not in SCHEDULES:
        raise ValueError(f"there is no schedule named {kind}: import the module that defines it")
    return SCHEDULES[kind](**options)
