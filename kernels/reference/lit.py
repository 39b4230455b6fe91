"""A convolution, its activation and its pooling on feature maps that are lit in few places, as
*rest + changes*: see kernels/lit.py for the geometry.

    d[a]    = x[a] - rest[class of a]                            at the lit inputs
    z[q]    = sums[class of q] + sum over taps of d[a] w[tap]    of the lit inputs a that feed q
    y[cell] = activation(max over q in cell of z[q] + b)

These are the numbers of the dense convolution: outputs that no lit input feeds are at rest.
"""

import numpy as np

from ..arguments import Wanted
from ..lit import Lit, LitBlock, LitGeometry, LitLists, Resting
from ..types import Array
from ..workspace import Workspace
from .arrays import gradient_targets


def lit_lists(
    positions: Array,
    events: int,
    geometry: LitGeometry,
    channels: tuple[int, int] | None = None,
    workspace: Workspace | None = None,
) -> LitLists:
    """Return the cells that the lit inputs ``positions`` (n, 2) feed, and how. Positions are
    row-major, row r of event e is e * H + r. With ``workspace`` the arrays are its buffers.
    channels: (C_in, C_out) of a block that they are for alone, which may do without ``feeds``;
    here it does not.
    """
    (rows, columns), (ph, pw), (oh, ow) = geometry.feeds, geometry.pool, geometry.grid
    event, row = np.divmod(positions[:, 0], len(rows))
    r, c = rows[row][:, :, None], columns[positions[:, 1]][:, None]  # (n, KH, 1, 2), (n, 1, KW, 2)
    fed = (r[..., 0] >= 0) & (c[..., 0] >= 0)
    number = ((event[:, None, None] * oh + r[..., 0]) * ow + c[..., 0]).astype(np.int64)
    cells = np.unique(number[fed])
    slot = np.searchsorted(cells, number) * (ph * pw) + r[..., 1] + c[..., 1]
    feeds = np.where(fed, slot, -1).reshape(len(positions), geometry.taps).T
    at_cells = np.stack(np.divmod(cells, ow), 1).astype(np.int32).reshape(-1, 2)
    chunks = np.array([[0, len(cells), 0, len(positions)]], np.int64)
    return LitLists(at_cells, np.ascontiguousarray(feeds, np.int32), chunks)


