"""Buffers of a backend in MPI calls."""
from contextlib import contextmanager


@contextmanager
def lent(buffer, kernels=None):
    """``with lent(buffer, kernels) as memory:`` gives what MPI may read and write in place of ``buffer``.

    For a NumPy array (and ``kernels`` None) that is the array. Else it is a copy on the host, whose contents are in the buffer afterwards.
    """
    memory = buffer if kernels is None else kernels.to_host(buffer)
    yield memory
    if memory is not buffer:
        buffer[...] = kernels.asarray(memory)
