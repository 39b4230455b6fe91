"""Exact zero suppression: the leading blocks of a network at a cost that follows the lit pixels, with the numbers of the dense network.

An event is background everywhere but at its lit pixels. A pooled cell whose input window holds background alone has the same output as
any other such cell: the block applied to a window of background. So block by block

    active cells   those whose window holds an active position or, where the background is not 0, leaves the image;
    lit cells      the active ones that follow from this event's lit pixels; only these are computed per event;
    static cells   the other active ones (the ring along the border): equal in all events, computed once per weight update.

The backward pass needs the gradient G of every active cell, and of the inactive ones only its sum SG per channel:

    gz = G elu'(y),  gz_bg = SG elu'(y_background)
    db = sum(gz) + gz_bg;   dw = what the active cells give + background_in (outer) gz_bg on every tap
    G_in at the active inputs from gz;   SG_in = (all that gz gives) + gz_bg (w summed over taps) - sum(G_in)

A block with more active cells than CROSSOVER of its grid, and all blocks behind it, run dense: the same numbers, cheaper there.
"""
from dataclasses import dataclass, field

import numpy as np

#: Fraction of active cells above which a block runs dense. benchmarks/active.py prints the figure to put here.
CROSSOVER = 0.5
MODES = ("auto", "always", "never")


@dataclass
class Rest:
    """What a block's output is without an event: background, and the static cells with their outputs."""

    background_in: np.ndarray                          # (C_in,)
    background: np.ndarray                             # (C_out,)
    cells: np.ndarray                                  # static cells (s, 2)
    y: np.ndarray                                      # (s, C_out)
    argmax: np.ndarray                                 # (s, C_out)


@dataclass
class Saved:
    """What the backward pass of one event needs. ``cells[i]`` are None where block i ran dense."""

    inputs: list = field(default_factory=list)         # x of every block
    cells: list = field(default_factory=list)
    y: list = field(default_factory=list)
    argmax: list = field(default_factory=list)


