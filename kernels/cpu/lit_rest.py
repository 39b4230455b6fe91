"""A block at rest, once per weight update: a few pairs of classes instead of an image.

Positions of many classes see inputs of few, so the products are taken per pair of *input* classes
and tap, and then put together:

    product[p, tap] = x[p] w[tap]                    p: a pair of input classes
    sums[r, s]      = sum over taps of product[what (r, s) sees under the tap, tap]

and backward the other way round.
"""

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..lit import LitBlock, Resting
from ..types import Array
from ..workspace import Workspace
from .checks import as_contiguous, buffer, check_float32, check_shape, gradient_targets
from .elementary import activate, slope
from .jit import POSITIVE, aligned_empty, jit, threaded

#: Weights that are worth a thread.
WEIGHTS = 1 << 15


@jit
def _pairs_under(tap, seen, columns_of_x, pairs):
    """Set pairs to those of input classes that any class of outputs sees under the tap: of the
    border's each tap meets few. Returns their number.
    """
    rows, columns = seen
    ky, kx, found = tap // columns.shape[1], tap % columns.shape[1], 0
    for r in range(rows.shape[0]):
        i = rows[r, ky]
        for s in range(columns.shape[0]):
            j = columns[s, kx]
            if i >= 0 and j >= 0:
                pair, known = i * columns_of_x + j, False
                for k in range(found):
                    known |= pairs[k] == pair
                if not known:
                    pairs[found] = pair
                    found += 1
    return found


@threaded
def _products(x, columns_of_x, w, seen, products):
    """products (taps, pairs, C_out) for x (pairs, C_in) and w (taps, C_in, C_out), of the pairs
    that a tap meets.
    """
    for tap in prange(w.shape[0]):
        pairs = np.empty(x.shape[0], np.int64)
        found = _pairs_under(tap, seen, columns_of_x, pairs)
        for k in range(found):
            products[tap, pairs[k]] = np.float32(0)
        for i in range(w.shape[1]):
            weights = w[tap, i]
            for k in range(found):
                p = pairs[k] & POSITIVE
                to, value = products[tap, p], x[p, i]
                for c in range(to.size):
                    to[c] += value * weights[c]


@jit
def _put_together(products, columns_of_x, seen, sums):
    rows, columns = seen
    for r in range(rows.shape[0]):
        for s in range(columns.shape[0]):
            to, tap = sums[r, s], 0
            to[:] = np.float32(0)
            for ky in range(rows.shape[1]):
                for kx in range(columns.shape[1]):
                    i, j = rows[r, ky], columns[s, kx]
                    if i >= 0 and j >= 0:
                        own = products[tap, (i * columns_of_x + j) & POSITIVE]
                        for c in range(to.size):
                            to[c] += own[c]
                    tap += 1


@jit
def _cells(sums, pooled, b, alpha, linear, y, argmax):
    rows, columns = pooled
    for r in range(rows.shape[0]):
        for s in range(columns.shape[0]):
            to, to_argmax = y[r, s], argmax[r, s]
            first = sums[rows[r, 0] & POSITIVE, columns[s, 0] & POSITIVE]
            for c in range(to.size):
                to[c], to_argmax[c] = first[c], 0
            for i in range(rows.shape[1]):
                for j in range(columns.shape[1]):
                    own = sums[rows[r, i] & POSITIVE, columns[s, j] & POSITIVE]
                    here = i * columns.shape[1] + j
                    for c in range(to.size):
                        if own[c] > to[c]:
                            to[c], to_argmax[c] = own[c], here
            for c in range(to.size):
                z = to[c] + b[c]
                to[c] = z if linear else activate(z, alpha)


