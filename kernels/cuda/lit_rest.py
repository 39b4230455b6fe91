"""A block at rest, for the few pairs of classes of rows and columns (lit_rest.cu), and its
gradients.
"""

import numpy as np

from ..arguments import Wanted
from ..lit import LitBlock, Resting
from ..types import Array, Kernels
from ..workspace import Workspace
from .checks import cached_until_update, check_float32, check_shape, gradient_targets, integers
from .lit_lists import on_device


def activation_of(block: LitBlock) -> tuple[float, bool]:
    """Return (alpha, whether there is no activation), as the kernels take it."""
    if block.alpha is not None and block.alpha < 0:
        raise ValueError(
            f"a block needs an increasing activation, alpha >= 0, got {block.alpha!r}: use the "
            "three ops"
        )
    return (0.0, True) if block.alpha is None else (float(block.alpha), False)


def transposed_weights(w: Array, workspace: Workspace | None) -> Array:
    """Return w (KH, KW, C_in, C_out) as (KH, KW, C_out, C_in), made once per update."""
    return cached_until_update(workspace, "turned", lambda: w.transpose(0, 1, 3, 2).copy())


def _seen(kernels, geometry, workspace):
    """Return what a pair of classes of positions sees, as kernels take it: tables of rows and of
    columns, taps of each, classes of columns, pairs.
    """
    rows, columns = on_device(kernels, workspace, geometry, "seen")
    taps = rows.shape[1], columns.shape[1]
    return rows, columns, *taps, len(columns), len(rows) * len(columns)


def lit_rest(
    kernels: Kernels, rest: Array, block: LitBlock, workspace: Workspace | None = None
) -> Resting:
    """Return the block at rest, for the inputs ``rest`` (R', S', C_in) by pairs of classes."""
    op, geometry = "lit_rest", block.geometry
    rest, w, b = check_float32(kernels, op, rest=rest, w=block.w, b=block.b)
    ci, co = w.shape[2:]
    check_shape(op, "rest", rest, (*geometry.input_pairs, ci))
    check_shape(op, "b", b, (co,))
    seen = _seen(kernels, geometry, workspace)
    pairs = seen[-1]
    parts = kernels.empty((geometry.taps, pairs, co))
    sums = kernels.empty((*(len(s) for s in geometry.seen), co))
    what = rest, rest.shape[1], ci, *seen, w, co
    kernels.each("lit_rest.cu", "rest_products", parts.size, *what, parts)
    kernels.each("lit_rest.cu", "rest_sums", sums.size, parts, geometry.taps, sums)
    shape = *(len(p) for p in geometry.pooled), co
    y, argmax = kernels.empty(shape), kernels.empty(shape, np.uint8)
    kernels.each(
        "lit_rest.cu",
        "rest_cells",
        y.size,
        sums,
        sums.shape[1],
        *on_device(kernels, workspace, geometry, "pooled"),
        *geometry.pool,
        shape[1],
        b,
        co,
        *activation_of(block),
        y,
        argmax,
    )
    return Resting(rest, sums, y, argmax)


def lit_rest_backward(
    kernels: Kernels,
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
    op, geometry = "lit_rest_backward", block.geometry
    rest, y, w = check_float32(kernels, op, x=resting.x, y=resting.y, w=block.w)
    ci, co = w.shape[2:]
    dy = _float64(kernels, op, "dy", dy, y.shape)
    sums = _float64(kernels, op, "sums", sums, resting.sums.shape)
    argmax = integers(kernels, resting.argmax, np.uint8)
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=(co,))
    kernels.each(
        "lit_rest.cu",
        "rest_maxima",
        co,
        dy,
        y,
        argmax,
        *y.shape[:2],
        *on_device(kernels, workspace, geometry, "pooled"),
        *geometry.pool,
        sums.shape[1],
        co,
        *activation_of(block),
        sums,
        db,
    )
    seen = _seen(kernels, geometry, workspace)
    what = rest, rest.shape[1], ci, *seen, sums, co
    kernels.each("lit_rest.cu", "rest_dw", dw.size, *what, dw)
    if not wanted.dx:
        return None, dw, db
    pairs = seen[-1]
    parts = kernels.empty((geometry.taps, pairs, ci), np.float64)
    dx = kernels.empty((*geometry.input_pairs, ci), np.float64)
    what = sums, pairs, transposed_weights(w, workspace), ci, co
    kernels.each("lit_rest.cu", "rest_gradients", parts.size, *what, parts)
    kernels.each("lit_rest.cu", "rest_dx", dx.size, parts, *seen, dx.shape[1], ci, dx)
    return dx, dw, db


def _float64(kernels, op, name, array, shape):
    """Return ``array``, checked: a contiguous float64 array of this shape on the device."""
    if (
        not kernels.runtime.is_array(array)
        or array.dtype != np.float64
        or not array.flags.c_contiguous
    ):
        raise TypeError(
            f"{op} on the {kernels.name} backend needs {name} as a contiguous float64 array on the "
            f"device, got {getattr(array, 'dtype', type(array).__name__)}"
        )
    check_shape(op, name, array, shape)
    return array
