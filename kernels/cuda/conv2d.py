"""Convolution on its own, and the sum over parts that all weight gradients end with."""

import numpy as np

from ..shapes import conv_output, conv_padding, pair
from .checks import floats, gradient, shaped

CHUNK, PARTS = (
    256,
    64,
)  # pixels summed in float32 before the sum goes to float64; at most so many parts


def conv2d(k, x, w, b, stride=1, padding="same", work=None):
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky - top, j*s + kx - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> y (N, OH, OW, C_out). Outside
    the image x is 0.
    """
    x, w, b = floats(k, "conv2d", x=x, w=w, b=b)
    stride = pair(stride, "stride")
    shape = n, oh, ow, co = conv_output(x.shape, w.shape, stride, padding)
    shaped("conv2d", "b", b, (co,))
    (top, _), (left, _) = conv_padding(x.shape, w.shape, stride, padding)
    y = k.empty(shape)
    grid = -(-n * oh * -(-ow // 4) // 8), -(-co // 32)
    k.launch(
        "conv2d.cu",
        "conv2d",
        grid,
        (32, 8),
        (x, w, b, *x.shape[1:], oh, ow, co, *w.shape[:2], *stride, top, left, n * oh, y),
    )
    return y


def conv2d_backward(
    k, dy, x, w, stride=1, padding="same", need_dx=True, dw=None, db=None, work=None
):
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out); dw, db are added to.
    """
    op = "conv2d_backward"
    dy, x, w = floats(k, op, dy=dy, x=x, w=w)
    stride = pair(stride, "stride")
    n, oh, ow, co = conv_output(x.shape, w.shape, stride, padding)
    shaped(op, "dy", dy, (n, oh, ow, co))
    kh, kw, ci = w.shape[:3]
    dw, db = gradient(k, op, "dw", dw, w.shape), gradient(k, op, "db", db, (co,))
    (top, _), (left, _) = conv_padding(x.shape, w.shape, stride, padding)
    geometry = *x.shape[1:], oh, ow, co, kh, kw, *stride, top, left
    pixels, taps = n * oh * ow, kh * kw * ci
    if pixels:
        span = -(-pixels // (CHUNK * PARTS)) * CHUNK
        parts = k.empty((-(-pixels // span), co, taps + 1), np.float64)
        k.launch(
            "conv2d.cu",
            "conv2d_dw",
            (-(-(taps + 1) // 32), -(-co // 32), len(parts)),
            (32, 8),
            (dy, x, *geometry, np.int64(pixels), span, parts),
        )
        add_parts(k, parts, dw, db)
    if not need_dx:
        return None, dw, db
    dx = k.empty(x.shape)
    k.each("conv2d.cu", "conv2d_dx", dx.size, dy, w.transpose(0, 1, 3, 2).copy(), *geometry, dx)
    return dx, dw, db


def add_parts(k, parts, dw, db):
    """dw += and db += the sums over parts (count, C_out, taps + 1), the last tap being the bias."""
    count, co, taps = parts.shape
    kind = "double" if parts.dtype == np.float64 else "float"
    k.launch(
        "add_parts.cu",
        "add_parts",
        (-(-co // 32), -(-taps // 32)),
        (32, 8),
        (parts, count, taps - 1, co, dw, db),
        {"PART": kind},
    )
