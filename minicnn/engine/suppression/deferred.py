"""Weight gradients of deep blocks, made of the cells of several events at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels.types import Array
from ..fused import FusedBlock


class DeferredWeightGradient:
    """Collects lit cells (window, gradient, output, argmax) of several events and computes their
    weight gradient in one call, of at most ``capacity`` cells.

    Worthwhile for deep blocks: dw (3 MB in the talk's last block) exceeds a cache while an event
    lights about six cells, so adding to dw once per event would be limited by memory traffic.
    """

    capacity = 256

    def __init__(
        self, kernels: Any, block: FusedBlock, channels: int, grid: int, dtype: Any
    ) -> None:
        self.kernels, self.block = kernels, block
        window = [p + n - 1 for p, n in zip(block.pool, block.conv.kernel_size)]
        # Behind the cells of events there is room for those of the block at rest, at the end.
        rows, filters = self.capacity + grid, block.conv.filters
        self.x = kernels.empty((rows, *window, channels), dtype)
        self.dy, self.y = (kernels.empty((rows, 1, 1, filters), dtype) for _ in range(2))
        self.argmax, self.count = kernels.empty((rows, 1, 1, filters), np.uint8), 0

    @classmethod
    def make_if_worthwhile(
        cls, kernels: Any, block: FusedBlock, channels: int, grid: int, dtype: Any
    ) -> DeferredWeightGradient | None:
        """Return one if events run one at a time, the block's weight gradient is over 1 MB, and its
        grid is no larger than the capacity; else None.
        """
        size = (
            np.dtype(dtype).itemsize
            * math.prod(block.conv.kernel_size)
            * channels
            * block.conv.filters
        )
        one_at_a_time = not hasattr(kernels, "suppressed")
        if one_at_a_time and size > 1 << 20 and grid <= cls.capacity:
            return cls(kernels, block, channels, grid, dtype)
        return None

    def add(self, dy: Array, y: Array, argmax: Array, x: Array, cells: Array | None = None) -> None:
        """Take cells in: dy, y, argmax (m, C_out) and their windows x (m, ...), or the cells (m, 2)
        of an image x (1, H, W, C).
        """
        new = slice(self.count, self.count + len(dy))
        self.dy[new, 0, 0], self.y[new, 0, 0], self.argmax[new, 0, 0] = dy, y, argmax
        if cells is None:
            self.x[new] = x
        else:
            conv = self.block.conv
            self.kernels.cell_windows(
                x, cells, conv.kernel_size, self.block.pool, conv.padding, self.x[new]
            )
        self.count += len(dy)

    def flush(self, w: Array, dw: Array, db: Array, workspace: Any) -> None:
        """Add the gradient of all collected cells into dw and db."""
        if self.count:
            n, self.count, block = slice(0, self.count), 0, self.block
            self.kernels.conv2d_block_backward(
                self.dy[n],
                self.x[n],
                w,
                self.y[n],
                self.argmax[n],
                block.pool,
                block.alpha,
                "valid",
                False,
                dw,
                db,
                work=workspace,
            )