class ZeroSuppressed:
    """FusedBlocks from the input on, as one stage of the plan; takes one SparseImage (or image array) at a time.

    It owns one buffer per block, which holds that block's resting output and, during an event, its lit cells.
    """

    def __init__(self, blocks, shapes, input_scale=1.0, mode="auto"):
        self.blocks, self.scale = blocks, np.float32(input_scale)
        self.shapes = shapes                           # of the input and of every block's output
        self.crossover = 1.0 if mode == "always" else CROSSOVER
        self.name = blocks[0].name
        self.dirty = []                                # (buffer index, positions, resting values) to put back before the next event
        self.background = None                         # of the image buffer
        self.buffers = None
        self.rests = None
        self.events, self.active = 0, np.zeros(len(blocks), np.int64)

    def occupancy(self):
        """Return the mean number of active cells of each block's grid, as text."""
        return ", ".join(f"{block.name} {count / self.events:.0f} of {shape[0] * shape[1]}"
                         for block, count, shape in zip(self.blocks, self.active, self.shapes[1:]))

    # ------------------------------------------------------------------------------------------------ forward
    def forward(self, k, event, p, work, rng=None):
        """Return (y (1, OH, OW, C_out) of the last block, Saved) for one event; y is a buffer, valid until the next event."""
        saved, x, positions = Saved(), *self._enter(k, event, p, work)
        self.events += 1
        for i, block in enumerate(self.blocks):
            saved.inputs.append(x)
            lit = None
            if positions is not None:
                lit = k.active_cells(positions, x.shape, block.conv.kernel_size, block.pool, block.conv.padding, work=work[i])
                rest = self.rests[i]
                cells, order = merge(rest.cells, lit, self.shapes[i + 1][1])
                if len(cells) > self.crossover * np.prod(self.shapes[i + 1][:2]):
                    lit = None
            if lit is None:
                y, argmax = k.conv2d_block(x, p[i]["w"], p[i]["b"], block.pool, block.alpha, block.conv.padding, work=work[i])
                positions = cells = None
                self.active[i] += np.prod(self.shapes[i + 1][:2])
            else:
                y_lit, argmax_lit = k.conv2d_block_cells(x, lit, p[i]["w"], p[i]["b"], block.pool, block.alpha, block.conv.padding,
                                                         work=work[i])
                self._put(i + 1, lit, y_lit, rest)
                positions, x = lit, self.buffers[i + 1]
                y = np.concatenate([rest.y, y_lit])[order]
                argmax = np.concatenate([rest.argmax, argmax_lit])[order]
                self.active[i] += len(cells)
            saved.cells.append(cells)
            saved.y.append(y)
            saved.argmax.append(argmax)
            if cells is None:
                x = y
        return x, saved

    def _enter(self, k, event, p, work):
        """Return (x (1, H, W, C), lit positions or None to run dense) for an event, its pixels in the image buffer."""
        dense = isinstance(event, np.ndarray)
        background = np.float32(0 if dense else event.background) * self.scale
        if dense:
            x = (event if self.scale == 1 else event * self.scale)[None]
            positions = k.lit_pixels(x, 0.0)
            values = x[0, positions[:, 0], positions[:, 1]]
        else:
            positions, values = event.coords, event.values * self.scale
        self._rest(k, p, work, background)
        if len(positions) > self.crossover * np.prod(self.shapes[0][:2]):
            return (x if dense else event.to_dense(scale=self.scale)[None]), None
        self._put(0, positions, values, None)
        return self.buffers[0], positions

    def _put(self, i, positions, values, rest):
        """Write values into buffer i and remember what has to be put back."""
        self.buffers[i][0, positions[:, 0], positions[:, 1]] = values
        self.dirty.append((i, positions, rest))

    def _rest(self, k, p, work, background):
        """Bring all buffers to rest: put back what the last event wrote or, after a weight update, fill them anew."""
        if self.buffers is None or background != self.background:
            self.buffers = self.buffers or [k.empty((1, *shape)) for shape in self.shapes]
            self.buffers[0][...] = background
            self.background, self.dirty, self.rests = background, [], None
        elif self.rests is None:                       # the weights have changed: only the image is worth putting back
            self.dirty = [d for d in self.dirty if d[0] == 0]
        for i, positions, rest in self.dirty:
            at = (0, positions[:, 0], positions[:, 1])
            self.buffers[i][at] = background if rest is None else rest.background
            if rest is not None:
                self.buffers[i][0, rest.cells[:, 0], rest.cells[:, 1]] = rest.y
        self.dirty = []
        if self.rests is None:
            self.rests = self._make_rests(k, p, work)

    def weights_changed(self):
        """The resting state has to be computed again."""
        self.rests = None

    def _make_rests(self, k, p, work):
        rests, static = [], np.zeros((0, 2), np.int32)
        background = np.full(self.shapes[0][2], self.background, np.float32)
        for i, block in enumerate(self.blocks):
            w, b, conv = p[i]["w"], p[i]["b"], block.conv
            window = np.ascontiguousarray(np.broadcast_to(background, (1, block.pool[0] + w.shape[0] - 1,
                                                                      block.pool[1] + w.shape[1] - 1, w.shape[2])))
            y, _ = k.conv2d_block(window, w, b, block.pool, block.alpha, "valid")
            x = self.buffers[i]
            # Behind the first block the ring is active even if its background happens to be 0: its gradient differs.
            static = k.active_cells(static, x.shape, conv.kernel_size, block.pool, conv.padding, border=i > 0 or self.background != 0)
            rest = Rest(background, np.array(y).reshape(-1), static, *map(np.array, k.conv2d_block_cells(
                x, static, w, b, block.pool, block.alpha, conv.padding)))
            self.buffers[i + 1][...] = rest.background
            self.buffers[i + 1][0, static[:, 0], static[:, 1]] = rest.y
            rests.append(rest)
            background = rest.background
        return rests

    # ------------------------------------------------------------------------------------------------ backward
    def backward(self, k, dy, saved, p, g, need_dx=False, work=None):
        """Add the gradients of all blocks into g for dy (1, OH, OW, C_out)."""
        dx, grad, grad_rest = dy, None, None
        for i in reversed(range(len(self.blocks))):
            block, cells, x = self.blocks[i], saved.cells[i], saved.inputs[i]
            w, dw, db = p[i]["w"], g[i]["w"], g[i]["b"]
            if cells is None:
                dx = k.conv2d_block_backward(dx, x, w, saved.y[i], saved.argmax[i], block.pool, block.alpha, block.conv.padding,
                                             i > 0, dw, db, work=work[i])[0]
                continue
            if grad is None:                           # from dense to suppressed: gradients at active cells, and the sum of the others
                grad = dx[0, cells[:, 0], cells[:, 1]]
                grad_rest = dx.sum((0, 1, 2), dtype=np.float64) - grad.sum(0, dtype=np.float64)
            at = saved.cells[i - 1] if i else None
            dx_at, dx_sum, _, _ = k.conv2d_block_cells_backward(grad, cells, at, x, w, saved.y[i], saved.argmax[i], block.pool,
                                                                block.alpha, block.conv.padding, dw, db, work=work[i])
            rest = self.rests[i]
            if len(cells) < np.prod(self.shapes[i + 1][:2]):
                gz = grad_rest * np.where(rest.background > 0, 1, rest.background + block.alpha)
                db += gz.astype(db.dtype)
                if rest.background_in.any():
                    dw += (rest.background_in[:, None] * gz).astype(dw.dtype)
                if i:
                    dx_sum = dx_sum + work[i].once("tap sum", lambda w=w: w.sum((0, 1), dtype=np.float64)) @ gz
            if i:
                grad, grad_rest = dx_at, dx_sum - dx_at.sum(0, dtype=np.float64)


def merge(static, lit, columns):
    """Return the union of two row-major lists of cells, and for each of its cells the place of its value in [static, lit].

    A cell that is both takes the value of ``lit``. ``columns`` is the width of the grid.
    """
    if not len(static):
        return lit, slice(None)
    keys = np.concatenate([static[:, 0] * np.int64(columns) + static[:, 1], lit[:, 0] * np.int64(columns) + lit[:, 1]])
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    last = np.append(sorted_keys[1:] != sorted_keys[:-1], True)[:len(keys)]   # of two equal keys the later one: lit
    order = order[last]
    return np.concatenate([static, lit])[order], order


__all__ = ["CROSSOVER", "MODES", "ZeroSuppressed", "merge"]
