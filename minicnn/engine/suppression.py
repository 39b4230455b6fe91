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
events (Waiting): its list may be that of all cells.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..inspect import trace
from ..kernels import shapes

#: Fraction of lit cells above which a block runs dense, and of lit pixels above which the whole
#: event does (their list alone would cost more). benchmarks/active.py prints what each choice
#: costs.
CROSSOVER, PIXEL_CROSSOVER = 0.95, 0.2
MODES = ("auto", "always", "never")


def axis_classes(before, kernel, pool, stride_padding, cells):
    """Return (patterns (K, window), cell_class (cells,)): the different windows along one axis, as
    classes of the pixels ``before``.

    ``before`` (size,) is the class of every pixel; a window of pool + kernel - 1 starts at cell *
    pool - padding; outside is -1.
    """
    window = np.arange(cells)[:, None] * pool - stride_padding + np.arange(pool + kernel - 1)
    inside = (window >= 0) & (window < len(before))
    pattern = np.where(inside, before[np.clip(window, 0, len(before) - 1)], -1)
    patterns, cell_class = np.unique(pattern, axis=0, return_inverse=True)
    return patterns, cell_class.reshape(-1).astype(np.int32)


def first_positions(patterns, kernel):
    """Return for each window (K, window) and each of its positions along the axis the first that
    sees the same: (K, positions) uint8.
    """
    seen = [
        [tuple(window[i : i + kernel]) for i in range(len(window) - kernel + 1)]
        for window in patterns.tolist()
    ]
    return np.array([[window.index(one) for one in window] for window in seen], np.uint8)


@dataclass
class Table:
    """A block at rest: one window per pair of classes, numbered r * S + s."""

    classes: tuple  # (row_class (OH,), column_class (OW,)) of its cells
    patterns: tuple  # what windows of a class see: (R, PH + KH - 1), (S, PW + KW - 1)
    same: tuple = (
        None  # (OH, PH), (OW, PW): the first position of a cell that sees what this one sees
    )
    distinct: np.ndarray = (
        None  # (R * S, 2): the first so many rows, columns of positions are all different ones
    )
    members: tuple = None  # (R, OH), (S, OW): 1 where a row or column is of a class, float64
    rows: list = None  # the rows (n,) of each class
    sees: tuple = (
        None  # (classes before, R * window rows), ...: 1 where a window's row is of the class
    )
    x: np.ndarray = None  # (R * S, window rows, window columns, C_in)
    y: np.ndarray = None  # (R * S, 1, 1, C_out)
    argmax: np.ndarray = None

    def place(self, k, before):
        """Move to the device what the table looks up there; ``before``: the class pairs (R, S) of
        the pixels that its windows see.
        """
        self.sees = tuple(
            k.asarray((np.arange(n)[:, None] == pattern.reshape(-1)).astype(np.float64))
            for n, pattern in zip(before, self.patterns)
        )
        self.members = tuple(
            k.asarray((np.arange(n)[:, None] == c).astype(np.float64))
            for n, c in zip(self.pairs, self.classes)
        )
        self.rows = rows_of(k, self.classes[0])
        self.classes, self.patterns = (
            tuple(map(k.asarray, a)) for a in (self.classes, self.patterns)
        )

    @property
    def pairs(self):
        """(R, S)"""
        return tuple(map(len, self.patterns))


def rows_of(k, classes):
    """Return the rows (n,) of each class, on the device."""
    return [k.asarray(np.flatnonzero(classes == r)) for r in range(classes.max() + 1)]


