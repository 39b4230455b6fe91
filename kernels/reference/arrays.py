"""Arrays of this backend: plain NumPy arrays."""

import numpy as np


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


def synchronize():
    """Wait until the device is idle."""


def set_threads(n):
    """Use ``n`` threads; the reference uses NumPy's own."""
