"""Convolution channel by channel on feature maps that are lit in few places: what the changes of
the lit inputs add. See kernels/lit.py for the lists.
"""

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..lit import LitLists
from ..types import Array
from .checks import as_contiguous, check_float32, check_shape, gradient_target, gradient_targets
from .depthwise import _add_dot_products, _add_products
from .jit import POSITIVE, threaded

TASK = 512  # lit inputs that one task takes, at least
PARTS = 8  # partial sums of the gradient of w: a number that does not follow the threads


@threaded
def _add_changes(chunks, changes, feeds, w, each, y):
    """A task has the cells of a chunk; each adds its inputs in the order of the list."""
    for task in prange(chunks.shape[0]):
        first, end, low, high = chunks[task]
        for a in range(low, high):
            for tap in range(feeds.shape[0]):
                cell = feeds[tap, a]
                if first <= cell < end:
                    _add_products(changes[a], w[tap], each, y[cell & POSITIVE])


@threaded
def _input_gradients(tasks, dy, feeds, w, each, dx):
    n = dx.shape[0]
    for task in prange(tasks):
        for a in range(n * task // tasks, n * (task + 1) // tasks):
            for tap in range(feeds.shape[0]):
                cell = feeds[tap, a]
                if cell >= 0:
                    _add_dot_products(dy[cell & POSITIVE], w[tap], each, dx[a])


@threaded
def _weight_gradients(dy, changes, feeds, each, parts):
    """parts (tasks, KH * KW, C * M) float64: of a range of inputs, in pieces of TASK in float32."""
    n, tasks = changes.shape[0], parts.shape[0]
    for task in prange(tasks):
        end = n * (task + 1) // tasks
        for start in range(n * task // tasks, end, TASK):
            piece = np.zeros(parts.shape[1:], np.float32)
            for a in range(start, min(start + TASK, end)):
                for tap in range(feeds.shape[0]):
                    cell = feeds[tap, a]
                    if cell >= 0:
                        _add_products(changes[a], dy[cell & POSITIVE], each, piece[tap])
            parts[task] += piece


def _checked(op, y, changes, lists, w):
    """Return w as (KH * KW, C * M), and the feeds."""
    kh, kw, channels, each = w.shape
    check_shape(op, "changes", changes, (lists.feeds.shape[1], channels))
    check_shape(
        op, "dy" if op.endswith("backward") else "y", y, (len(lists.cells), channels * each)
    )
    return w.reshape(kh * kw, channels * each), as_contiguous(lists.feeds, np.int32)


def lit_channelwise(y: Array, changes: Array, lists: LitLists, w: Array) -> Array:
    """Add to y (m, C * M) at the fed cells what the changes (n, C) of the lit inputs make there:
    y[cell, c * M + k] += changes[a, c] * w[tap, c, k] for all a that feed the cell through a tap.

    w (KH, KW, C, M). Returns y, which is the output.
    """
    changes, w = check_float32("lit_channelwise", changes=changes, w=w)
    y = gradient_target("lit_channelwise", "y", y, y.shape)
    flat, feeds = _checked("lit_channelwise", y, changes, lists, w)
    assert lists.chunks is not None
    tasks = 1 if len(changes) < TASK else len(lists.chunks)
    _add_changes(tasks, lists.chunks, changes, feeds, flat, w.shape[3], y)
    return y


def lit_channelwise_backward(
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
    dy, changes, w = check_float32(op, dy=dy, changes=changes, w=w)
    flat, feeds = _checked(op, dy, changes, lists, w)
    (dw,) = gradient_targets(op, wanted, dw=w.shape)
    tasks = -(-len(changes) // TASK)
    parts = np.zeros((max(1, min(PARTS, tasks)), *flat.shape))
    _weight_gradients(tasks, dy, changes, feeds, w.shape[3], parts)
    dw += parts.sum(0).reshape(w.shape)
    if not wanted.dx:
        return None, dw
    dx = np.zeros(changes.shape, np.float32)
    _input_gradients(tasks, tasks, dy, feeds, flat, w.shape[3], dx)
    return dx, dw
