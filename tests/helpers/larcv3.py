"""What tests of larcv3 read: HDF5 files in its exact layout, with known pixels and particles."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

EXTENTS = np.dtype({"names": ["first", "N"], "formats": ["<u8", "<u4"], "itemsize": 16})
ID_EXTENTS = np.dtype([("first", "<u8"), ("N", "<u4"), ("ID", "<u4")])
META = np.dtype(
    {
        "names": ["valid", "projection_id", "image_sizes", "number_of_voxels", "origin"],
        "formats": ["u1", "<u8", ("<f8", 2), ("<u8", 2), ("<f8", 2)],
        "offsets": [0, 8, 16, 32, 48],
        "itemsize": 72,
    }
)
VOXEL = np.dtype({"names": ["id", "value"], "formats": ["<u8", "<f4"], "itemsize": 16})
VERTEX = [(axis, "<f8") for axis in "xyzt"]
PARTICLE = np.dtype(
    [
        ("id", "<u2"),
        ("mcst_index", "<u2"),
        ("mct_index", "<u2"),
        ("shape", "<i4"),
        ("current_type", "<i2"),
        ("interaction_type", "<i2"),
        ("trackid", "<u4"),
        ("pdg", "<i4"),
        ("px", "<f8"),
        ("py", "<f8"),
        ("pz", "<f8"),
        ("vtx", VERTEX),
        ("end_pt", VERTEX),
        ("first_step", VERTEX),
        ("last_step", VERTEX),
        ("dist_travel", "<f8"),
        ("energy_init", "<f8"),
        ("energy_deposit", "<f8"),
        ("process", "S64"),
        ("parent_trackid", "<u4"),
        ("parent_pdg", "<i4"),
        ("parent_vtx", VERTEX),
        ("ancestor_trackid", "<u4"),
        ("ancestor_pdg", "<i4"),
        ("ancestor_vtx", VERTEX),
    ],
    align=True,
)
#: pdg, track, parent, pz (GeV/c), process
MUON, PROTON, MICHEL = (
    (13, 1, 0, 0.5, b"primary"),
    (2212, 2, 0, 0.3, b"primary"),
    (-11, 3, 1, 0.04, b"Decay"),
)
SHAPES = {0: (6, 5), 1: (6, 5), 2: (8, 5)}
#: (run, subrun, event), {projection: {(wire, tick): value}}, particles
EVENTS = [
    (
        (1, 2, 3),
        {0: {(0, 0): 7}, 1: {(5, 4): 8}, 2: {(7, 4): 9.5, (2, 3): 1.5}},
        [PROTON, MUON, MICHEL],
    ),
    ((1, 2, 4), {0: {}, 1: {}, 2: {}}, []),
    ((1, 2, 5), {0: {(1, 1): 2}, 1: {}, 2: {(0, 0): 3, (0, 1): -4}}, [(11, 4, 4, 0.2, b"")]),
]


def write_larcv3(path, events, kind="sparse2d", producers=("wire",), particles=True):
    def create(group, name, values, dtype):
        group.create_dataset(
            name, data=np.array(values, dtype), maxshape=(None,), chunks=(100,), compression=1
        )

    with h5py.File(path, "w") as file:
        create(
            file,
            "Events/event_id",
            [event[0] for event in events],
            [("run", "<i8"), ("subrun", "<i8"), ("event", "<i8")],
        )
        for producer in producers:
            group = file.create_group(f"Data/{kind}_{producer}_group")
            extents, rows, meta, pixels = [], [], [], []
            for _, planes, _ in events:
                extents.append((len(rows), len(planes)))
                for plane, lit in planes.items():
                    ticks = SHAPES[plane][1]
                    if kind == "sparse2d":
                        new = sorted(
                            (wire * ticks + tick, value) for (wire, tick), value in lit.items()
                        )
                    else:
                        image = np.zeros(SHAPES[plane], "f4")
                        for at, value in lit.items():
                            image[at] = value
                        new = image.ravel().tolist()
                    rows.append((len(pixels), len(new), plane))
                    meta.append((1, plane, SHAPES[plane], SHAPES[plane], (0, 0)))
                    pixels += new
            create(group, "extents", extents, EXTENTS)
            create(
                group, "voxel_extents" if kind == "sparse2d" else "image_extents", rows, ID_EXTENTS
            )
            create(group, "image_meta", meta, META)
            create(
                group,
                "voxels" if kind == "sparse2d" else "images",
                pixels,
                VOXEL if kind == "sparse2d" else "<f4",
            )
        if particles:
            group = file.create_group("Data/particle_truth_group")
            counts = [len(event[2]) for event in events]
            create(group, "extents", list(zip(np.cumsum([0, *counts]), counts)), EXTENTS)
            table = np.zeros(sum(counts), PARTICLE)
            for k, (pdg, track, parent, pz, process) in enumerate(
                p for event in events for p in event[2]
            ):
                for name, value in (
                    ("pdg", pdg),
                    ("trackid", track),
                    ("parent_trackid", parent),
                    ("pz", pz),
                    ("process", process),
                    ("vtx", (1, 2, 3, 4)),
                    ("end_pt", (5, 6, 7, 8)),
                ):
                    table[k][name] = value
            create(group, "particles", table, PARTICLE)
    return path


def pixels(event):
    return {
        tuple(at): value.tolist()
        for at, value in zip(event.image.coords.tolist(), event.image.values)
    }


#: (nx, ny, nz), cm of an edge and the corner; {(x, y, z): value} of each event
VOLUME, EDGE, CORNER = (10, 20, 30), 2.0, (-10, -20, 0)
TENSORS = [{(1, 2, 3): 0.5, (1, 7, 3): 0.25, (9, 19, 29): 2}, {}, {(0, 0, 5): 1}]
META_3D = np.dtype(
    {
        "names": ["valid", "projection_id", "image_sizes", "number_of_voxels", "origin"],
        "formats": ["u1", "<u8", ("<f8", 3), ("<u8", 3), ("<f8", 3)],
        "offsets": [0, 8, 16, 40, 64],
        "itemsize": 96,
    }
)


def write_tensors(path, tensors=TENSORS, name="pcluster", mode="w"):
    """A file of 3-D tensors; or one more product of a file that is there (mode "r+")."""
    rows, extents, meta, voxels = [], [], [], []
    for k, tensor in enumerate(tensors):
        new = sorted((int(np.ravel_multi_index(at, VOLUME)), v) for at, v in tensor.items())
        extents.append((k, 1))
        rows.append((len(voxels), len(new), 0))
        meta.append((1, 0, np.multiply(VOLUME, EDGE), VOLUME, CORNER))
        voxels += new
    with h5py.File(path, mode) as file:
        if mode == "w":
            ids = [("run", "<i8"), ("subrun", "<i8"), ("event", "<i8")]
            file["Events/event_id"] = np.array([(1, 2, k) for k in range(len(tensors))], ids)
        group = file.create_group(f"Data/sparse3d_{name}_group")
        group["extents"], group["image_meta"] = np.array(extents, EXTENTS), np.array(meta, META_3D)
        group["voxel_extents"] = np.array(rows, ID_EXTENTS)
        group["voxels"] = np.array(voxels, VOXEL)
    return path
