"""What this backend runs on: for ``python -m minicnn doctor``."""

from importlib import import_module
from typing import Any

import llvmlite.binding as llvm
import numba

from .emit import LANES
from .jit import CACHE


def describe() -> dict[str, Any]:
    """Return {"numba", "threads", "layer", "lanes", "cpu", "cache"}: version, most threads,
    threading layer that will be used (None where the one asked for cannot be loaded), float32 lanes
    of a vector, LLVM's name of the processor, folder of compiled kernels."""
    config: Any = numba.config  # fills its attributes in as it runs
    asked = config.THREADING_LAYER
    every = ("tbb", "omp", "workqueue")
    names = {"default": every, "safe": ("tbb",), "threadsafe": ("tbb", "omp"), "forksafe": every}
    layer = next((name for name in names.get(asked, (asked,)) if _loads(name)), None)
    return {
        "numba": numba.__version__,
        "threads": int(config.NUMBA_NUM_THREADS),
        "layer": layer,
        "asked": asked,
        "lanes": LANES,
        "cpu": llvm.get_host_cpu_name(),
        "cache": str(CACHE),
    }


def _loads(layer):
    try:
        import_module(
            {"tbb": "numba.np.ufunc.tbbpool", "omp": "numba.np.ufunc.omppool"}.get(
                layer, f"numba.np.ufunc.{layer}"
            )
        )
    except ImportError:
        return False
    return True
