"""Convolution channel by channel on feature maps that are lit in few places: what the changes of
the lit inputs add. See kernels/lit.py for the lists.
"""

import numpy as np

from ..arguments import Wanted
from ..lit import LitLists
from ..types import Array, Kernels
from .checks import check_float32, check_shape, gradient_target, gradient_targets, integers

SPANS = 64  # partial sums over inputs of the gradient of w
SPAN = 256  # inputs that a thread adds up, at least


def lit_channelwise(kernels: Kernels, y: Array, changes: Array, lists: LitLists, w: Array) -> Array:
    """Add to y (m, C * M) at the fed cells what the changes (n, C) of the lit inputs make there:
    y[cell, c * M + k] += changes[a, c] * w[tap, c, k] for all a that feed the cell through a tap.

    w (KH, KW, C, M). Returns y, which is the output.
    """
    changes, w = check_float32(kernels, "lit_channelwise", changes=changes, w=w)
    y = gradient_target(kernels, "lit_channelwise", "y", y, y.shape)
    feeds, sizes = _checked(kernels, "lit_channelwise", y, changes, lists, w)
    taps, n = feeds.shape
    fed_by = kernels.empty((len(lists.cells), taps), np.int32)
    fed_by[...] = -1
    kernels.each("channelwise.cu", "turn_lists", feeds.size, feeds, n, taps, fed_by)
    kernels.each("channelwise.cu", "add_changes", y.size, changes, fed_by, w, taps, *sizes, y)
    return y


def _checked(kernels, op, y, changes, lists, w):
    """Return the feeds, and (C, M)."""
    channels, each = w.shape[2:]
    feeds = integers(kernels, lists.feeds)
    check_shape(op, "changes", changes, (feeds.shape[1], channels))
    check_shape(
        op, "dy" if op.endswith("backward") else "y", y, (len(lists.cells), channels * each)
    )
    return feeds, (channels, each)


def lit_channelwise_backward(
    kernels: Kernels,
    dy: Array,
    changes: Array,
    lists: LitLists,
    w: Array,
    wanted: Wanted = Wanted(),
) -> tuple[Array | None, Array]:
    """Gradients of lit_channelwise with respect to changes and w: returns (dx (n, C) or None,
    dw).
    """
    op = "lit_channelwise_backward"
    dy, changes, w = check_float32(kernels, op, dy=dy, changes=changes, w=w)
    feeds, sizes = _checked(kernels, op, dy, changes, lists, w)
    (dw,) = gradient_targets(kernels, op, wanted, dw=w.shape)
    taps, n = feeds.shape
    if n:
        span = max(SPAN, -(-n // SPANS))
        parts = kernels.empty((-(-n // span), *w.shape), np.float64)
        kernels.each(
            "channelwise.cu",
            "weight_spans",
            parts.size,
            dy,
            changes,
            feeds,
            n,
            taps,
            *sizes,
            span,
            parts,
        )
        dw += parts.sum(0).astype(np.float32)
    if not wanted.dx:
        return None, dw
    dx = kernels.empty(changes.shape)
    kernels.each("channelwise.cu", "input_gradients", dx.size, dy, feeds, w, n, taps, *sizes, dx)
    return dx, dw