class Waiting:
    """Cells of a block whose weight gradient is made later, of many at once: at most ``room`` of
    them.

    The gradient of a deep block is larger than a cache and few of its cells are lit in an event, so
    that adding each event's part to it in memory would take longer than computing it. The windows
    of the cells are kept in the meantime.
    """

    room = 256

    def __init__(self, k, block, channels, grid):
        self.k, self.block = k, block
        window = [p + n - 1 for p, n in zip(block.pool, block.conv.kernel_size)]
        most = (
            self.room + grid
        )  # behind the cells of events the table of a block at rest, at the end
        self.x = k.empty((most, *window, channels))
        self.dy, self.y = (k.empty((most, 1, 1, block.conv.filters)) for _ in range(2))
        self.argmax, self.count = k.empty((most, 1, 1, block.conv.filters), np.uint8), 0

    @staticmethod
    def pays(k, block, channels, grid):
        """Tell whether events run one at a time, a block's weight gradient is over 1 MB, and its
        grid is small enough for the room.
        """
        size = 4 * math.prod(block.conv.kernel_size) * channels * block.conv.filters
        return not hasattr(k, "suppressed") and size > 1 << 20 and grid <= Waiting.room

    def add(self, dy, y, argmax, x=None, cells=None):
        """Take cells in: dy, y, argmax (m, C_out) and their windows (m, ...), or the cells (m, 2)
        of an image x (1, H, W, C).
        """
        new = slice(self.count, self.count + len(dy))
        self.dy[new, 0, 0], self.y[new, 0, 0], self.argmax[new, 0, 0] = dy, y, argmax
        if cells is None:
            self.x[new] = x
        else:
            self.k.cell_windows(
                x,
                cells,
                self.block.conv.kernel_size,
                self.block.pool,
                self.block.conv.padding,
                self.x[new],
            )
        self.count += len(dy)

    def flush(self, w, dw, db, work):
        """Add the gradient of all cells that wait into dw and db."""
        if self.count:
            n, self.count, block = slice(0, self.count), 0, self.block
            self.k.conv2d_block_backward(
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
                work=work,
            )


@dataclass
class Saved:
    """What the backward pass of one event needs. ``lit[i]`` is None where block i ran dense."""

    inputs: list = field(default_factory=list)  # x of every block
    lit: list = field(default_factory=list)  # positions: lit[0] pixels, lit[i + 1] cells of block i
    y: list = field(default_factory=list)
    argmax: list = field(default_factory=list)


