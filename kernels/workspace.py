"""Buffers that a kernel keeps between calls, owned by the caller and passed as ``workspace``."""

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .types import Shape


class Workspace:
    """Named arrays of one call site.

    ``buffer`` returns the same memory for the same name and shape, so that a step allocates nothing
    after the first one; ``once`` keeps a value until ``expire`` is called, which the model does
    after every weight update (packed weights); ``keep`` keeps the last value of what follows from
    shapes alone. ``timed()`` is a context in which such values are made: the owner may account for
    that time.
    """

    def __init__(self, timed=nullcontext):
        self.timed = timed
        self.buffers = {}
        self.values = {}
        self.kept = {}
        self.parts = {}

    def part(self, name: str) -> "Workspace":
        """Return the workspace of one of several ops that share this call site; it expires with
        this one. Two ops on one workspace would take each other's packed weights for their own.
        """
        if name not in self.parts:
            self.parts[name] = Workspace(self.timed)
        return self.parts[name]

    def buffer(
        self, name: str, shape: Shape, dtype: DTypeLike = np.float32, fill: float | None = None
    ) -> Any:
        """Return the array ``name``; it is (re)made when shape or dtype change and then filled with
        ``fill`` if given.
        """
        array = self.buffers.get(name)
        if array is None or array.shape != tuple(shape) or array.dtype != dtype:
            array = np.empty(shape, dtype) if fill is None else np.full(shape, fill, dtype)
            self.buffers[name] = array
        return array

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of ``make()``, computed at most once between two calls of ``expire``."""
        if name not in self.values:
            with self.timed():
                self.values[name] = make()
        return self.values[name]

    def keep(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return the value of ``make()``, computed only where ``key`` is not that of the last call
        with this name.
        """
        if name not in self.kept or self.kept[name][0] != key:
            self.kept[name] = key, make()
        return self.kept[name][1]

    def expire(self) -> None:
        """Forget what was derived from the weights."""
        self.values.clear()
        for part in self.parts.values():
            part.expire()

    @property
    def nbytes(self) -> int:
        """Bytes held by the buffers."""
        return sum(array.nbytes for array in self.buffers.values())
