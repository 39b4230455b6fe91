"""Exact zero suppression: the leading blocks of a network at a cost that follows the lit pixels,
with the numbers of the dense network.

An image at rest, without an event, has few different pooled cells. Along each axis a cell belongs
to a *class*, given by what its input window sees there: pixels of which class, or the padding
outside the image. Behind every block there are a handful of them: the inner ones, which see
background alone, and some at either end. A cell's output depends on its pair of classes, so a block
at rest is a small table, computed from one window per pair once per weight update.

An event changes the cells whose window holds a lit position: the *lit* cells, which are positions
for the next block. Only these are computed per event, into a buffer that holds the resting output
and is put back to rest afterwards.

Backward, G at lit cells gives all of the gradient at lit positions, because a window that holds one
is lit. What it gives elsewhere, and the gradients of all cells that are not lit, are needed only as
sums over classes: all cells of a pair see the same window, have the same maximum and the same
derivative. Sums are linear, so they are added up over a batch, and one backward pass over the
table's windows per update gives their share of dw and db, and the sums over the classes of the
block before.

A block of which more than CROSSOVER is lit, and all blocks behind it, run dense for that event: the
same numbers, cheaper there. Not so a deep block whose weight gradients wait for those of other
events (DeferredWeightGradient): its list may be that of all cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...inspect import trace
from ...kernels.shapes import conv_padding
from ...kernels.types import Array, Shape
from ...nn.layers import Context
from ..fused import FusedBlock
from ..ingest import background_of, gather_lit_pixels
from ..input_map import InputMap
from ..stages import Stage
from .classes import Table, axis_classes, class_sums, first_positions, rows_of_classes
from .deferred import DeferredWeightGradient

#: Fraction of lit cells above which a block runs dense, and of lit pixels above which the whole
#: event does (their list alone would cost more). benchmarks/active.py prints what each choice
#: costs.
CROSSOVER, PIXEL_CROSSOVER = 0.95, 0.2
MODES = ("auto", "always", "never")


@dataclass
class Saved:
    """What the backward pass of one piece needs. ``lit[i]`` is None where block i ran dense."""

    inputs: list = field(default_factory=list)  # x of every block
    lit: list = field(default_factory=list)  # positions: lit[0] pixels, lit[i + 1] cells of block i
    y: list = field(default_factory=list)
    argmax: list = field(default_factory=list)


class ZeroSuppressed(Stage):
    """FusedBlocks from an input on, as one stage of the plan; takes a list of SparseImages (or
    image arrays) of one background: one at a time on the CPU, some together on a GPU. Positions
    count their rows on through the images: row r of image e is e * H + r.

    ``buffers[0]`` holds the images and ``buffers[i + 1]`` the output of block i, valid where the
    windows of the lit cells are.
    """

    takes_events = True

    def __init__(
        self,
        blocks: list[FusedBlock],
        contexts: list[Context],
        grids: list[Shape],
        input_map: InputMap,
        mode: str = "auto",
    ) -> None:
        super().__init__("zero suppression", contexts)
        self.kernels = contexts[0].kernels
        self.dtype = contexts[0].params["w"].dtype
        self.blocks, self.shapes, self.input_map = blocks, grids, input_map
        always = mode == "always"
        self.crossover = 1.0 if always else CROSSOVER
        self.pixel_crossover = 1.0 if always else PIXEL_CROSSOVER
        #: (row class (H,), column class (W,)) of pixels: at rest all pixels are alike.
        self.pixel_classes: Any = tuple(np.zeros(n, np.int32) for n in self.shapes[0][:2])
        self.rows_of_pixel_class: Any = None
        self.tables = self._classify()
        self.buffers: list[Array] = []
        self.background: Any = None
        self.tables_valid = False
        #: Gradients summed over class pairs (R, S, C), one array per block; None between steps.
        self.sums: list[Array] | None = None
        #: For each block a DeferredWeightGradient where it is worthwhile, else None.
        self.deferred: list[DeferredWeightGradient | None] = []
        self.events, self.active = 0, np.zeros(len(blocks), np.int64)

    def _classify(self) -> list[Table]:
        tables, classes = [], self.pixel_classes
        for block, before, after in zip(self.blocks, self.shapes, self.shapes[1:]):
            kernel, pool = block.conv.kernel_size, block.pool
            pads = conv_padding((1, *before), (*kernel, 0, 0), (1, 1), block.conv.padding)
            axes = [
                axis_classes(classes[a], kernel[a], pool[a], pads[a][0], after[a]) for a in (0, 1)
            ]
            patterns, classes = zip(*axes)
            firsts = [first_positions(pattern, n) for pattern, n in zip(patterns, kernel)]
            row_extent, column_extent = (1 + first.max(1).astype(int) for first in firsts)
            pairs = np.meshgrid(row_extent, column_extent, indexing="ij")
            distinct = np.stack(pairs, -1).reshape(-1, 2)
            repeats = tuple(first[c] for first, c in zip(firsts, classes))
            tables.append(Table(classes, patterns, repeats, distinct))
        return tables

    def occupancy(self) -> str:
        """Return the mean number of computed cells of each block's grid, as text."""
        return ", ".join(
            f"{block.name} {count / self.events:.0f} of {shape[0] * shape[1]}"
            for block, count, shape in zip(self.blocks, self.active, self.shapes[1:])
        )

    def weights_changed(self) -> None:
        """The resting state has to be computed again."""
        super().weights_changed()
        self.tables_valid = False

    # -------------------------------------------------------------------------------------- forward
    def forward(self, events: Any) -> tuple[Array, Saved]:
        """Return (y (n, OH, OW, C_out) of the last block, Saved) for n events; y is a buffer, valid
        until the next call.
        """
        kernels, n = self.kernels, len(events)
        with trace.span("transfer"):
            lit, values, x, background = self._pixels(events)
        with trace.span("forward", "resting tables"):
            self._rest(background, n)
        saved = Saved(lit=self._lists(lit, n))
        self.events += n
        for i, (block, lit, cells) in enumerate(zip(self.blocks, saved.lit, saved.lit[1:])):
            with trace.span("forward", block.name):
                context, padding = self.contexts[i], block.conv.padding
                w, b = context.params["w"], context.params["b"]
                options = block.pool, block.alpha, padding
                if lit is not None:
                    x = self.buffers[i][:n]
                    if cells is None:
                        self._at_rest(i)
                    else:
                        window = block.conv.kernel_size, block.pool, padding
                        kernels.fill_windows(x, cells, *window, *self._resting(i))
                    kernels.put_pixels(x, lit, values)
                saved.inputs.append(x)
                if cells is None:
                    y, argmax = kernels.conv2d_block(x, w, b, *options, work=context.workspace)
                    x = y
                    self.active[i] += n * math.prod(self.shapes[i + 1][:2])
                else:
                    changed = (lit, *self.tables[i].first_equal_position)
                    y, argmax = kernels.conv2d_block_cells(
                        x, cells, w, b, *options, changed, work=context.workspace
                    )
                    self.active[i] += len(cells)
                saved.y.append(y)
                saved.argmax.append(argmax)
                values = y
        lit = saved.lit[-1]
        if lit is not None:
            x = self.buffers[-1][:n]
            x[...] = self.resting_output
            kernels.put_pixels(x, lit, values)
        return x, saved

    def _lists(self, lit: Any, n: int) -> list[Any]:
        """Return [lit pixels, lit cells of the first block, of the second, ...] of n events: None
        for one that runs dense, and after it.

        Lists depend on no sum, so all are made before the first one: on a GPU the host has to wait
        for their lengths.
        """
        lists = [lit]
        for i, block in enumerate(self.blocks):
            if lit is not None:
                with trace.span("forward", block.name):
                    lit = self.kernels.active_cells(
                        lit,
                        (n, *self.shapes[i]),
                        block.conv.kernel_size,
                        block.pool,
                        block.conv.padding,
                        work=self.contexts[i].workspace,
                    )
                    limit = 1.0 if self.deferred[i] else self.crossover
                    lit = None if len(lit) > limit * n * math.prod(self.shapes[i + 1][:2]) else lit
            lists.append(lit)
        return lists

    def _pixels(self, events: Any) -> tuple[Any, Any, Any, Any]:
        """Return (positions, values, None, background) of the events' lit pixels, mapped; where
        they are too many to gain anything, (None, None, dense images (n, H, W, C), background).
        """
        kernels = self.kernels
        limit = self.pixel_crossover * len(events) * math.prod(self.shapes[0][:2])
        background = self.input_map(np.float32(background_of(events[0])))
        arrays = any(isinstance(e, np.ndarray) for e in events)
        if not arrays and sum(e.nnz for e in events) <= limit:
            return *gather_lit_pixels(kernels, events, self.input_map), None, background
        images = [
            self.input_map(e) if isinstance(e, np.ndarray) else e.to_dense(f=self.input_map)
            for e in events
        ]
        stacked = images[0][None] if len(images) == 1 else np.stack(images)
        x = kernels.asarray(np.asarray(stacked, self.dtype))
        lit = kernels.lit_pixels(x, background, limit) if arrays else None
        if lit is None:
            return None, None, x, background
        return lit, kernels.take_pixels(x, lit), None, background

    def _resting(self, i: int) -> tuple[Array, Any]:
        """Return (values (R, S, C), classes) of buffer i without an event."""
        if i == 0:
            return self.resting_pixel, self.pixel_classes
        table = self.tables[i - 1]
        return table.y.reshape(*table.pairs, -1), table.classes

    def _at_rest(self, i: int) -> None:
        """Bring the whole of buffer i to rest."""
        values, (_, columns) = self._resting(i)
        rows_of_class = self.tables[i - 1].rows_of_class if i else self.rows_of_pixel_class
        for rows, line in zip(rows_of_class, values[:, columns]):
            self.buffers[i][:, rows] = line

    def _prepare(self, images: int) -> None:
        """Make buffers for so many images, and at the first call what lies on the device."""
        kernels = self.kernels
        if not self.buffers or len(self.buffers[0]) < images:
            self.buffers = [kernels.zeros((images, *shape), self.dtype) for shape in self.shapes]
        if self.rows_of_pixel_class is None:
            self.rows_of_pixel_class = rows_of_classes(kernels, self.pixel_classes[0])
            self.pixel_classes = tuple(map(kernels.asarray, self.pixel_classes))
            for table, before in zip(self.tables, [(1, 1), *(t.pairs for t in self.tables)]):
                table.to_device(kernels, before)
            self.deferred = [
                DeferredWeightGradient.make_if_worthwhile(
                    kernels, block, before[2], math.prod(after[:2]), self.dtype
                )
                for block, before, after in zip(self.blocks, self.shapes, self.shapes[1:])
            ]

    def _rest(self, background: Any, images: int) -> None:
        """Compute the tables for the present weights and background, unless they are there."""
        kernels = self.kernels
        self._prepare(images)
        if self.tables_valid and background == self.background:
            return
        if self.sums is not None:
            # Pending sums belong to the tables of the background before: use them up first.
            self.finish()
        self.background, self.tables_valid = background, True
        pixel = np.full((1, 1, self.shapes[0][2]), background, self.dtype)
        self.resting_pixel = kernels.asarray(pixel)
        for i, (block, table, context) in enumerate(zip(self.blocks, self.tables, self.contexts)):
            values, (rows, columns) = self._resting(i)[0], table.patterns
            # One more row and column of zeros: class -1 is what lies outside of the image.
            outside = values.shape[0] + 1, values.shape[1] + 1, values.shape[2]
            padded = kernels.zeros(outside, self.dtype)
            padded[:-1, :-1] = values
            x = padded[
                rows[:, None, :, None], columns[None, :, None, :]
            ]  # (R, S, rows, columns, C)
            table.x = kernels.empty((len(rows) * len(columns), *x.shape[2:]), self.dtype)
            table.x.reshape(x.shape)[...] = x
            y, argmax = kernels.conv2d_block(
                table.x,
                context.params["w"],
                context.params["b"],
                block.pool,
                block.alpha,
                "valid",
                table.distinct_extent,
                context.workspace,
            )
            table.y, table.argmax = y.copy(), argmax.copy()  # the kernel returned buffers
        values, (rows, columns) = self._resting(len(self.blocks))
        self.resting_output = values[rows[:, None], columns[None]]

    # ------------------------------------------------------------------------------------- backward
    def backward(self, dy: Array, saved: Saved) -> tuple[Array | None, ...]:
        """Add the gradients of the events' lit cells to those of the parameters, and the others to
        ``sums``, for dy (n, OH, OW, C_out).
        """
        kernels = self.kernels
        if self.sums is None:
            self.sums = [
                kernels.zeros((*table.pairs, shape[2]), np.float64)
                for table, shape in zip(self.tables, self.shapes[1:])
            ]
        dx, grad = dy, None  # dense, or at the lit cells
        for i in reversed(range(len(self.blocks))):
            block, context = self.blocks[i], self.contexts[i]
            lit, x, positions = saved.lit[i + 1], saved.inputs[i], saved.lit[i]
            with trace.span("backward", block.name):
                w, dw, db = context.params["w"], context.grads["w"], context.grads["b"]
                forward = x, w, saved.y[i], saved.argmax[i], block.pool, block.alpha
                padding, workspace = block.conv.padding, context.workspace
                if lit is None:
                    dx = kernels.conv2d_block_backward(
                        dx, *forward, padding, i > 0, dw, db, work=workspace
                    )[0]
                    continue
                if grad is None:
                    grad = kernels.take_pixels(dx, lit)
                    total = class_sums(dx.sum(0, dtype=np.float64), self.tables[i])
                    self._add_sums(i, total, grad, lit)
                classes, deferred = self.tables[i - 1].classes if i else None, self.deferred[i]
                if deferred:
                    if deferred.count + len(lit) > deferred.capacity:
                        deferred.flush(w, dw, db, workspace)
                    deferred.add(grad, saved.y[i], saved.argmax[i], x, lit)
                grad, sums, _, _ = kernels.conv2d_block_cells_backward(
                    grad,
                    lit,
                    positions if i else None,
                    *forward,
                    padding,
                    classes,
                    dw,
                    db,
                    deferred is None,
                    work=workspace,
                )
                if i:
                    self._add_sums(i - 1, sums, grad, positions)
        return (None,)

    def _add_sums(self, i: int, sums: Array, grad: Array, lit: Array) -> None:
        """Add to the class sums of block i: ``sums`` over all its cells, less the gradients of the
        lit ones.
        """
        table = self.tables[i]
        assert self.sums is not None
        self.sums[i] += sums - self.kernels.class_sums(grad, lit, table.classes, table.pairs)

    def begin(self) -> None:
        self.sums = None
        for deferred in self.deferred:
            if deferred:
                deferred.count = 0

    def finish(self, done: Callable[[int], None] | None = None) -> None:
        """Add the gradients of all cells that were not lit, for the events since the last call;
        nothing if there were none. ``done(i)`` is called from the last block to the first.
        """
        if self.sums is None:
            return
        kernels = self.kernels
        for i in reversed(range(len(self.blocks))):
            block, table, context = self.blocks[i], self.tables[i], self.contexts[i]
            w, dw, db = context.params["w"], context.grads["w"], context.grads["b"]
            dy = self.sums[i].reshape(-1, 1, 1, self.shapes[i + 1][2]).astype(self.dtype)
            deferred = self.deferred[i]
            if deferred:
                with trace.span("backward", block.name):
                    deferred.add(dy[:, 0, 0], table.y[:, 0, 0], table.argmax[:, 0, 0], table.x)
                    deferred.flush(w, dw, db, context.workspace)
            dx = kernels.conv2d_block_backward(
                dy,
                table.x,
                w,
                table.y,
                table.argmax,
                block.pool,
                block.alpha,
                "valid",
                i > 0,
                dw,
                db,
                deferred is None,
                work=context.workspace,
            )[0]
            if done:
                done(i)
            if i:
                # Sum the windows' gradients over the input classes they see: rows, then columns.
                rows, columns = table.class_incidence
                dx = dx.reshape(*table.pairs, *dx.shape[1:]).transpose(0, 2, 1, 3, 4)
                part = rows @ dx.reshape(rows.shape[1], -1).astype(np.float64)
                self.sums[i - 1] += columns @ part.reshape(len(rows), columns.shape[1], -1)
        self.sums = None
