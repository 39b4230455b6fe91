"""Every op in plain NumPy: the definition that faster backends are compared with. Works in float32
and float64, never tuned.

Arrays are NHWC: x (N, H, W, C). Convolution weights are (KH, KW, C_in, C_out), dense weights
(inputs, outputs), as in Keras. All functions are pure; what the backward pass needs is returned by
the forward pass. Gradient functions that return dw and db *add* to the arrays given as ``dw`` and
``db`` (a batch is a sum over events) and make new ones where these are None. ``work`` is a
Workspace that faster backends use for buffers; here it is ignored.
"""

import numpy as np

from .shapes import argmax_dtype, conv_output, conv_padding, pair, pool_output

name = "reference"
microbatch = None  # events per call: None means the whole batch at once


# ------------------------------------------------------------------------------------------- arrays
def empty(shape, dtype=np.float32):
    """Return an uninitialised array on the device."""
    return np.empty(shape, dtype)


def zeros(shape, dtype=np.float32):
    """Return an array of zeros on the device."""
    return np.zeros(shape, dtype)


def asarray(a, dtype=None):
    """Return ``a`` as an array on the device."""
    return np.asarray(a, dtype)


def to_host(a):
    """Return ``a`` as a NumPy array."""
    return np.asarray(a)


def finite(a):
    """Return whether no element of ``a`` is NaN or infinite."""
    return bool(np.isfinite(a).all())


def synchronize():
    """Wait until the device is idle."""


def set_threads(n):
    """Use ``n`` threads; the reference uses NumPy's own."""


# -------------------------------------------------------------------------------------- convolution
def conv2d(x, w, b, stride=1, padding="same", work=None):
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky - top, j*s + kx - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) -> y (N, OH, OW, C_out). Outside the
    image x is 0.
    """
    stride = pair(stride, "stride")
    n, oh, ow, co = conv_output(x.shape, w.shape, stride, padding)
    xp = np.pad(x, ((0, 0), *conv_padding(x.shape, w.shape, stride, padding), (0, 0)))
    y = np.zeros((n, oh, ow, co), np.result_type(x, w))
    for ky in range(w.shape[0]):
        for kx in range(w.shape[1]):
            y += (
                xp[:, ky:, kx:][
                    :,
                    : (oh - 1) * stride[0] + 1 : stride[0],
                    : (ow - 1) * stride[1] + 1 : stride[1],
                ]
                @ w[ky, kx]
            )
    return y + b


def conv2d_backward(dy, x, w, stride=1, padding="same", need_dx=True, dw=None, db=None, work=None):
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out).
    """
    stride = pair(stride, "stride")
    _, oh, ow, _ = conv_output(x.shape, w.shape, stride, padding)
    (top, bottom), (left, right) = conv_padding(x.shape, w.shape, stride, padding)
    xp = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    dxp = np.zeros_like(xp) if need_dx else None
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(w.shape[3], w.dtype) if db is None else db
    for ky in range(w.shape[0]):
        for kx in range(w.shape[1]):
            rows = slice(ky, ky + (oh - 1) * stride[0] + 1, stride[0])
            columns = slice(kx, kx + (ow - 1) * stride[1] + 1, stride[1])
            dw[ky, kx] += np.tensordot(xp[:, rows, columns], dy, axes=((0, 1, 2), (0, 1, 2)))
            if need_dx:
                dxp[:, rows, columns] += dy @ w[ky, kx].T
    db += dy.sum((0, 1, 2))
    h, width = x.shape[1:3]
    return dxp[:, top : top + h, left : left + width] if need_dx else None, dw, db


# -------------------------------------------------------------------------------------- activations
def elu(x, alpha=1.0):
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha
    0 is relu.
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype)


def elu_backward(dy, y, alpha=1.0):
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output."""
    return (dy * np.where(y > 0, 1, y + alpha)).astype(dy.dtype)


def relu(x):
    """y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy, y):
    """dx = dy where y > 0, else 0."""
    return np.where(y > 0, dy, 0).astype(dy.dtype)


