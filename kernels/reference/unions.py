"""Lists of positions (n, 2) row, column, in row-major order, put together."""

import numpy as np

from ..types import Array


def merge_positions(first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Return (positions, in_first, in_second): the union of two lists of positions, int32 (m, 2),
    and where in it the entries of each are, int32 (n,) and (k,).

    first (n, 2), second (k, 2) and the result are row-major, without repetition.
    """
    both = np.concatenate([first, second]).astype(np.int64)
    width = int(both[:, 1].max(initial=0)) + 1
    union, slots = np.unique(both[:, 0] * width + both[:, 1], return_inverse=True)
    positions = np.stack(np.divmod(union, width), 1).astype(np.int32)
    slots = slots.reshape(-1).astype(np.int32)
    return positions, slots[: len(first)], slots[len(first) :]
