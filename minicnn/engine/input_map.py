"""What happens to a pixel as it enters the network."""

from typing import Any

import numpy as np


class InputMap:
    """v -> scale * v, or with a knee v -> scale * knee * log(1 + v / knee) (odd in v): linear below
    the knee, logarithmic above.

    Pixel by pixel and 0 -> 0, so that an event stays as sparse as it is. The knee, in the units of
    v, keeps the few very bright pixels of a shower (50 times a minimum-ionising track) from
    deciding every gradient. Raises ValueError unless both are finite and positive.
    """

    def __init__(self, scale: float = 1.0, knee: float | None = None) -> None:
        for name, value in (("input_scale", scale), ("input_knee", 1.0 if knee is None else knee)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        self.scale, self.knee = float(scale), None if knee is None else float(knee)
        self.identity = self.scale == 1 and knee is None

    def __str__(self) -> str:
        return f"pixels times {self.scale:g}" + (
            f", compressed above {self.knee:g}" if self.knee else ""
        )

    def derivative(self, v: np.ndarray) -> np.ndarray:
        """Return d map / d v, of the dtype of v."""
        if self.knee is None:
            return np.full_like(v, self.scale)
        return (self.scale / (1 + np.abs(v) / self.knee)).astype(v.dtype)

    def __call__(self, v: Any) -> Any:
        """Return the mapped array, of the dtype of v; integers become float32 first."""
        v = np.asarray(v)
        if v.dtype.kind != "f":
            v = v.astype(np.float32)
        if self.identity:
            return v
        if self.knee is None:
            return v * v.dtype.type(self.scale)
        knee = v.dtype.type(self.knee)
        return np.copysign(v.dtype.type(self.scale) * knee * np.log1p(np.abs(v) / knee), v)
