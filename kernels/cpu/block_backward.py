"""The exactly sparse backward of the fused block: one convolution output in PH * PW has a gradient.

With gz = dy * elu'(y), which belongs to the convolution output at the cell's argmax, both gradients
are sums of patches with KH rows of KW * C_in floats, contiguous in NHWC:

    dw[:, :, :, c]  = sum over cells of     gz[cell, c] * (the patch of x at the cell's argmax of c)
    dx patch there += sum over channels of  gz[cell, c] * w[:, :, :, c]
"""

import numpy as np
from numba import prange

from ..arguments import Pooled, Wanted
from ..shapes import Block
from ..types import Array
from ..workspace import Workspace
from .checks import (
    as_contiguous,
    buffer,
    cached_until_update,
    check_float32,
    check_shape,
    gradient_targets,
)
from .elementary import slope
from .emit import LANES
from .jit import POSITIVE, aligned_empty, jit, parallel
from .patch_sums import SEGMENT, padded, sort_by_argmax, sum_patches, sum_rows
from .rows import MOST_ROWS, Patches, transpose
from .tile import Sums
from .windows import address, windows

CHUNK = 256  # cells summed in float32 before the sum goes to float64
PIECE = (
    32 << 10
)  # bytes of windows that are used for several channels in turn, from the first cache


@jit
def _sum_chunk(
    windows,
    begin,
    end,
    dy,
    y,
    argmax,
    alpha,
    row_offsets,
    column_offsets,
    first,
    kh,
    kc,
    piece,
    part,
    total,
):
    """part[c] (KH, kc) = the sum over cells begin to end of gz * patch for channel first + c, and
    total[c] that of gz.
    """
    part[:] = 0
    total[:] = 0
    channels = total.size
    g, patch = np.empty((channels, piece), np.float32), np.empty((channels, piece), np.int64)
    row = np.empty(piece, np.int64)
    for start in range(begin, end, piece):
        count = min(end - start, piece)
        for i in range(count):
            cell = (start + i) & POSITIVE
            first_float, row[i] = address(windows, cell), windows.table[cell, 1]
            for c in range(channels):
                a = argmax[cell, first + c]
                g[c, i] = dy[cell, first + c] * slope(y[cell, first + c], alpha)
                patch[c, i] = first_float + 4 * (row_offsets[a] * row[i] + column_offsets[a])
        for c in range(channels):
            here = np.float32(0)
            for i in range(count):
                here += g[c, i]
            total[c] += here
        for c in range(channels):
            summed = Patches(count, g[c].ctypes.data, patch[c].ctypes.data, row.ctypes.data)
            to = Sums(part[c].ctypes.data, part.shape[2])
            if kc > SEGMENT:
                sum_rows(summed, 0, kh, 0, kc, to)
            else:
                sum_patches(kh, kc, summed, to)


@jit
def _turned(rows, row_count, count, square, addresses, row_strides):
    """square[k, lane] = rows[lane, k] for lane < row_count, k < count <= LANES. addresses,
    row_strides: space for LANES int64, row_strides zeros.
    """
    for lane in range(LANES):
        addresses[lane] = rows[min(lane, row_count - 1) :].ctypes.data
    transpose(addresses.ctypes.data, row_strides.ctypes.data, 0, 0, count, square.ctypes.data)


