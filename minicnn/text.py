"""Numbers in words, for what is printed."""

from collections.abc import Sequence

import numpy as np


def bytes_text(count: float) -> str:
    """Return a number of bytes in words: "1.2 MB"."""
    if count < 1000:
        return f"{int(count)} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} GB"


def seconds_text(seconds: float) -> str:
    """Return a duration in words: "0.50 s", "3.1 min", "2.4 h"."""
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds > 90 else f"{seconds:.2f} s"


def counted(count: int, thing: str) -> str:
    """Return "1 rank", "2 ranks", "4,000 events"."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def classes_text(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Return "gamma 40, e+- 38, unknown 2": how many events there are of each class."""
    words = [f"{name} {int((labels == k).sum()):,}" for k, name in enumerate(class_names)]
    unknown = int((labels < 0).sum())
    return ", ".join(words + [f"unknown {unknown:,}"] * bool(unknown))
