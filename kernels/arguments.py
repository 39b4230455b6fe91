"""What ops take and give where several values belong together: see shapes.py for geometry, lit.py
for maps that are lit in few places.
"""

from typing import NamedTuple

from .types import Array


class Wanted(NamedTuple):
    """What a backward op is asked for.

    dx: whether the gradient of its input is wanted; where not, it is None in the result. into: the
    arrays that the gradients of its parameters are added to, in their order: (dw, db), (dgamma,
    dbeta). For None among them, or instead of them all, the op makes new ones.
    """

    dx: bool = True
    into: tuple[Array | None, ...] | None = None

    def targets(self, op: str, count: int) -> tuple[Array | None, ...]:
        """Return ``count`` arrays or None; ValueError naming the op where there are others."""
        if self.into is None:
            return (None,) * count
        if len(self.into) != count:
            raise ValueError(f"{op} has gradients of {count} parameters, got {len(self.into)}")
        return self.into


class Pooled(NamedTuple):
    """What a fused block gives, and what its backward pass needs: the input x (N, H, W, C_in), and
    of every cell the output y and the position ``argmax`` of the first maximum in its window,
    counted row by row, uint8; both (N, OH // PH, OW // PW, C_out).
    """

    x: Array
    y: Array
    argmax: Array


class Moments(NamedTuple):
    """Mean and variance (biased: divided by the number of positions) of each channel, (C,) float64.

    of_batch: they are those of the very numbers that are normalised, so that gradients go through
    them; False for statistics that are constants.
    """

    mean: Array
    variance: Array
    of_batch: bool = True


class SGDStep(NamedTuple):
    """The settings of one step of SGD; ``scale`` is what gradients are multiplied by."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    scale: float = 1.0


class AdamStep(NamedTuple):
    """The settings of step ``number`` (1, 2, ...) of Adam; ``scale`` is what gradients are
    multiplied by.
    """

    number: int
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    scale: float = 1.0
