"""The decorator of every compiled function of the simulator: the kernels' own, which keeps machine
code on disk until a file that it depends on changes, and lets one rank compile for all.

Divisions by zero raise, as in Python: a kernel's give infinity.
"""

import functools

from ..kernels.jit import jit as kernels_jit

jit = functools.partial(kernels_jit, error_model="python")
