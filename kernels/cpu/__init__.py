"""CPU backend: numba with hand-made vector tiles, threaded, float32.

Same functions as the reference backend, one module per family of ops; kernels/ops.py lists them.
Results do not depend on the number of threads; every function may be called with
``workspace=None``. Must not be entered from two Python threads at once (numba's default threading
layer).
"""

from typing import TYPE_CHECKING, Any

from ..ops import ARRAYS, gather
from . import bf16, checks, lit

name = "cpu"
microbatch = 1  # events per call: one at a time, so that memory does not grow with the batch
on_device = False
precisions = {"bf16": bf16.in_bf16}

_functions = {n: getattr(checks, n) for n in ARRAYS} | gather(__name__)
_functions |= {
    n: getattr(lit, n)
    for n in ("lit_lists", "lit_rest", "lit_rest_backward", "lit_block", "lit_block_backward")
}
globals().update(_functions)
__all__ = ["microbatch", "name", "on_device", "precisions", *_functions]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
