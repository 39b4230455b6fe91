"""The text of a kernel: a .cu file of this folder with the headers of this folder in place of its
#include lines.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


@cache
def read(file):
    """Return the text of ``file`` in this folder."""
    return (FOLDER / file).read_text()


def source(file, replaced=None):
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


def kernels(text):
    """Return the names of the kernels in a source text."""
    return re.findall(
        r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(', text
    )


def scalar(value):
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


def three(sizes):
    """Return the sizes of a grid or a block as three ints."""
    sizes = (sizes,) if np.isscalar(sizes) else tuple(sizes)
    return tuple(map(int, (*sizes, 1, 1)[:3]))