@parallel
def _dw_of_one_chunk(windows, dy, y, argmax, alpha, ph, pw, ci, kh, kc, per_task, piece, dw, db):
    """dw (KH * KC, C_out) and db += the sums over all cells, which are one chunk."""
    co = y.shape[1]
    row_offsets, column_offsets = (
        np.arange(ph * pw) // pw,
        np.arange(ph * pw) % pw * ci,
    )  # looked up: a division takes long
    for task in prange((co + per_task - 1) // per_task):
        first = task * per_task
        channels = min(per_task, co - first)
        part, total = aligned_empty((channels, kh, padded(kc))), np.empty(channels, np.float32)
        square, addresses, row_strides = (
            aligned_empty((LANES, LANES)),
            np.empty(LANES, np.int64),
            np.zeros(LANES, np.int64),
        )
        _sum_chunk(
            windows,
            0,
            y.shape[0],
            dy,
            y,
            argmax,
            alpha,
            row_offsets,
            column_offsets,
            first,
            kh,
            kc,
            piece,
            part,
            total,
        )
        for c in range(channels):
            db[first + c] += total[c]
        for ky in range(kh):
            for k in range(0, kc, LANES):
                for c in range(0, channels, LANES):
                    row_count, count = min(LANES, channels - c), min(LANES, kc - k)
                    _turned(part[c:, ky, k:], row_count, count, square, addresses, row_strides)
                    for i in range(count):
                        to = dw[ky * kc + k + i, first + c :]
                        for lane in range(row_count):
                            to[lane] += square[i, lane]


@parallel
def _dw(windows, dy, y, argmax, alpha, ph, pw, ci, kh, kc, spans, per_task, piece, sums, db):
    """sums (spans, C_out, KH, KC) and db (spans, C_out), float64: span t adds up a fixed range of
    chunks of cells, in order.
    """
    n, co = y.shape
    chunks = (n + CHUNK - 1) // CHUNK
    groups = (co + per_task - 1) // per_task
    row_offsets, column_offsets = np.arange(ph * pw) // pw, np.arange(ph * pw) % pw * ci
    for task in prange(spans * groups):
        t, first = task // groups, task % groups * per_task
        channels = min(per_task, co - first)
        part, total = aligned_empty((channels, kh, padded(kc))), np.empty(channels, np.float32)
        for chunk in range(chunks * t // spans, chunks * (t + 1) // spans):
            begin = chunk * CHUNK
            _sum_chunk(
                windows,
                begin,
                min(n, begin + CHUNK),
                dy,
                y,
                argmax,
                alpha,
                row_offsets,
                column_offsets,
                first,
                kh,
                kc,
                piece,
                part,
                total,
            )
            for c in range(channels):
                db[t, first + c] += total[c]
                for ky in range(kh):
                    for k in range(kc):
                        sums[t, first + c, ky, k] += part[c, ky, k]


@parallel
def _add_sums(sums, dw):
    """dw (KH * KC, C_out) += sums (spans, C_out, KH * KC) over spans."""
    rows, co = dw.shape
    for task in prange((rows + 15) // 16):
        for c in range(co):
            for k in range(task * 16, min(rows, task * 16 + 16)):
                total = 0.0
                for t in range(sums.shape[0]):
                    total += sums[t, c, k]
                dw[k, c] += np.float32(total)


@parallel
def _dx(dy, y, argmax, alpha, w, oh, ow, ph, pw, top, left, kh, kw, high, wide, dx):
    """A task owns high x wide pixels of dx, and adds the parts of all patches that fall into them;
    w is (C_out, KH, kc padded).
    """
    n, h, width, ci = dx.shape
    co = y.shape[1]
    down, across = (h + high - 1) // high, (width + wide - 1) // wide
    for task in prange(n * down * across):
        e, y_first, x_first = (
            task // (down * across),
            task // across % down * high,
            task % across * wide,
        )
        rows, columns = min(high, h - y_first), min(wide, width - x_first)
        own = aligned_empty((rows, padded(columns * ci)))
        own[:] = 0
        g, address, begin = (
            np.empty(co, np.float32),
            np.empty(co, np.int64),
            np.empty(ph * pw + 1, np.int64),
        )
        stride = np.full(co, w.shape[2])
        for i in range(
            max(0, (y_first + top - ph - kh + 1) // ph + 1),
            min(oh, (y_first + rows - 1 + top) // ph + 1),
        ):
            for j in range(
                max(0, (x_first + left - pw - kw + 1) // pw + 1),
                min(ow, (x_first + columns - 1 + left) // pw + 1),
            ):
                cell = ((e * oh + i) * ow + j) & POSITIVE
                of_cell = argmax[cell], dy[cell], y[cell]
                sort_by_argmax(of_cell, alpha, w, g, address, begin)
                for a in range(ph * pw):
                    count = begin[a + 1] - begin[a]
                    if count:
                        y0, x0 = i * ph + a // pw - top - y_first, j * pw + a % pw - left - x_first
                        ky, kx = max(0, -y0), max(0, -x0)
                        tap_rows, end = min(kh, rows - y0) - ky, min(kw, columns - x0)
                        if tap_rows > 0 and end > kx:
                            summed = Patches(
                                count,
                                g[begin[a] :].ctypes.data,
                                address[begin[a] :].ctypes.data,
                                stride.ctypes.data,
                            )
                            ahead = (y0 + ky) * own.shape[1] + (x0 + kx) * ci
                            to = Sums(own.ctypes.data + 4 * ahead, own.shape[1])
                            sum_rows(summed, ky, tap_rows, kx * ci, (end - kx) * ci, to)
        for i in range(rows):
            line = dx[e, y_first + i].reshape(-1)[x_first * ci :]
            for k in range(columns * ci):
                line[k] = own[i, k]


@parallel
def _turn(w, out):
    """out (C_out, KH, KW * C_in padded) = w (KH, KW * C_in, C_out), LANES channels at a time."""
    kh, kc, co = w.shape
    for task in prange((co + LANES - 1) // LANES * kh):
        ky, first = task % kh, task // kh * LANES
        channels = min(LANES, co - first)
        square, addresses, row_strides = (
            aligned_empty((LANES, LANES)),
            np.empty(LANES, np.int64),
            np.zeros(LANES, np.int64),
        )
        for k in range(0, kc, LANES):
            count = min(LANES, kc - k)
            if channels == LANES:
                _turned(w[ky, k:, first:], count, LANES, square, addresses, row_strides)
            else:  # a whole vector would read past the end of w
                for i in range(count):
                    for c in range(channels):
                        square[c, i] = w[ky, k + i, first + c]
            for c in range(channels):
                to = out[first + c, ky, k:]
                for i in range(count):
                    to[i] = square[c, i]


def turned_weights(w: Array, workspace: Workspace | None) -> Array:
    """Return w as (C_out, KH, KW * C_in padded), once per weight update where there is a
    Workspace.
    """
    kh, kw, ci, co = w.shape

    def turn():
        # zeros behind each row: vectors may read over its end
        out = buffer(workspace, "turned weights", (co, kh, padded(kw * ci)), fill=0)
        _turn(w.reshape(kh, kw * ci, co), out)
        return out

    return cached_until_update(workspace, "turned", turn)


def _add_dw(listed, at_cells, pool, dw, db):
    """Add the weight gradients of the Windows ``listed``; at_cells: dy, y, argmax (cells, C_out)
    and alpha.
    """
    (kh, kw, ci, co), n = dw.shape, len(at_cells[0])
    kc = kw * ci
    piece = (
        MOST_ROWS
        if kc > SEGMENT
        else max(4, min(32, PIECE // (4 * (pool[0] + kh - 1) * (pool[1] + kw - 1) * ci) // 4 * 4))
    )
    if n <= CHUNK:
        flat = dw.reshape(kh * kc, co)
        _dw_of_one_chunk(listed, *at_cells, *pool, ci, kh, kc, 16, piece, flat, db)
        return
    spans = max(
        1, min(-(-n // CHUNK), 64, (1 << 18) // dw.size)
    )  # from the shapes alone: bits must not follow the threads
    sums, db_sums = np.zeros((spans, co, kh, kc)), np.zeros((spans, co))
    _dw(listed, *at_cells, *pool, ci, kh, kc, spans, 16, piece, sums, db_sums)
    _add_sums(sums.reshape(spans, co, kh * kc), dw.reshape(kh * kc, co))
    db += np.add.reduce(db_sums, 0)


def conv2d_block_backward(
    dy: Array,
    pooled: Pooled,
    w: Array,
    block: Block,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_block: (dx or None, dw, db) for dy (N, OH // PH, OW // PW, C_out).

    All float32. Formulas above. With ``workspace``, dx is its buffer: valid until the next call
    with the same one.
    """
    op, pool = "conv2d_block_backward", block.pool
    dy, x, w, y = check_float32(op, dy=dy, x=pooled.x, w=w, y=pooled.y)
    shape, pads = block.output(x.shape, w.shape), block.geometry.pads(x.shape, w.shape)
    for name, array in (("dy", dy), ("y", y), ("argmax", pooled.argmax)):
        check_shape(op, name, array, shape)
    dw, db = gradient_targets(op, wanted, dw=w.shape, db=w.shape[3:])
    kh, kw, _, co = w.shape
    n = shape[0] * shape[1] * shape[2]
    at_cells = (
        dy.reshape(n, co),
        y.reshape(n, co),
        as_contiguous(pooled.argmax, np.uint8).reshape(n, co),
        np.float32(block.alpha),  # what compiled code takes
    )
    _add_dw(windows(x, shape, pool, (kh, kw), pads, workspace), at_cells, pool, dw, db)
    dx = None
    if wanted.dx:
        turned = turned_weights(w, workspace)
        dx = buffer(workspace, "dx", x.shape)
        # About 24 tasks: tall ones, because patches that cross the border of two are begun in both;
        # flat images get narrow ones.
        high = pool[0] * max(2, -(-shape[1] // 24))
        across = -(-16 // -(-x.shape[1] // high))
        wide = -(-x.shape[2] // across)
        _dx(*at_cells, turned, *shape[1:3], *pool, pads[0][0], pads[1][0], kh, kw, high, wide, dx)
    return dx, dw, db
