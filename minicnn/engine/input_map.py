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

    def derivative(self, values: np.ndarray) -> np.ndarray:
        """Return the derivative of the map at ``values``, of their dtype."""
        if self.knee is None:
            return np.full_like(values, self.scale)
        return (self.scale / (1 + np.abs(values) / self.knee)).astype(values.dtype)

    def __call__(self, values: Any) -> Any:
        """Return the mapped array, of the dtype of ``values``; integers become float32 first."""
        values = np.asarray(values)
        if values.dtype.kind != "f":
            values = values.astype(np.float32)
        if self.identity:
            return values
        if self.knee is None:
            return values * values.dtype.type(self.scale)
        knee = values.dtype.type(self.knee)
        return np.copysign(
            values.dtype.type(self.scale) * knee * np.log1p(np.abs(values) / knee), values
        )
