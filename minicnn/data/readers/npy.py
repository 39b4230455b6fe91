"""Headers of NumPy arrays, in an .npy file or a member of an .npz, held against the bytes that are
there.
"""

from __future__ import annotations

import math
from typing import IO, Any, NamedTuple

import numpy as np


class Header(NamedTuple):
    """What an array says of itself; is_fortran: stored by column."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype


def read_header(file: IO[Any], size: int) -> Header:
    """Return the header of the array in an open ``file`` of ``size`` bytes, which then stands at
    the first number.

    ValueError where another number of bytes follows than the header says: a file that was cut
    short, or a header with a flipped digit, which would give part of the image.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"version {version} of the .npy format is not read")
    try:
        header = Header(*read[version](file))
    except ValueError as problem:
        if "max_header_size" not in str(problem):
            raise
        raise ValueError("holds records of very many fields, not an image") from problem
    wanted, available = math.prod(header.shape) * header.dtype.itemsize, size - file.tell()
    if header.dtype.kind in "buif" and wanted != available:
        raise ValueError(
            f"its header says {header.dtype} {header.shape}, which is {wanted:,} bytes, but "
            f"{available:,} follow; the file is damaged, copy or make it again"
        )
    return header
