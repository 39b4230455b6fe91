"""What all readers share: the protocol, the index check, and errors that name file and event."""

from __future__ import annotations

import lzma
import math
import operator
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.types import Shape
from ..axes import PLAIN, Axis
from ..event import Event, EventError
from .placement import canvas_edge

#: What the system says of a disk or network that failed while a file was read.
BROKEN_STORAGE = {5, 121}
#: What says that bytes are missing or are others.
BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
#: What readers raise themselves, and whose message stands for itself.
SAID = (OSError, ValueError, KeyError, RuntimeError, MemoryError)
#: Most values of one image, all channels together.
MOST_VALUES = 1 << 30


@contextmanager
def naming(where: Any) -> Iterator[None]:
    """Turn every failure inside into an EventError whose message starts with ``where``, a file and
    an event: the one boundary of what damaged files make other libraries raise.
    """
    try:
        yield
    except EventError:
        raise
    except Exception as error:
        raise EventError(f"{where}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return what a failure is called, and what to do about it."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # no quotes
    reason = " ".join(str(text).split()) or type(error).__name__
    if getattr(error, "errno", None) in BROKEN_STORAGE:
        return f"{reason}; the disk or the network failed, the file may be whole: read it again"
    if isinstance(error, BROKEN):
        return f"{reason}; the file is damaged, copy or make it again"
    if isinstance(error, SAID):
        return reason
    return f"{type(error).__name__}: {reason}; the file is damaged, or not of the format it seems"


class Reader:
    """Events of one file or folder, read one at a time.

    path; class_names (tuple of str); image_shape (H, W, C); labels int32 (n,), -1 unknown; axes:
    what rows and columns are, two of data.axes.Axis; unit: of the pixels' values, "" where it is
    not known. A subclass sets these and writes ``recognizes(path)``, static and cheap, and
    ``_read(i) -> Event``. ``recognizes`` returns a bool and looks at the content, not the name; it
    raises EventError for a file of the right container that is damaged. Where one file stays open,
    the subclass hands it to ``_begin``; ``close`` and the error of a closed file come from here.
    """

    name = "?"
    path: Path
    labels: np.ndarray
    image_shape: Shape
    class_names: tuple[str, ...] = ()
    axes: Sequence[Axis] = PLAIN
    unit = ""
    concurrent = False  # whether several threads may read at once
    #: The open file, an object with ``close``; None before, after, and where each event has its
    #: own.
    _file: Any = None
    _is_closed = False
    #: Edge of the square that images are centred on, 0 where they stay as they are, and the edge to
    #: which it is summed.
    _edge = 0
    _size: int | None = None

    def _begin(self, file: Any, prepare: Callable[..., None], *arguments: Any) -> None:
        """Keep the open ``file`` and call prepare(*arguments), which looks at its content; where
        that fails the file is closed, and the error names it.
        """
        self._file = file
        try:
            with naming(self.path):
                prepare(*arguments)
        except BaseException:
            self.close()
            raise

    def _set_canvas(self, shape: Sequence[int], size: int | None, channels: int) -> None:
        """Set ``image_shape`` for images up to ``shape`` that are centred on a square and summed to
        ``size`` (see placement.place); ``_edge``: that of the square.
        """
        edge = canvas_edge(shape, size)
        check_values((edge, edge, channels))
        self._edge, self._size = edge, size
        self.image_shape = (size or edge, size or edge, channels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        return f"{type(self).__name__}({str(self.path)!r}, {len(self):,} events of {shape})"

    def read(self, index: int) -> Event:
        """Return event ``index``; EventError naming file and event where it is damaged."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has events 0 to {len(self) - 1}, asked for {index}")
        with naming(f"{self.path}, event {index}"):
            if self._is_closed:
                raise ValueError("the file is closed")
            return self._read(index)

    def _read(self, index: int) -> Event:
        raise NotImplementedError(f"{type(self).__name__}._read")

    def __iter__(self) -> Iterator[Event]:
        return (self.read(i) for i in range(len(self)))

    def close(self) -> None:
        """Give the file back; reading is over."""
        if self._file is not None:
            self._file.close()
            self._file, self._is_closed = None, True

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def check_values(shape: Sequence[int]) -> None:
    """Raise ValueError where an image of ``shape`` (H, W, C) has no pixel, or more values than are
    read.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"an image is (height, width, channels) of at least 1, got {shape}")
    if math.prod(shape) > MOST_VALUES:
        raise ValueError(f"images of {shape} have more than {MOST_VALUES:,} values")
