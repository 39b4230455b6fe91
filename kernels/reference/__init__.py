"""Every op in plain NumPy: the definition that faster backends are compared with. Works in float32
and float64, never tuned.

Arrays are NHWC: x (N, H, W, C). Convolution weights are (KH, KW, C_in, C_out), dense weights
(inputs, outputs), as in Keras. All functions are pure; what the backward pass needs is returned by
the forward pass. Arguments come in one order: arrays, how the op is meant (``geometry``, ``block``,
``epsilon``), and last of all a ``workspace``, which faster backends use for buffers; here it is
ignored. Backward functions take, before the workspace, what is ``wanted`` of them (arguments.py):
gradients of parameters are *added* to the arrays given there, because a batch is a sum over events.
"""

from typing import TYPE_CHECKING, Any

from ..ops import ARRAYS, gather
from . import arrays

name = "reference"
microbatch = None  # events per call: None means the whole batch at once
on_device = False
precisions: dict[str, Any] = {}

_functions = {n: getattr(arrays, n) for n in ARRAYS} | gather(__name__)
for _function in _functions.values():
    _function.__module__ = __name__  # where they are to be imported from, as NumPy has it
globals().update(_functions)
__all__ = ["microbatch", "name", "on_device", "precisions", *_functions]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