def lit_rest(rest: Array, block: LitBlock, workspace: Workspace | None = None) -> Resting:
    """Return the block at rest, for the inputs ``rest`` (R', S', C_in) by pairs of classes."""
    rest, w, b = check_float32("lit_rest", rest=rest, w=block.w, b=block.b)
    geometry, (ci, co) = block.geometry, w.shape[2:]
    check_shape("lit_rest", "rest", rest, (*geometry.input_pairs, ci))
    sums = np.empty((*(len(seen) for seen in geometry.seen), co), np.float32)
    x, taps = rest.reshape(-1, ci), w.reshape(-1, ci, co)
    products = buffer(workspace, "products", (len(taps), len(x), co))
    _products(w.size // WEIGHTS, x, rest.shape[1], taps, geometry.seen, products)
    _put_together(products, rest.shape[1], geometry.seen, sums)
    shape = (*(len(pooled) for pooled in geometry.pooled), co)
    y, argmax = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    alpha = np.float32(block.alpha or 0), block.alpha is None
    _cells(sums, geometry.pooled, b, *alpha, y, argmax)
    return Resting(rest, sums, y, argmax)


@jit
def _add_cells(dy, y, argmax, pooled, alpha, linear, sums, db):
    rows, columns = pooled
    for r in range(rows.shape[0]):
        for s in range(columns.shape[0]):
            for c in range(db.size):
                g = dy[r, s, c] * (1.0 if linear else np.float64(slope(y[r, s, c], alpha)))
                i, j = argmax[r, s, c] // columns.shape[1], argmax[r, s, c] % columns.shape[1]
                sums[rows[r, i] & POSITIVE, columns[s, j] & POSITIVE, c] += g
                db[c] += np.float32(g)


@jit(fastmath={"reassoc", "contract", "nsz"})
def _dot(a, b):
    """The sum of a * b; in whatever order the compiler likes, always the same."""
    total = np.float32(0)
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@threaded
def _rest_backward(x, columns_of_x, w, seen, kx_count, sums, with_dx, dw, dx):
    """dx (taps, R' S', C_in)"""
    rows, columns = seen
    (pair_count, ci), co = x.shape, sums.shape[2]
    for tap in prange(w.shape[0]):
        ky, kx = tap // kx_count, tap % kx_count
        total, product = np.zeros((pair_count, co)), aligned_empty((pair_count, co))
        pairs = np.empty(pair_count, np.int64)
        found = _pairs_under(tap, seen, columns_of_x, pairs)
        if with_dx:
            dx[tap] = np.float32(0)
        for r in range(rows.shape[0]):
            for s in range(columns.shape[0]):
                i, j = rows[r, ky], columns[s, kx]
                if i >= 0 and j >= 0:
                    to, own = total[(i * columns_of_x + j) & POSITIVE], sums[r, s]
                    for c in range(co):
                        to[c] += own[c]
        for p in range(pair_count):
            for c in range(co):
                product[p, c] = total[p, c]
        for i in range(ci):
            to, weights = dw[tap, i], w[tap, i]
            for k in range(found):
                p = pairs[k] & POSITIVE
                g, value = product[p], x[p, i]
                for c in range(co):
                    to[c] += value * g[c]
                if with_dx:
                    dx[tap, p, i] = _dot(g, weights)


@jit
def _add_taps(dx, total):
    for tap in range(dx.shape[0]):
        for p in range(total.shape[0]):
            own, to = dx[tap, p], total[p]
            for c in range(to.size):
                to[c] += own[c]


def lit_rest_backward(
    dy: Array,
    sums: Array,
    resting: Resting,
    block: LitBlock,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of lit_rest: returns (dx or None, dw, db).

    dy (RC, SC, C_out) float64: of the resting cells, summed over those of a class. sums (R, S,
    C_out) float64: of what the convolution gives, summed over the positions of a class in lit
    cells; the share of resting cells is added to it. dx (R', S', C_in) float64: summed over all
    inputs of a class.
    """
    name, geometry = "lit_rest_backward", block.geometry
    x, w, y = check_float32(name, x=resting.x, w=block.w, y=resting.y)
    check_shape(name, "dy", dy, y.shape)
    check_shape(name, "sums", sums, resting.sums.shape)
    dw, db = gradient_targets(name, wanted, dw=w.shape, db=w.shape[3:])
    alpha = np.float32(block.alpha or 0), block.alpha is None
    dy = np.ascontiguousarray(dy, np.float64)
    _add_cells(dy, y, as_contiguous(resting.argmax), geometry.pooled, *alpha, sums, db)
    ci, co = w.shape[2:]
    weights, gradient = (array.reshape(-1, ci, co) for array in (w, dw))
    flat = x.reshape(-1, ci)
    dx = np.empty((len(weights), *flat.shape) if wanted.dx else (0, 0, 0), np.float32)
    _rest_backward(
        w.size // WEIGHTS,
        flat,
        x.shape[1],
        weights,
        geometry.seen,
        w.shape[1],
        sums,
        wanted.dx,
        gradient,
        dx,
    )
    if not wanted.dx:
        return None, dw, db
    total = np.zeros(flat.shape)
    _add_taps(dx, total)
    return total.reshape(x.shape), dw, db
