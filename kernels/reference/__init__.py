"""Every op in plain NumPy: the definition that faster backends are compared with. Works in float32
and float64, never tuned.

Arrays are NHWC: x (N, H, W, C). Convolution weights are (KH, KW, C_in, C_out), dense weights
(inputs, outputs), as in Keras. All functions are pure; what the backward pass needs is returned by
the forward pass. Gradient functions that return dw and db *add* to the arrays given as ``dw`` and
``db`` (a batch is a sum over events) and make new ones where these are None. ``work`` is a
Workspace that faster backends use for buffers; here it is ignored.
"""

from typing import TYPE_CHECKING, Any

from ..ops import ARRAYS, gather
from . import arrays

name = "reference"
microbatch = None  # events per call: None means the whole batch at once

_functions = {n: getattr(arrays, n) for n in ARRAYS} | gather(__name__)
for _function in _functions.values():
    _function.__module__ = __name__  # where they are to be imported from, as NumPy has it
globals().update(_functions)
__all__ = ["microbatch", "name", *_functions]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
