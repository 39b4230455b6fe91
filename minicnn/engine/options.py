"""How a model runs and learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn.losses import Loss

if TYPE_CHECKING:
    from ..train.optim import Optimizer


@dataclass(frozen=True)
class Options:
    """How a model runs and learns: the keyword arguments of Model and Sequential.

    device: "auto", "cpu", "cuda", "cuda:K", "reference" or "emulated", see device.resolve_device.
    seed: of the weights and of dropout. optimizer: for ``train_on_batch`` and ``fit``. loss: a
    Loss, or one for each output. class_names: of a classifier's outputs. fuse: run
    Conv2D-ELU-MaxPooling2D as one kernel where possible. dtype: "float32", or "float64" on the
    reference for checks. input_scale, input_knee: pixels are multiplied by the scale as they enter
    and compressed above the knee, see InputMap. zero_suppression: "auto" computes only what an
    event changes where few pixels are lit (docs/lit.md), "always" everywhere, "never" nowhere; the
    numbers are the same to rounding. precision: "tf32" runs the forward pass of dense blocks on a
    GPU's tensor cores, see docs/gpu.md; "bf16" on a CPU with AVX512-BF16, see
    kernels/cpu/bf16.py. All but device and optimizer belong to the model's file.
    """

    device: str = "auto"
    seed: int = 0
    optimizer: Optimizer | None = None
    loss: Loss | Sequence[Loss] | None = None
    class_names: Sequence[str] | None = None
    fuse: bool = True
    dtype: Any = "float32"
    input_scale: float = 1.0
    input_knee: float | None = None
    zero_suppression: str = "auto"
    precision: str = "float32"

    def saved(self) -> dict[str, Any]:
        """Return what belongs to the model's file, JSON-ready."""
        keys = ("seed", "fuse", "input_scale", "input_knee", "zero_suppression", "precision")
        names = list(self.class_names) if self.class_names is not None else None
        return {
            **{key: getattr(self, key) for key in keys},
            "dtype": str(np.dtype(self.dtype)),
            "class_names": names,
        }
