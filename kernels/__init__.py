"""Numerical kernels: pure functions over arrays with one signature in every backend.

    reference   plain NumPy, the definition (float32 and float64)
    cpu         numba, threaded, vector tiles (float32)
    cuda        CuPy (float32)
    emulated    the cuda backend's launchers and kernels on one CPU core, for tests

This package imports nothing from minicnn; backends load on request, so that importing it costs
nothing.
"""

import importlib

from .types import Kernels

BACKENDS = {
    "reference": ".reference",
    "cpu": ".cpu",
    "cuda": ".cuda.gpu",
    "emulated": ".cuda.emulator",
}


def get_backend(name: str) -> Kernels:
    """Return the backend ``name``, a module or an object with the ops; raises ValueError for an
    unknown name and RuntimeError where it cannot run here.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    module = importlib.import_module(BACKENDS[name], __name__)
    return module.backend() if hasattr(module, "backend") else module
