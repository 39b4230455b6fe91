"""CPU backend: numba with hand-made vector tiles, threaded, float32.

Same functions as the reference backend, one module per op. Results do not depend on the number of
threads; every function may be called with ``work=None``. Must not be entered from two Python
threads at once (numba's default threading layer).
"""

from .activations import dropout, elu, elu_backward, relu, relu_backward
from .block import conv2d_block, conv2d_block_backward
from .cells import (
    active_cells,
    cell_windows,
    class_sums,
    conv2d_block_cells,
    conv2d_block_cells_backward,
    fill_windows,
    lit_pixels,
    put_pixels,
    take_pixels,
)
from .checks import asarray, empty, set_threads, synchronize, to_host, zeros
from .conv2d import conv2d, conv2d_backward
from .dense import dense, dense_backward
from .loss import softmax_cross_entropy, softmax_cross_entropy_backward
from .optimizer import adam, finite, sgd
from .pool2d import maxpool2d, maxpool2d_backward

name = "cpu"
microbatch = 1  # events per call: one at a time, so that memory does not grow with the batch

__all__ = [
    "active_cells",
    "adam",
    "asarray",
    "cell_windows",
    "class_sums",
    "conv2d",
    "conv2d_backward",
    "conv2d_block",
    "conv2d_block_backward",
    "conv2d_block_cells",
    "conv2d_block_cells_backward",
    "dense",
    "dense_backward",
    "dropout",
    "elu",
    "elu_backward",
    "empty",
    "fill_windows",
    "finite",
    "lit_pixels",
    "maxpool2d",
    "maxpool2d_backward",
    "microbatch",
    "name",
    "put_pixels",
    "relu",
    "relu_backward",
    "set_threads",
    "sgd",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "synchronize",
    "take_pixels",
    "to_host",
    "zeros",
]
