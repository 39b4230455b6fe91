"""What all readers share: the protocol, the index check, and errors that name file and event."""

import operator
import struct
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from ..axes import PLAIN
from ..event import EventError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: What damaged files make h5py, numpy and zipfile raise.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    RuntimeError,
    EOFError,
    MemoryError,
    OverflowError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error)


@contextmanager
def naming(where):
    """Turn every failure inside into an EventError whose message starts with ``where``, a file and
    an event.
    """
    try:
        yield
    except EventError:
        raise
    except DAMAGE as error:
        reason = (error.args[0] if isinstance(error, KeyError) and error.args else error) or type(
            error
        ).__name__
        hint = "; the file is damaged, copy or make it again" if isinstance(error, BROKEN) else ""
        raise EventError(f"{where}: {reason}{hint}") from error


def is_hdf5(path):
    """Tell whether ``path`` is a file that begins as HDF5 does (it may still be truncated)."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(8) == HDF5_SIGNATURE


def open_hdf5(path):
    """Open an HDF5 file for reading; EventError where it is missing, truncated or damaged."""
    import h5py

    try:
        return h5py.File(path, "r")
    except DAMAGE as error:
        raise EventError(
            f"{path}: this HDF5 file cannot be opened, it is truncated or damaged ({error}); "
            "copy or make it again"
        ) from error


class Reader:
    """Events of one file or folder, read one at a time.

    path; class_names (tuple of str); image_shape (H, W, C); labels int32 (n,), -1 unknown; axes:
    what rows and columns are, two of data.axes.Axis; unit: of the pixels' values, "" where it is
    not known. A subclass sets these and writes ``recognizes(path)``, static and cheap, and
    ``_read(i) -> Event``. ``recognizes`` returns a bool and looks at the content, not the name; it
    raises EventError for a file of the right container that is damaged.
    """

    name = "?"
    class_names = ()
    axes, unit = PLAIN, ""
    concurrent = False  # whether several threads may read at once

    def __len__(self):
        return len(self.labels)

    def read(self, i):
        """Return event ``i`` as an Event; EventError naming file and event where it is damaged."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.path} has events 0 to {len(self) - 1}, asked for {i}")
        with naming(f"{self.path}, event {i}"):
            return self._read(i)

    def __iter__(self):
        return (self.read(i) for i in range(len(self)))

    def close(self):
        """Give the file back; reading is over."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
