"""Arrays of many .npy files in one container: a folder, a zip (.npz) or a tar, plain or packed by
gzip or bzip2. Nothing is unpacked to a disk, and what a container claims is held against what it
can hold before memory is taken.

    with Archive(path) as archive:
        for name, size, file in archive.members():      # in order; file is read from
            ...
        data = archive.read(name)

A tar is one stream: going back in a packed one means unpacking from its beginning.
"""

from __future__ import annotations

import bz2
import gzip
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

#: Most bytes of one member, most members of a container.
MOST_BYTES, MOST_MEMBERS = 1 << 30, 100_000
#: Most bytes that are unpacked of a byte, beside so many of any file: images are mostly 0.
SHRINKS_AT_MOST, IN_ANY_FILE = 5000, 1 << 32
#: Bytes of a tar's header, where its magic is, and bytes that are read at a time.
BLOCK, MAGIC, PIECE = 512, slice(257, 262), 1 << 20
#: Types of members of a tar that are files.
FILES = (b"0", b"\0")


def kind_of(path: str | Path) -> str:
    """Return "folder", "zip", "tar", "gzip", "bzip2", or "" for anything else, by its content."""
    if Path(path).is_dir():
        return "folder"
    with open(path, "rb") as file:
        start = file.read(BLOCK)
    if start[:4] == b"PK\3\4":
        return "zip"
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    if start[:3] == b"BZh":
        return "bzip2"
    return "tar" if start[MAGIC] == b"ustar" else ""


class Archive:
    """The .npy files of a container by their names without folders and ending, opened for reading.

    Links, devices and hidden files are no members. Raises ValueError for two members of one name,
    and where one is larger than ``MOST_BYTES`` or the whole is than what its bytes can hold.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.kind = Path(path), kind_of(path)
        self._places: dict[str, Any] = {}
        self._file: Any = None
        if self.kind == "zip":
            self._file = zipfile.ZipFile(self.path)
        elif self.kind == "gzip":
            self._file = gzip.open(self.path, "rb")
        elif self.kind == "bzip2":
            self._file = bz2.open(self.path, "rb")
        elif self.kind == "tar":
            self._file = open(self.path, "rb")
        elif self.kind != "folder":
            raise ValueError("is no folder, zip or tar of arrays")

    def members(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        """Yield (name, size in bytes, file that stands at its first byte) of each member."""
        self._places.clear()
        walks = {"folder": self._of_folder, "zip": self._of_zip}
        for place, size, file in walks.get(self.kind, self._of_tar)():
            name = _name(place[0])
            if not name:
                continue
            if name in self._places:
                raise ValueError(f"holds the array {name} twice")
            if size > MOST_BYTES:
                raise ValueError(
                    f"{name} claims {size:,} bytes; arrays of up to {MOST_BYTES:,} are read"
                )
            self._places[name] = (*place[1:], size)
            yield name, size, file

    def first_names(self) -> list[str]:
        """Return the names of the members, of a tar of the first alone: they are to tell what the
        container is.
        """
        if self.kind == "folder":
            return list(filter(None, (_name(path.name) for path in self.path.iterdir())))
        if self.kind == "zip":
            return list(filter(None, map(_name, self._file.namelist())))
        if self._file.read(BLOCK)[MAGIC] != b"ustar":
            return []
        return [name for name, _, _ in islice(self.members(), 1)]

    def read(self, name: str) -> bytes:
        """Return the bytes of a member that ``members`` has yielded."""
        *place, size = self._places[name]
        if self.kind == "folder":
            with open(place[0], "rb") as file:
                data = file.read(size)
        elif self.kind == "zip":
            with self._file.open(place[0]) as file:
                data = file.read(size)
                file.read(1)  # the end is where the checksum is compared
        else:
            self._file.seek(place[0])
            data = self._file.read(size)
        if len(data) != size:
            raise ValueError(f"{name} ends after {len(data):,} of {size:,} bytes; it is damaged")
        return data

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _of_folder(self):
        for number, path in enumerate(sorted(self.path.iterdir())):
            _count(number)
            if path.is_file() and _name(path.name):
                with open(path, "rb") as file:
                    yield (path.name, path), path.stat().st_size, file

    def _of_zip(self):
        unpacked = 0
        for number, member in enumerate(self._file.infolist()):
            _count(number)
            unpacked += member.file_size
            self._hold(unpacked)
            if _name(member.filename):
                with self._file.open(member) as file:
                    yield (member.filename, member), member.file_size, file

    def _of_tar(self):
        offset, number = 0, 0
        while True:
            self._file.seek(offset)
            header = self._file.read(BLOCK)
            if not header.strip(b"\0"):  # the end of the tar
                while rest := self._file.read(PIECE):  # that of the file has the checksum
                    offset += len(rest)
                    self._hold(offset)
                return
            name, kind, size = _tar_header(header, offset)
            _count(number)
            first = offset + BLOCK
            self._hold(first + size)
            offset = first + -(-size // BLOCK) * BLOCK
            number += 1
            if kind in FILES:
                yield (name, first), size, self._file

    def _hold(self, unpacked):
        """Raise ValueError where the file cannot hold so many bytes of members."""
        packed = self.path.stat().st_size
        possible = packed if self.kind == "tar" else SHRINKS_AT_MOST * packed + IN_ANY_FILE
        if unpacked > possible:
            raise ValueError(
                f"claims {unpacked:,} bytes of arrays, in a file of {packed:,}; it is damaged"
            )


def _count(number):
    if number >= MOST_MEMBERS:
        raise ValueError(f"has more than {MOST_MEMBERS:,} members: no file of events")


def _name(path):
    """Name of the array in a member, "" where it is none."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return name.removesuffix(".npy") if name.endswith(".npy") and name[0] != "." else ""


def _tar_header(header, offset):
    """(name, type, size) of a member; ValueError where its checksum is another one."""
    fields = header[:100], header[124:136], header[148:156]
    name, size, checksum = (field.split(b"\0")[0].strip() for field in fields)
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    octal = all(field.isdigit() and not set(field) & set(b"89") for field in (size, checksum))
    if len(header) != BLOCK or not octal or int(checksum, 8) != total:
        raise ValueError(
            f"the tar header at byte {offset:,} is damaged; copy or make the file again"
        )
    return name.decode(errors="replace"), header[156:157], int(size, 8)
