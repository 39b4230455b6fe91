"""The text of a kernel: a .cu file of this folder with the headers of this folder in place of its
#include lines.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent


@cache
def read(file: str) -> str:
    """Return the text of ``file`` in this folder."""
    return (FOLDER / file).read_text()


def source(file: str, replaced: dict[str, str] | None = None) -> str:
    """Return the whole text of ``file``, which compiles without an include path. ``replaced``
    ({file: text}) stands in for files.
    """
    text, seen = (replaced or {}).get(file) or read(file), set()
    pattern = re.compile(r'^#include "(.+\.cuh)".*$', re.M)
    while match := pattern.search(text):
        header = match[1]
        inner = (
            ""
            if header in seen
            else ((replaced or {}).get(header) or read(header)).replace("#pragma once\n", "")
        )
        seen.add(header)
        text = text[: match.start()] + inner + text[match.end() :]
    return text


def kernels(text: str) -> list[str]:
    """Return the names of the kernels in a source text."""
    return re.findall(
        r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(', text
    )


def scalar(value: Any) -> Any:
    """Return a kernel's argument as the number that C sees: int, float, or what a NumPy scalar
    says; arrays as they are.
    """
    if isinstance(value, bool | np.bool_):
        return np.int32(value)
    if isinstance(value, int):
        if not -(2**31) <= value < 2**31:
            raise OverflowError(f"{value} does not fit into a kernel's int: pass np.int64")
        return np.int32(value)
    return np.float32(value) if isinstance(value, float) else value


def three(sizes: Any) -> tuple[int, int, int]:
    """Return the sizes of a grid or a block as three ints."""
    sizes = (sizes,) if np.isscalar(sizes) else tuple(sizes)
    x, y, z = map(int, (*sizes, 1, 1)[:3])
    return x, y, z