class ZeroSuppressed:
    """FusedBlocks from the input on, as one stage of the plan; takes a list of SparseImages (or
    image arrays) of one background: one at a time on the CPU, some together on a GPU. Positions
    count their rows on through the images: row r of image e is e * H + r.

    ``buffers[0]`` holds the images and ``buffers[i + 1]`` the output of block i, valid where the
    windows of the lit cells are.
    """

    def __init__(self, blocks, shapes_, input_map, mode="auto"):
        self.blocks, self.shapes, self.input_map, self.name = (
            blocks,
            shapes_,
            input_map,
            "zero suppression",
        )
        self.crossover, self.pixel_crossover = (
            (1.0, 1.0) if mode == "always" else (CROSSOVER, PIXEL_CROSSOVER)
        )
        self.pixels = tuple(
            np.zeros(n, np.int32) for n in self.shapes[0][:2]
        )  # the classes of pixels: one
        self.pixel_rows = None
        self.tables = self._classify()
        self.buffers, self.background, self.fresh = None, None, False
        self.sums = None  # gradients summed over class pairs (R, S, C), per block
        self.waiting = None  # a Waiting for the blocks where it pays, else None
        self.settle = (
            None  # adds what is in sums to the gradients; for a change of tables within a batch
        )
        self.events, self.active = 0, np.zeros(len(blocks), np.int64)

    def _classify(self):
        tables, classes = [], self.pixels
        for block, before, after in zip(self.blocks, self.shapes, self.shapes[1:]):
            pads = shapes.conv_padding(
                (1, *before), (*block.conv.kernel_size, 0, 0), (1, 1), block.conv.padding
            )
            axes = [
                axis_classes(
                    classes[a], block.conv.kernel_size[a], block.pool[a], pads[a][0], after[a]
                )
                for a in (0, 1)
            ]
            patterns, classes = zip(*axes)
            firsts = [
                first_positions(pattern, n) for pattern, n in zip(patterns, block.conv.kernel_size)
            ]
            distinct = np.stack(
                np.meshgrid(*(1 + f.max(1).astype(int) for f in firsts), indexing="ij"), -1
            ).reshape(-1, 2)
            tables.append(
                Table(classes, patterns, tuple(f[c] for f, c in zip(firsts, classes)), distinct)
            )
        return tables

    def occupancy(self):
        """Return the mean number of computed cells of each block's grid, as text."""
        return ", ".join(
            f"{block.name} {count / self.events:.0f} of {shape[0] * shape[1]}"
            for block, count, shape in zip(self.blocks, self.active, self.shapes[1:])
        )

    def weights_changed(self):
        """The resting state has to be computed again."""
        self.fresh = False

    # -------------------------------------------------------------------------------------- forward
    def forward(self, k, events, p, work, rng=None):
        """Return (y (n, OH, OW, C_out) of the last block, Saved) for n events; y is a buffer, valid
        until the next call.
        """
        n = len(events)
        with trace.span("transfer"):
            lit, values, x, background = self._pixels(k, events)
        with trace.span("forward", "resting tables"):
            self._rest(k, p, work, background, n)
        saved = Saved(lit=self._lists(k, lit, n, work))
        self.events += n
        for i, (block, lit, cells) in enumerate(zip(self.blocks, saved.lit, saved.lit[1:])):
            with trace.span("forward", block.name):
                geometry, options = (
                    (block.conv.kernel_size, block.pool, block.conv.padding),
                    (block.pool, block.alpha, block.conv.padding),
                )
                if lit is not None:
                    x = self.buffers[i][:n]
                    if cells is None:
                        self._at_rest(i)
                    else:
                        k.fill_windows(x, cells, *geometry, *self._resting(i))
                    k.put_pixels(x, lit, values)
                saved.inputs.append(x)
                if cells is None:
                    x, argmax = y, _ = k.conv2d_block(
                        x, p[i]["w"], p[i]["b"], *options, work=work[i]
                    )
                else:
                    y, argmax = k.conv2d_block_cells(
                        x,
                        cells,
                        p[i]["w"],
                        p[i]["b"],
                        *options,
                        (lit, *self.tables[i].same),
                        work=work[i],
                    )
                self.active[i] += (
                    n * math.prod(self.shapes[i + 1][:2]) if cells is None else len(cells)
                )
                saved.y.append(y)
                saved.argmax.append(argmax)
                values = y
        lit = saved.lit[-1]
        if lit is not None:
            x = self.buffers[-1][:n]
            x[...] = self.last
            k.put_pixels(x, lit, values)
        return x, saved

    def _lists(self, k, lit, n, work):
        """Return [lit pixels, lit cells of the first block, of the second, ...] of n events: None
        for one that runs dense, and after it.

        Lists depend on no sum, so all are made before the first one: on a GPU the host has to wait
        for their lengths.
        """
        lists = [lit]
        for i, block in enumerate(self.blocks):
            if lit is not None:
                with trace.span("forward", block.name):
                    lit = k.active_cells(
                        lit,
                        (n, *self.shapes[i]),
                        block.conv.kernel_size,
                        block.pool,
                        block.conv.padding,
                        work=work[i],
                    )
                    most = 1.0 if self.waiting[i] else self.crossover
                    lit = None if len(lit) > most * n * math.prod(self.shapes[i + 1][:2]) else lit
            lists.append(lit)
        return lists

    def _pixels(self, k, events):
        """Return (positions, values, None, background) of the events' lit pixels, mapped; where
        they are too many to gain anything, (None, None, dense images (n, H, W, C), background)."""
        most = self.pixel_crossover * len(events) * math.prod(self.shapes[0][:2])
        background = self.input_map(np.float32(background_of(events[0])))
        arrays = any(isinstance(e, np.ndarray) for e in events)
        if arrays or sum(e.nnz for e in events) > most:
            images = [
                self.input_map(e) if isinstance(e, np.ndarray) else e.to_dense(f=self.input_map)
                for e in events
            ]
            x = k.asarray(
                np.asarray(images[0][None] if len(images) == 1 else np.stack(images), np.float32)
            )
            lit = k.lit_pixels(x, background, most) if arrays else None
            return (
                (None, None, x, background)
                if lit is None
                else (lit, k.take_pixels(x, lit), None, background)
            )
        return *listed(k, events, self.input_map), None, background

    def _resting(self, i):
        """Return (values (R, S, C), classes) of buffer i without an event."""
        if i == 0:
            return self.pixel, self.pixels
        table = self.tables[i - 1]
        return table.y.reshape(*table.pairs, -1), table.classes

    def _at_rest(self, i):
        """Bring the whole of buffer i to rest, and return it."""
        values, (_, columns) = self._resting(i)
        for rows, line in zip(
            self.tables[i - 1].rows if i else self.pixel_rows, values[:, columns]
        ):
            self.buffers[i][:, rows] = line
        return self.buffers[i]

    def _rest(self, k, p, work, background, images):
        """Compute the tables for the present weights and background, unless they are there; buffers
        for so many images.
        """
        if self.buffers is None or len(self.buffers[0]) < images:
            self.buffers = [k.zeros((images, *shape)) for shape in self.shapes]
        if self.pixel_rows is None:
            self.pixel_rows = rows_of(k, self.pixels[0])
            self.pixels = tuple(map(k.asarray, self.pixels))
            for table, before in zip(self.tables, [(1, 1), *(t.pairs for t in self.tables)]):
                table.place(k, before)
            grids = [math.prod(shape[:2]) for shape in self.shapes[1:]]
            self.waiting = [
                Waiting(k, block, shape[2], grid)
                if Waiting.pays(k, block, shape[2], grid)
                else None
                for block, shape, grid in zip(self.blocks, self.shapes, grids)
            ]
        if self.fresh and background == self.background:
            return
        if self.sums is not None:  # they belong to the tables of the background before
            self.settle()
        self.background, self.fresh = background, True
        self.pixel = k.asarray(np.full((1, 1, self.shapes[0][2]), background, np.float32))
        for i, (block, table) in enumerate(zip(self.blocks, self.tables)):
            values, (rows, columns) = self._resting(i)[0], table.patterns
            padded = k.zeros(
                (values.shape[0] + 1, values.shape[1] + 1, values.shape[2])
            )  # class -1, outside, is 0
            padded[:-1, :-1] = values
            x = padded[rows[:, None, :, None], columns[None, :, None, :]]
            table.x = k.empty((len(rows) * len(columns), *x.shape[2:]))
            table.x.reshape(x.shape)[...] = x
            y, argmax = k.conv2d_block(
                table.x,
                p[i]["w"],
                p[i]["b"],
                block.pool,
                block.alpha,
                "valid",
                table.distinct,
                work[i],
            )
            table.y, table.argmax = y.copy(), argmax.copy()  # those are buffers
        values, (rows, columns) = self._resting(len(self.blocks))
        self.last = values[rows[:, None], columns[None]]  # the last block's output without an event

    # ------------------------------------------------------------------------------------- backward
    def backward(self, k, dy, saved, p, g, need_dx=False, work=None):
        """Add the gradients of the events' lit cells into g, and the others into ``sums``, for dy
        (n, OH, OW, C_out).
        """
        if self.sums is None:
            self.sums = [
                k.zeros((*t.pairs, shape[2]), np.float64)
                for t, shape in zip(self.tables, self.shapes[1:])
            ]
            self.settle = partial(self.finish, k, p, g, work)
        dx, grad = dy, None  # dense, or at the lit cells
        for i in reversed(range(len(self.blocks))):
            block, lit, x, positions = (
                self.blocks[i],
                saved.lit[i + 1],
                saved.inputs[i],
                saved.lit[i],
            )
            with trace.span("backward", block.name):
                w, dw, db = p[i]["w"], g[i]["w"], g[i]["b"]
                options = block.pool, block.alpha, block.conv.padding
                if lit is None:
                    dx = k.conv2d_block_backward(
                        dx, x, w, saved.y[i], saved.argmax[i], *options, i > 0, dw, db, work=work[i]
                    )[0]
                    continue
                if grad is None:
                    grad = k.take_pixels(dx, lit)
                    self._add_sums(
                        k, i, class_sums(dx.sum(0, dtype=np.float64), self.tables[i]), grad, lit
                    )
                before, waiting = self.tables[i - 1].classes if i else None, self.waiting[i]
                if waiting:
                    if waiting.count + len(lit) > waiting.room:
                        waiting.flush(w, dw, db, work[i])
                    waiting.add(grad, saved.y[i], saved.argmax[i], x, lit)
                grad, sums, _, _ = k.conv2d_block_cells_backward(
                    grad,
                    lit,
                    positions if i else None,
                    x,
                    w,
                    saved.y[i],
                    saved.argmax[i],
                    *options,
                    before,
                    dw,
                    db,
                    waiting is None,
                    work=work[i],
                )
                if i:
                    self._add_sums(k, i - 1, sums, grad, positions)

    def _add_sums(self, k, i, sums, grad, lit):
        """Add to the class sums of block i: ``sums`` over all its cells, less the gradients of the
        lit ones.
        """
        table = self.tables[i]
        self.sums[i] += sums - k.class_sums(grad, lit, table.classes, table.pairs)

    def begin(self):
        """Start a batch: forget what is left of one that an error cut short."""
        self.sums = None
        for waiting in filter(None, self.waiting or ()):
            waiting.count = 0

    def finish(self, k, p, g, work, done=None):
        """Add the gradients of all cells that were not lit, for the events since the last call;
        nothing if there were none.

        ``done(i)`` is called when those of block i are there, from the last block to the first.
        """
        if self.sums is None:
            return
        for i in reversed(range(len(self.blocks))):
            block, table = self.blocks[i], self.tables[i]
            dy, waiting = (
                self.sums[i].reshape(-1, 1, 1, self.shapes[i + 1][2]).astype(np.float32),
                self.waiting[i],
            )
            if waiting:
                with trace.span("backward", block.name):
                    waiting.add(dy[:, 0, 0], table.y[:, 0, 0], table.argmax[:, 0, 0], table.x)
                    waiting.flush(p[i]["w"], g[i]["w"], g[i]["b"], work[i])
            dx = k.conv2d_block_backward(
                dy,
                table.x,
                p[i]["w"],
                table.y,
                table.argmax,
                block.pool,
                block.alpha,
                "valid",
                i > 0,
                g[i]["w"],
                g[i]["b"],
                waiting is None,
                work=work[i],
            )[0]
            if done:
                done(i)
            if i:  # over what each place of a window is: rows first, then columns
                rows, columns = table.sees
                dx = dx.reshape(*table.pairs, *dx.shape[1:]).transpose(0, 2, 1, 3, 4)
                part = rows @ dx.reshape(rows.shape[1], -1).astype(np.float64)
                self.sums[i - 1] += columns @ part.reshape(len(rows), columns.shape[1], -1)
        self.sums = None


def background_of(event):
    """Return the value of the pixels that an event does not list; 0 for an array, which lists all."""
    return 0.0 if isinstance(event, np.ndarray) else event.background


def listed(k, events, input_map):
    """Return (positions (m, 2), mapped values (m, C)) of the listed pixels of SparseImages, on the
    device.
    """
    if len(events) == 1:
        return k.asarray(events[0].coords), k.asarray(input_map(events[0].values))
    positions = np.concatenate(
        [e.coords + np.array([i * e.shape[0], 0], np.int32) for i, e in enumerate(events)]
    )
    return k.asarray(positions), k.asarray(input_map(np.concatenate([e.values for e in events])))


def class_sums(a, table):
    """Return the sums (R, S, C) float64 of a (OH, OW, C) over the class pairs of a table."""
    rows, columns = table.members
    return columns @ (rows @ a.reshape(len(a), -1)).reshape(-1, *a.shape[1:])


__all__ = [
    "CROSSOVER",
    "MODES",
    "ZeroSuppressed",
    "axis_classes",
    "background_of",
    "class_sums",
    "listed",
]