def dropout(x, keep, rate):
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    return (x * keep * (1 / (1 - rate))).astype(x.dtype)


# ------------------------------------------------------------------------------------------ pooling
def maxpool2d(x, size, stride=None):
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    Returns (y, argmax): argmax = a * PW + b of the first maximum in row-major order, uint8 (int32
    above 256 positions).
    """
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    pool_output(x.shape, size, stride)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))[
        :, :: stride[0], :: stride[1]
    ]
    flat = windows.reshape(*windows.shape[:4], size[0] * size[1])
    argmax = flat.argmax(-1)
    return np.take_along_axis(flat, argmax[..., None], -1)[..., 0], argmax.astype(
        argmax_dtype(size)
    )


def maxpool2d_backward(dy, argmax, x_shape, size, stride=None):
    """dx (x_shape): each dy is added at the position that was its window's maximum."""
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    n, i, j, c = np.indices(dy.shape, sparse=True)
    dx = np.zeros(x_shape, dy.dtype)
    np.add.at(dx, (n, i * stride[0] + argmax // size[1], j * stride[1] + argmax % size[1], c), dy)
    return dx


# ---------------------------------------------------------------------------------- the fused block
def conv2d_block(x, w, b, pool, alpha=1.0, padding="same", distinct=None, work=None):
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool) as one op; here literally the three.

    x (N, H, W, C_in) -> (y, argmax), both (N, OH // PH, OW // PW, C_out). Because ELU increases and
    b is constant in a window, maxpool(elu(z + b)) = elu(maxpool(z) + b): faster backends never
    store z. alpha 0 makes it a ReLU block. ``distinct`` (cells, 2) is a promise of the caller that
    the first so many rows and columns of a cell's pooling window hold all of its different sums, in
    order of first appearance: a backend need not compute the others.
    """
    return maxpool2d(elu(conv2d(x, w, b, 1, padding), alpha), pool)


def conv2d_block_backward(
    dy,
    x,
    w,
    y,
    argmax,
    pool,
    alpha=1.0,
    padding="same",
    need_dx=True,
    dw=None,
    db=None,
    need_dw=True,
    work=None,
):
    """Gradients of conv2d_block: (dx or None, dw, db). Only the window maxima carry a gradient: one
    output in PH * PW.

    With need_dw=False dw and db stay what they were given as.
    """
    z_shape = conv_output(x.shape, w.shape, (1, 1), padding)
    dz = maxpool2d_backward(elu_backward(dy, y, alpha), argmax, z_shape, pool)
    dx, *grads = conv2d_backward(
        dz, x, w, 1, padding, need_dx, *((dw, db) if need_dw else (None, None))
    )
    return (dx, *(grads if need_dw else (dw, db)))


# ---------------------------------------------------------------------------------------------------- zero suppression
# One image (1, H, W, C) at a time, and lists of positions (n, 2) = row, column in row-major order. A cell is one pooled output.
def lit_pixels(x, background=0.0, most=None):
    """Return the positions, int32 (n, 2), where any channel of x (1, H, W, C) differs from
    ``background``; None if more than ``most``.
    """
    lit = np.argwhere((x[0] != background).any(-1)).astype(np.int32)
    return None if most is not None and len(lit) > most else lit


def active_cells(active, x_shape, kernel, pool, padding="same", work=None):
    """Return the cells, int32 (m, 2), in row-major order, whose input window holds one of the
    ``active`` positions.

    Cell (i, j) of a block with kernel (KH, KW) and pool (PH, PW) reads rows i PH - top to i PH -
    top + PH + KH - 2, columns likewise.
    """
    (top, _), (left, _) = conv_padding(x_shape, (*kernel, 0, 0), (1, 1), padding)
    _, oh, ow, _ = pool_output(
        conv_output(x_shape, (*kernel, x_shape[3], 1), (1, 1), padding), pool, pool
    )
    i, j = np.arange(oh) * pool[0] - top, np.arange(ow) * pool[1] - left
    mask = np.zeros((oh, ow), bool)
    for row, column in active:
        mask[
            np.ix_(
                (i <= row) & (row < i + pool[0] + kernel[0] - 1),
                (j <= column) & (column < j + pool[1] + kernel[1] - 1),
            )
        ] = True
    return np.argwhere(mask).astype(np.int32)


def take_pixels(x, at):
    """Return x (1, H, W, C) at the positions ``at`` (m, 2): (m, C)."""
    return x.reshape(-1, *x.shape[2:])[at[:, 0], at[:, 1]]


def put_pixels(x, at, values):
    """Set x (1, H, W, C) at the positions ``at`` (m, 2) to values (m, C); returns x, which is the
    output.
    """
    x.reshape(-1, *x.shape[2:])[at[:, 0], at[:, 1]] = values
    return x


def class_sums(values, at, classes, pairs):
    """Return the sums (R, S, C) float64 of values (m, C) at positions ``at`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    sums = np.zeros((*pairs, values.shape[1]))
    np.add.at(sums, (classes[0][at[:, 0] % len(classes[0])], classes[1][at[:, 1]]), values)
    return sums


def cell_windows(x, cells, kernel, pool, padding="same", out=None, work=None):
    """Return the input windows (m, PH + KH - 1, PW + KW - 1, C) of the cells of x (1, H, W, C), 0
    outside the image, in ``out``.
    """
    (top, bottom), (left, right) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    xp = np.pad(x[0], ((top, bottom), (left, right), (0, 0)))
    size = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1
    out = np.empty((len(cells), *size, x.shape[3]), x.dtype) if out is None else out
    for window, (i, j) in zip(out, cells * pool):
        window[...] = xp[i : i + size[0], j : j + size[1]]
    return out


def fill_windows(x, cells, kernel, pool, padding, values, classes):
    """Set x[0, r, c] = values[row_class[r], column_class[c]] at all pixels that the windows of the
    cells hold; returns x.

    values (R, S, C), classes = (row_class (H,), column_class (W,)). ``x`` is the output, (1, H, W,
    C); other pixels keep what they have.
    """
    (top, _), (left, _) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    for i, j in cells * pool - (top, left):
        rows = slice(max(i, 0), max(i + pool[0] + kernel[0] - 1, 0))
        columns = slice(max(j, 0), max(j + pool[1] + kernel[1] - 1, 0))
        x[0, rows, columns] = values[classes[0][rows, None], classes[1][None, columns]]
    return x


def conv2d_block_cells(x, cells, w, b, pool, alpha=1.0, padding="same", changed=None, work=None):
    """conv2d_block at the listed cells alone: (y, argmax), both (m, C_out), for cells (m, 2) of x
    (1, H, W, C_in).

    Bit for bit what conv2d_block gives there: the block applied to the m windows as m small images.
    ``changed`` = (at, rows, columns) is a hint for faster backends: x differs from an image at rest
    at the positions ``at`` (n, 2) alone, and at rest position (r, c) of cell (i, j)'s pooling
    window sees the same as its earlier position (rows[i, r], columns[j, c]); uint8 (OH, PH), (OW,
    PW).
    """
    pool = pair(pool, "pool size")
    windows = cell_windows(x, cells, w.shape[:2], pool, padding)
    y, argmax = conv2d_block(windows, w, b, pool, alpha, "valid")
    return y[:, 0, 0], argmax[:, 0, 0]


def conv2d_block_cells_backward(
    dy,
    cells,
    at,
    x,
    w,
    y,
    argmax,
    pool,
    alpha=1.0,
    padding="same",
    classes=None,
    dw=None,
    db=None,
    need_dw=True,
    work=None,
):
    """Gradients of conv2d_block_cells for dy (m, C_out): returns (dx_at, dx_sums, dw, db).

    dx_at (n, C_in): the input gradient at the positions ``at`` (n, 2). dx_sums (R, S, C_in)
    float64: its sums over the pixels of each pair of row class and column class, for ``classes`` =
    (row_class (H,), column_class (W,)) counting from 0; by default one class. Both are None where
    ``at`` is None. dw and db are added to, unless need_dw=False.
    """
    pool = pair(pool, "pool size")
    (top, _), (left, _) = conv_padding(x.shape, w.shape, (1, 1), padding)
    windows, one = cell_windows(x, cells, w.shape[:2], pool, padding), (slice(None), None, None)
    dwin, dw, db = conv2d_block_backward(
        dy[one],
        windows,
        w,
        y[one],
        argmax[one],
        pool,
        alpha,
        "valid",
        at is not None,
        dw,
        db,
        need_dw,
    )
    if at is None:
        return None, None, dw, db
    h, width = x.shape[1:3]
    rows, columns = classes or (np.zeros(h, int), np.zeros(width, int))
    dx = np.zeros((top + h + pool[0] + w.shape[0], left + width + pool[1] + w.shape[1], x.shape[3]))
    if len(cells):
        for (i, j), d in zip(cells * pool, dwin):
            dx[i : i + d.shape[0], j : j + d.shape[1]] += d
    dx = dx[top : top + h, left : left + width]
    sums = np.zeros((rows.max() + 1, columns.max() + 1, x.shape[3]))
    np.add.at(sums, (rows[:, None], columns[None]), dx)
    return dx[at[:, 0], at[:, 1]].astype(x.dtype), sums, dw, db


# ------------------------------------------------------------------------------ dense, loss, update
def dense(x, w, b, work=None):
    """y = x @ w + b for x (N, inputs), w (inputs, outputs), b (outputs,)."""
    return x @ w + b


def dense_backward(dy, x, w, need_dx=True, dw=None, db=None, work=None):
    """Gradients of dense: dx = dy @ w.T (or None), dw = x.T @ dy, db = sum of dy over the batch."""
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(w.shape[1], w.dtype) if db is None else db
    dw += x.T @ dy
    db += dy.sum(0)
    return dy @ w.T if need_dx else None, dw, db


def softmax_cross_entropy(logits, labels):
    """Per-event loss -log p[label] with p = softmax(logits): returns (losses (N,), p (N, classes));
    labels int (N,).
    """
    shifted = logits - logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(1))
    losses = log_sum - shifted[np.arange(len(labels)), labels]
    return losses, np.exp(shifted - log_sum[:, None])


def softmax_cross_entropy_backward(p, labels):
    """Gradient of the *sum* of the losses with respect to the logits: p - one_hot(labels)."""
    dlogits = p.copy()
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits


def sgd(
    w,
    dw,
    velocity,
    learning_rate,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    scale=1.0,
    out=None,
):
    """One step of SGD on flat vectors: g = scale * dw + weight_decay * w; v = momentum * v + g; w
    -= lr * (v, or g + momentum * v).

    Returns (w, velocity), written into ``out`` when given (they may be the inputs). Sutskever et
    al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    g = scale * dw + weight_decay * w
    v = momentum * velocity + g
    new = w - learning_rate * (g + momentum * v if nesterov else v)
    if out is None:
        return new.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...] = new, v
    return out


def adam(
    w,
    dw,
    mean,
    square,
    step,
    learning_rate,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    scale=1.0,
    out=None,
):
    """Step number ``step`` (1, 2, ...) of Adam on flat vectors: g = scale * dw; m = beta1 m + (1 -
    beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr * (m' / (sqrt(v') + epsilon) + weight_decay *
    w) with m' = m / (1 - beta1^step), v' = v / (1 - beta2^step).

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba
    2015, arXiv:1412.6980; weight decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    g = scale * dw
    m = beta1 * mean + (1 - beta1) * g
    v = beta2 * square + (1 - beta2) * g * g
    new = w - learning_rate * (
        m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + epsilon) + weight_decay * w
    )
    if out is None:
        return new.astype(w.dtype), m.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...], out[2][...] = new, m, v
    return out
