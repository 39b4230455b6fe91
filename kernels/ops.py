"""The table of ops: what there is, where, and how to try it. All that lists ops reads it: the names
that backends export, the parity and gradient tests (tests/kernels/test_ops.py), and with them
``make gpu-check``.

To add an op ``f``: write ``f`` and ``f_backward`` into kernels/reference/<room>.py, the same
signatures into kernels/cpu/<room>.py and (with the backend before the other arguments)
kernels/cuda/<room>.py, and a row here. The tests then compare all of them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import numpy as np

from . import cases, lit_cases
from .cases import Arguments
from .types import Kernels

SUM = 3e-6  # relative, in norm: float32 sums of up to some 1000 products, against float64
POINT = 3e-7  # elementwise, a few roundings
FUNCTION = 1e-6  # elementwise, ten roundings: exponentials and their relatives
EXACT = 0.0  # moves numbers, or finds them

#: What every backend has besides ops: arrays and threads.
ARRAYS = ("asarray", "clear", "empty", "set_threads", "synchronize", "to_host", "zeros")


class Op(NamedTuple):
    """One row.

    ``case(rng)`` draws arguments of the forward function by name: float32 arrays, and whatever
    else. Names that are not the forward function's are for the backward one. This one takes by name
    dy, arguments, outputs, and x_shape.

    outputs: names of the results; of a NamedTuple the fields that backends have in common. A
    backward function that takes the whole NamedTuple has it by the name ``result``.
    """

    room: str  # the module that has it, in every backend
    case: Callable[[np.random.Generator], Arguments]
    outputs: tuple[str, ...] = ("y",)
    #: The arguments whose gradients the backward function returns, in that order.
    gradients: tuple[str, ...] = ()
    tolerance: float = SUM
    gradient_tolerance: float | None = None  # the same, if None
    #: The room of the backward function, if it has one of its own.
    backward_room: str | None = None
    #: There is a backward function that does not fit these rules, and has tests of its own.
    other_gradients: bool = False
    #: The name by which the backward function takes the forward function's NamedTuple.
    result: str | None = None
    #: The backward function takes no dy: it is the gradient of the sum of the first output.
    of_sum: bool = False
    #: Recomputes arguments that follow from others, which change in a numerical derivative.
    derive: Callable[[Arguments], Arguments] | None = None
    #: Outputs that may differ between backends: the position of a maximum where two are close.
    loose: tuple[str, ...] = ()
    #: Adds arguments that have a form of their own in each backend, made by its other ops:
    #: prepare(kernels, arguments).
    prepare: Callable[[Kernels, Arguments], Arguments] | None = None

    def backward(self, name: str) -> str | None:
        """Return the name of the backward function of the op ``name``, or None."""
        return f"{name}_backward" if self.gradients or self.other_gradients else None


def gather(package: str) -> dict[str, Callable]:
    """Return {name: function} of all ops and their backward functions in a backend's package."""
    found = {}
    for name, op in OPS.items():
        found[name] = getattr(import_module(f"{package}.{op.room}"), name)
        if backward := op.backward(name):
            room = import_module(f"{package}.{op.backward_room or op.room}")
            found[backward] = getattr(room, backward)
    return found


XWB, SCALE = ("x", "w", "b"), ("x", "gamma", "beta")
MAXIMUM = ("y", "argmax")

OPS = {
    # convolution
    "conv2d": Op("conv2d", cases.conv2d, gradients=XWB),
    "depthwise_conv2d": Op("depthwise", cases.depthwise, gradients=XWB),
    "conv2d_transpose": Op("conv2d", cases.transpose, gradients=XWB),
    "dense": Op("dense", cases.dense, gradients=XWB),
    # pointwise
    "elu": Op(
        "activations",
        lambda rng: cases.elementwise(rng, alpha=float(rng.choice([1.0, 0.3, 0.0]))),
        gradients=("x",),
        tolerance=POINT,
    ),
    "relu": Op("activations", cases.elementwise, gradients=("x",), tolerance=POINT),
    "dropout": Op("activations", cases.dropout, tolerance=POINT),
    "activation": Op("activations", cases.activation, gradients=("x",), tolerance=FUNCTION),
    # pooling and its opposite
    "maxpool2d": Op("pool2d", cases.pool, MAXIMUM, gradients=("x",)),
    "avgpool2d": Op("pool2d", cases.pool, gradients=("x",)),
    "global_average_pool": Op("pool2d", cases.many_positions, gradients=("x",)),
    "global_max_pool": Op("pool2d", cases.many_positions, MAXIMUM, gradients=("x",)),
    "upsample2d": Op("upsample2d", cases.upsample, gradients=("x",)),
    # normalisation
    "channel_moments": Op(
        "normalization", cases.channel_moments, ("mean", "variance"), tolerance=1e-10
    ),
    "normalize": Op("normalization", cases.normalize, gradients=SCALE, derive=cases.moments),
    "layer_norm": Op(
        "normalization", cases.layer_norm, ("y", "mean", "inverse_deviation"), gradients=SCALE
    ),
    # classes and losses
    "softmax": Op(
        "softmax", lambda rng: {"x": cases.rows(rng)}, gradients=("x",), tolerance=FUNCTION
    ),
    "softmax_cross_entropy": Op(
        "loss", cases.cross_entropy, ("losses", "p"), gradients=("logits",), of_sum=True
    ),
    # all weights at once
    "sgd": Op("optimizer", cases.sgd, ("w", "velocity"), tolerance=POINT),
    "adam": Op("optimizer", cases.adam, ("w", "mean", "square"), tolerance=FUNCTION),
    "finite": Op("optimizer", cases.finite, ("flag",), tolerance=EXACT),
    # the fused block
    "conv2d_block": Op(
        "block",
        cases.block,
        MAXIMUM,
        gradients=XWB,
        backward_room="block_backward",
        result="pooled",
        loose=("argmax",),
    ),
    # zero suppression
    "lit_pixels": Op("lists", cases.lit_pixels, ("positions",), tolerance=EXACT),
    "take_pixels": Op("lists", cases.take_pixels, tolerance=EXACT),
    "put_pixels": Op("lists", cases.put_pixels, tolerance=EXACT),
    "class_sums": Op("lists", cases.class_sums, ("sums",), tolerance=1e-10),
    "class_values": Op("lists", cases.class_values, tolerance=EXACT),
    "merge_positions": Op(
        "unions", cases.merge_positions, ("positions", "in_first", "in_second"), tolerance=EXACT
    ),
    # feature maps at rest and lit
    "lit_lists": Op("lit", lit_cases.lit, ("cells",), tolerance=EXACT),
    "lit_rest": Op(
        "lit", lit_cases.lit, ("sums", *MAXIMUM), loose=("argmax",), other_gradients=True
    ),
    "lit_block": Op(
        "lit",
        lit_cases.lit,
        MAXIMUM,
        loose=("argmax",),
        other_gradients=True,
        prepare=lit_cases.with_lists,
    ),
    "lit_channelwise": Op("channelwise", lit_cases.lit_channelwise, gradients=("changes", "w")),
}
