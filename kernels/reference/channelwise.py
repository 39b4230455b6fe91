"""Convolution channel by channel on feature maps that are lit in few places: what the changes of
the lit inputs add. See kernels/lit.py for the lists, and lit.py for whole convolutions.
"""

import numpy as np

from ..arguments import Wanted
from ..lit import LitLists
from ..types import Array
from .arrays import gradient_targets


def lit_channelwise(y: Array, changes: Array, lists: LitLists, w: Array) -> Array:
    """Add to y (m, C * M) at the fed cells what the changes (n, C) of the lit inputs make there:
    y[cell, c * M + k] += changes[a, c] * w[tap, c, k] for all a that feed the cell through a tap.

    w (KH, KW, C, M). Returns y, which is the output.
    """
    each = y.reshape(len(y), *w.shape[2:])
    assert lists.feeds is not None
    for fed, tap in zip(lists.feeds, w.reshape(-1, *w.shape[2:])):
        each[fed[fed >= 0]] += changes[fed >= 0, :, None] * tap
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
    dx = np.zeros_like(changes) if wanted.dx else None
    (dw,) = gradient_targets("lit_channelwise_backward", wanted, w.dtype, w.shape)
    each = dy.reshape(len(dy), *w.shape[2:])
    assert lists.feeds is not None
    taps = zip(lists.feeds, w.reshape(-1, *w.shape[2:]), dw.reshape(-1, *w.shape[2:]))
    for fed, tap, gradient in taps:
        here = each[fed[fed >= 0]]
        gradient += (changes[fed >= 0, :, None] * here).sum(0)
        if dx is not None:
            dx[fed >= 0] += (here * tap).sum(-1)
    return dx, dw
