"""What tests of larcv2 ROOT files read: an object that answers as uproot does, entry by entry,
since uproot cannot write the nested vectors of these files. Branches and bytes are those of a file
that larcv2 itself wrote with ROOT 6.40.
"""

import struct
import sys
from types import SimpleNamespace

import numpy as np


class Branch:
    """One branch: ``array(entry_start, entry_stop)`` as uproot's; remembers the largest request."""

    largest = 0

    def __init__(self, values):
        self.values = values

    def array(self, interpretation=None, *, entry_start, entry_stop, library="ak"):
        Branch.largest = max(Branch.largest, entry_stop - entry_start)
        return self.values[entry_start:entry_stop]


class Tree:
    def __init__(self, name, branches):
        self.name, self.branches = name, {key: Branch(values) for key, values in branches.items()}
        self.num_entries = len(next(iter(branches.values())))

    def keys(self):
        return list(self.branches)

    def __getitem__(self, key):
        return self.branches[key]


def image_tree(events, name="data", shape=True):
    """events: lists of planes, each an array [wire, tick], stored flat as column * rows + row (a
    column is a wire).
    """
    top = f"image2d_{name}_branch"
    image = f"{top}/_image_v/_image_v."
    branches = {
        f"{top}/_run": [7] * len(events),
        f"{top}/_subrun": [8] * len(events),
        f"{top}/_event": list(range(len(events))),
        image + "_img": [[plane.ravel().tolist() for plane in planes] for planes in events],
    }
    if shape:
        branches |= {
            image + f"_meta._{axis}_count": [
                [plane.shape[k] for plane in planes] for planes in events
            ]
            for k, axis in enumerate(("col", "row"))
        }
    return {f"image2d_{name}_tree": Tree(f"image2d_{name}_tree", branches)}


def memberwise(planes):
    """Bytes of an entry of _tensor_v._voxel_v as ROOT writes them: of each plane all ids, then all
    values.
    """
    content = struct.pack(">HHI", 0x400A, 0, 0x7A384FDA)
    for lit in planes:
        content += struct.pack(f">I{len(lit)}Q{len(lit)}f", len(lit), *lit, *lit.values())
    content = struct.pack(">I", 0x40000000 | len(content)) + content
    return np.frombuffer(content, np.uint8)


def tensor2d_tree(events, shape=(4, 6), name="wire"):
    """events: lists of planes, each {wire * ticks + tick: value}."""
    top = f"sparse2d_{name}_branch"
    tensor = f"{top}/_tensor_v/_tensor_v."
    branches = {f"{top}/larcv::EventBase/_{key}": [7] * len(events) for key in ("run", "subrun")}
    branches[f"{top}/larcv::EventBase/_event"] = list(range(len(events)))
    branches[tensor + "_voxel_v"] = [memberwise(planes) for planes in events]
    for axis, count in zip(("col", "row"), shape):
        branches[tensor + f"_meta._{axis}_count"] = [[count] * len(planes) for planes in events]
    return {f"sparse2d_{name}_tree": Tree(f"sparse2d_{name}_tree", branches)}


VOLUME = (10, 20, 30)


def tensor3d_branches(events, unit=1):
    """Branches of 3-D tensors by their own names; events: {(x, y, z): value}, in VOLUME."""
    nx, ny, _ = VOLUME
    columns = {
        "_voxel_v._id": [[(z * ny + y) * nx + x for x, y, z in event] for event in events],
        "_voxel_v._value": [list(event.values()) for event in events],
        "_meta._unit": [unit] * len(events),
        **{key: [7] * len(events) for key in ("_run", "_subrun", "_event")},
    }
    for axis, count, corner in zip("xyz", VOLUME, (-10, -20, 0)):
        columns[f"_meta._{axis}num"] = [count] * len(events)
        columns[f"_meta._{axis}len"] = [2.0] * len(events)
        columns[f"_meta._p1.{axis}"] = [float(corner)] * len(events)
    return columns


def tensor3d_tree(events, name="pcluster", **options):
    top = f"sparse3d_{name}_branch/larcv::SparseTensor3D/"
    branches = {top + key: column for key, column in tensor3d_branches(events, **options).items()}
    return {f"sparse3d_{name}_tree": Tree(f"sparse3d_{name}_tree", branches)}


def particle_tree(events, name="mctruth"):
    keys = (
        "pdg",
        "px",
        "py",
        "pz",
        "trackid",
        "parent_trackid",
        "process",
        *(f"{point}._{axis}" for point in ("vtx", "end_pt") for axis in "xyz"),
    )
    start = {"process": "primary", "parent_trackid": 0, "vtx._x": 1, "vtx._y": 2, "vtx._z": 3}
    columns = {
        key: [[p.get(key, start.get(key, 0)) for p in event] for event in events] for key in keys
    }
    branches = {
        f"particle_{name}_branch/_part_v/_part_v._{key}": column for key, column in columns.items()
    }
    return {f"particle_{name}_tree": Tree(f"particle_{name}_tree", branches)}


class File(dict):
    def keys(self):
        return [key + ";1" for key in super().keys()]

    def close(self):
        pass


def fake_uproot(file):
    return SimpleNamespace(open=lambda path: file, AsJagged=tuple, AsDtype=tuple)


def plane(shape, **lit):
    image = np.zeros(shape, np.float32)
    for at, value in lit.items():
        image[tuple(map(int, at[1:].split("_")))] = value
    return image


def rooted(tmp_path, monkeypatch):
    """Return a function that makes a "ROOT file" of some trees, and its path."""

    def make(*trees):
        file = File()
        for tree in trees:
            file.update(tree)
        monkeypatch.setitem(sys.modules, "uproot", fake_uproot(file))
        path = tmp_path / "a.root"
        path.write_bytes(b"root\0\0\0\0 and more")
        return path

    return make


def pixels(event):
    return {
        tuple(at): value.tolist()
        for at, value in zip(event.image.coords.tolist(), event.image.values)
    }
