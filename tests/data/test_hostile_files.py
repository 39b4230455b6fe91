"""Files that lie or attack: no other file is read, nothing hangs, no memory is taken for a claim,
and every fault is an EventError that names the file.
"""

import io
import lzma
import os
import resource
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from helpers.cli import make_events
from minicnn.data import EventError, open_events

h5py = pytest.importorskip("h5py")


def refused(path, match, **options):
    """The file is an EventError that names it, at once and without memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EventError, match=match) as caught:
        with open_events(path, **options) as reader:
            for event in reader:
                assert event.image.nnz >= 0
    assert path.name in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def put(file, name, data, **options):
    del file[name]
    file.create_dataset(name, data=data, **options)


def claim(name, rows, columns, kind):
    """Replace a dataset by one that claims rows of which no chunk is stored."""

    def change(file):
        del file[name]
        shape = (rows, *columns)
        file.create_dataset(name, shape, kind, chunks=(4096, *columns), compression="gzip")

    return change


def external(name, other):
    def change(file):
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        place = [(str(other), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, shape, kind, external=place)

    return change


def virtual(name, other, shape=None):
    def change(file):
        there = file[name].shape
        del file[name]
        layout = h5py.VirtualLayout(there, "f4")
        layout[...] = h5py.VirtualSource(str(other), name, there)
        file.create_virtual_dataset(name, layout)

    return change


def endless(name, other):
    """A virtual dataset of unlimited extent: HDF5 looks into the other file to know its length."""

    def change(file):
        del file[name]
        space = h5py.h5s.create_simple((1, 1), (h5py.h5s.UNLIMITED, 1))
        space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (1, 1), (1, 1))
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_virtual(space, str(other).encode(), name.encode(), space)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, settings)

    return change


def linked(name, other):
    def change(file):
        del file[name]
        file[name] = h5py.ExternalLink(str(other), "/" + name)

    return change


@pytest.fixture
def private(tmp_path):
    """Another file of the user, a pipe, and a private HDF5 file."""
    (tmp_path / "secret").write_bytes(np.arange(1000, dtype="f4").tobytes())
    os.mkfifo(tmp_path / "pipe")
    shutil.copy(make_events(tmp_path / "m.h5"), tmp_path / "other.h5")
    return tmp_path


@pytest.mark.parametrize("name", ["pixels/values", "events/label", "particles/table"])
@pytest.mark.parametrize("other", ["secret", "pipe", "other.h5"])
def test_no_other_file_is_read(private, name, other):
    ways = [external(name, private / other), linked(name, private / other)]
    if name == "pixels/values":
        ways += [virtual(name, private / other), endless(name, private / other)]
    for way in ways:
        shutil.copy(private / "other.h5", private / "e.h5")
        with h5py.File(private / "e.h5", "r+") as file:
            way(file)
        refused(private / "e.h5", "other file|another file")


def test_other_formats_read_no_other_file_either(private):
    for names, kinds in (
        (("coordinates", "charge", "start_indices", "end_indices", "labels"), "i2 f2 i8 i8 i4"),
        (("point", "cluster"), "f4 f4"),
    ):
        with h5py.File(private / "p.h5", "w") as file:
            for name, kind in zip(names, kinds.split()):
                place = [(str(private / "secret"), 0, h5py.h5f.UNLIMITED)]
                file.create_dataset(name, (4,), kind, external=place)
        refused(private / "p.h5", "other files")


def test_links_within_a_file_are_fine(private):
    with h5py.File(private / "m.h5", "r+") as file:
        file["again"] = h5py.SoftLink("/pixels/values")
        file["events/loop"] = file["/"]
        file["lost"] = h5py.SoftLink("/nothing")
    with open_events(private / "m.h5") as reader:
        assert len(list(reader)) == 6


CLAIMS = {
    "10^9 labels": claim("events/label", 10**9, (), "i4"),
    "10^12 labels": claim("events/label", 10**12, (), "i4"),
    "an event of 10^9 pixels": claim("pixels/coords", 10**9, (2,), "i4"),
    "a group for labels": lambda f: (f.__delitem__("events/label"), f.create_group("events/label")),
    "empty labels": lambda f: put(f, "events/label", h5py.Empty("i4")),
    "a scalar of labels": lambda f: put(f, "events/label", np.int32(0)),
    "a chunk of 2 GB": lambda f: (
        f.__delitem__("pixels/values"),
        f.create_dataset("pixels/values", (21, 1), "f4", chunks=(5 * 10**8, 1), maxshape=(None, 1)),
    ),
    "an image of no pixel": lambda f: f.attrs.__setitem__("image_shape", np.array([0, 0, 1])),
    "an image of 10^18 pixels": lambda f: f.attrs.__setitem__(
        "image_shape", np.array([10**9, 10**9, 1])
    ),
    "an image of two numbers": lambda f: f.attrs.__setitem__("image_shape", np.array([40, 40])),
    "a list for metadata": lambda f: f.attrs.__setitem__("metadata", "[]"),
    "nested metadata": lambda f: f.attrs.__setitem__("metadata", "[" * 30_000),
    "a number for axes": lambda f: f.attrs.__setitem__("metadata", '{"axes": 5}'),
    "an array of versions": lambda f: f.attrs.__setitem__("version", np.array([1, 2])),
    "text for the background": lambda f: f.attrs.__setitem__("background", "x"),
    "a parent outside": lambda f: f["particles/table"].__setitem__(
        0, np.array((13, 77, [0] * 3, [0] * 3, [0] * 3), f["particles/table"].dtype)
    ),
}


@pytest.mark.parametrize("fault", CLAIMS)
def test_claims_are_refused(tmp_path, fault):
    make_events(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        CLAIMS[fault](file)
    refused(tmp_path / "m.h5", "m.h5")


def test_chunks_that_were_never_stored_are_no_zeros(tmp_path):
    """What a full disk leaves: the dataset has its rows, a chunk of them is not there."""
    make_events(tmp_path / "m.h5", 200, shape=(200, 200, 1))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        values = file["pixels/values"]
        rows, chunk = len(values), values.chunks[0]
        kept = values[: rows - rows % chunk]
        del file["pixels/values"]
        new = file.create_dataset("pixels/values", (rows, 1), "f4", chunks=(chunk, 1), fletcher32=1)
        new[: len(kept)] = kept
    refused(tmp_path / "m.h5", "chunks were stored: the disk was full")


def test_pipes_and_devices_are_no_input(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    refused(tmp_path / "pipe.h5", "neither a regular file nor a folder")


def test_remedies_fit_the_fault(tmp_path):
    path = make_events(tmp_path / "m.h5")
    code = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.flock(f, fcntl.LOCK_EX); "
    code += "print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    refused(path, "another process has this HDF5 file open")
    holder.communicate(b"\n")
    open_events(path).close()
    path = make_events(tmp_path / "z.h5")
    with h5py.File(path, "r+") as file:
        shape = file["pixels/values"].shape
        del file["pixels/values"]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((16384, 1))
        settings.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED, 1))
        new = h5py.h5d.create(file.id, b"pixels/values", h5py.h5t.IEEE_F32LE, space, settings)
        new.write_direct_chunk((0, 0), bytes(100), 0)
    refused(path, "filter 32099, which is not here: pip install hdf5plugin")


def test_numpy_files_that_lie(tmp_path):
    image = np.arange(120 * 160, dtype=np.float32).reshape(120, 160)
    path = tmp_path / "a.npz"
    np.savez(path, img=image)
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"(120, 160)", b"(120, 16) "))
    refused(path, "but 76,800 follow")
    path.write_bytes(sound.replace(b"(120, 160)", b"(999, 999)"))
    refused(path, "which is 3,992,004 bytes")
    np.save(tmp_path / "b.npy", image)
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-4])
    refused(tmp_path / "b.npy", "76,796 follow")
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (17_000, 17_000)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("img.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(289):
                member.write(bytes(10**6))
    refused(path, "more than 268,435,456 values")


def test_a_damaged_lzma_member_is_an_event_error(tmp_path):
    path = tmp_path / "a.npz"
    array = io.BytesIO()
    np.save(array, np.ones((40, 1200), np.uint16))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("img.npy", array.getvalue())
    damaged = bytearray(path.read_bytes())
    damaged[60:90] = bytes(30)
    path.write_bytes(damaged)
    with pytest.raises(EventError, match=r"a\.npz") as caught:
        open_events(path)
    assert isinstance(caught.value.__cause__, lzma.LZMAError)


def test_sizes_of_clusters_that_overflow(tmp_path):
    """Four of 2^62 and one of 4 add up to 4 in 64 bits; numpy's repeat died of that."""
    with h5py.File(tmp_path / "p.h5", "w") as file:
        kind = h5py.vlen_dtype(np.float64)
        point, cluster = (file.create_dataset(name, (1,), kind) for name in ("point", "cluster"))
        point[0] = np.ones(4 * 8)
        sizes = [2.0**62] * 4 + [4.0]
        cluster[0] = np.array([[size, 0, 0, 0, 1] for size in sizes]).ravel()
    refused(tmp_path / "p.h5", "event 0: has 4 points")