def lit_rest(rest: Array, block: LitBlock, workspace: Workspace | None = None) -> Resting:
    """Return the block at rest, for the inputs ``rest`` (R', S', C_in) by pairs of classes."""
    (rows, columns), w = block.geometry.pooled, block.w
    sums = np.einsum("rsyxi,yxio->rso", _windows(rest, block), w, optimize=True)
    z = sums[rows[:, None, :, None], columns[None, :, None, :]]
    z = z.reshape(len(rows), len(columns), -1, w.shape[3])
    y = _activate(z.max(2) + block.b, block.alpha).astype(rest.dtype)
    return Resting(rest, sums.astype(rest.dtype), y, z.argmax(2).astype(np.uint8))


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
    geometry, w = block.geometry, block.w
    rows, columns = geometry.pooled
    g = dy * _slope(resting.y, block.alpha).astype(np.float64)
    cell, width = np.indices(g.shape), geometry.pool[1]
    row = rows[cell[0], resting.argmax // width]
    column = columns[cell[1], resting.argmax % width]
    np.add.at(sums, (row, column, cell[2]), g)
    dw, db = gradient_targets("lit_rest_backward", wanted, w.dtype, w.shape, w.shape[3:])
    windows = _windows(resting.x, block)
    dw += np.einsum("rsyxi,rso->yxio", windows, sums, optimize=True).astype(dw.dtype)
    db += g.sum((0, 1)).astype(db.dtype)
    if not wanted.dx:
        return None, dw, db
    dx = np.zeros((*geometry.input_pairs, w.shape[2]))
    for ky, kx in np.ndindex(w.shape[:2]):
        r, c = geometry.seen[0][:, ky, None], geometry.seen[1][None, :, kx]
        inside = ((r >= 0) & (c >= 0))[..., None]
        np.add.at(dx, (r, c), np.where(inside, sums @ w[ky, kx].T, 0))
    return dx, dw, db


def lit_block(
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    workspace: Workspace | None = None,
) -> Lit:
    """Return the block at the fed cells, for the changes (n, C_in) of the lit inputs from rest.

    With ``workspace`` the arrays are its buffers, valid until the next call.
    """
    geometry, channels = block.geometry, block.w.shape[3]
    (ph, pw), (oh, _) = geometry.pool, geometry.grid
    first = lists.cells[:, 0] % oh * ph
    rows = geometry.positions[0][first[:, None] + np.arange(ph)]
    columns = geometry.positions[1][lists.cells[:, 1, None] * pw + np.arange(pw)]
    z = resting.sums[rows[:, :, None], columns[:, None, :]].reshape(-1, channels)
    for fed, tap in zip(lists.feeds, block.w.reshape(-1, *block.w.shape[2:])):
        z[fed[fed >= 0]] += changes[fed >= 0] @ tap
    z = z.reshape(-1, ph * pw, channels)
    y = _activate(z.max(1) + block.b, block.alpha).astype(changes.dtype)
    return Lit(changes, lists, y, z.argmax(1).astype(np.uint8))


def lit_block_backward(
    dy: Array,
    lit: Lit,
    block: LitBlock,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array, Array]:
    """Gradients of lit_block for dy (m, C_out): returns (dx or None, sums, dw, db).

    dx (n, C_in): at the lit inputs, all of whose gradient comes from fed cells. sums (R, S, C_out)
    float64: the gradient of what the convolution gives, summed over the positions of a class. dw
    gets the share of the changes alone; that of rest follows from ``sums``, see lit_rest_backward.
    """
    geometry, w, lists = block.geometry, block.w, lit.lists
    (ph, pw), (oh, _) = geometry.pool, geometry.grid
    g = dy * _slope(lit.y, block.alpha)
    cell, channel = np.indices(g.shape)
    row = geometry.positions[0][lists.cells[cell, 0] % oh * ph + lit.argmax // pw]
    column = geometry.positions[1][lists.cells[cell, 1] * pw + lit.argmax % pw]
    sums = np.zeros((*(len(seen) for seen in geometry.seen), w.shape[3]))
    np.add.at(sums, (row, column, channel), g)
    at_maxima = np.zeros((len(g) * ph * pw, w.shape[3]), g.dtype)
    at_maxima[cell * (ph * pw) + lit.argmax, channel] = g
    dw, db = gradient_targets("lit_block_backward", wanted, w.dtype, w.shape, w.shape[3:])
    dx = np.zeros_like(lit.changes) if wanted.dx else None
    db += g.sum(0)
    taps = zip(lists.feeds, w.reshape(-1, *w.shape[2:]), dw.reshape(-1, *w.shape[2:]))
    for fed, tap, gradient in taps:
        here = at_maxima[fed[fed >= 0]]
        gradient += lit.changes[fed >= 0].T @ here
        if dx is not None:
            dx[fed >= 0] += here @ tap.T
    return dx, sums, dw, db


def _windows(rest, block):
    """What the classes of positions see at rest, (R, S, KH, KW, C_in)."""
    padded = np.zeros((rest.shape[0] + 1, rest.shape[1] + 1, rest.shape[2]), rest.dtype)
    padded[:-1, :-1] = rest  # class -1, the last, is what lies outside
    rows, columns = block.geometry.seen
    return padded[rows[:, None, :, None], columns[None, :, None, :]]


def _activate(z, alpha):
    return z if alpha is None else np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _slope(y, alpha):
    return np.ones_like(y) if alpha is None else np.where(y > 0, 1, y + alpha).astype(y.dtype)
