"""Weights in the order in which tiles read them, and the split of a size into groups that tiles exist for."""
from typing import NamedTuple

import numpy as np

from .checks import aligned, once


def split(size, most):
    """Return the sizes of as few groups as possible of at most ``most``, as equal as possible: split(7, 6) = [4, 3]."""
    groups = -(-size // most)
    return np.array([(size + i) // groups for i in range(groups)][::-1], np.int64)


class Packed(NamedTuple):
    """Weights by group of output channels: group g holds ``width[g]`` channels from ``start[g]``, as (KH * KW * C_in, width)."""
    w: np.ndarray
    start: np.ndarray
    width: np.ndarray


def pack(w, unit, most):
    """Pack w (KH, KW, C_in, C_out) for tiles of up to ``most`` columns of ``unit`` channels (LANES or 1), padded with zeros."""
    rows, co = w.shape[0] * w.shape[1] * w.shape[2], w.shape[3]
    units = -(-co // unit)
    columns = np.array([most] * (units // most) + [units % most] * (units % most > 0), np.int64)
    width = columns * unit
    start = np.cumsum(width) - width
    padded = np.zeros((rows, units * unit), np.float32)
    padded[:, :co] = w.reshape(rows, co)
    out = aligned((rows * units * unit,))
    for s, n in zip(start, width):
        out[rows * s:rows * (s + n)] = padded[:, s:s + n].reshape(-1)
    return Packed(out, start, width)


def packed(work, name, w, unit, most):
    """Return pack(w, unit, most), once per weight update where there is a Workspace."""
    return once(work, name, lambda: pack(w, unit, most))
