"""larcv3 HDF5, 3-D tensors: projections, and semantic classes as labels of pixels."""

import pytest

from helpers.larcv3 import EVENTS, pixels, write_larcv3, write_tensors
from minicnn.data.event import EventError
from minicnn.data.readers import open_events

h5py = pytest.importorskip("h5py")


def test_tensors_are_projected(tmp_path):
    path = write_tensors(tmp_path / "a.h5")
    with open_events(path) as reader:
        assert reader.planes == ("zx",) and reader.image_shape == (30, 30, 1)
        first, second, third = reader
        z, x = reader.axes
        assert (z.step, z.start, x.step, x.start) == (2, 0, 2, -10 - 10 * 2)
    # 10 voxels along x are centred on 30; values behind each other are added up
    assert pixels(first) == {(3, 11): [0.75], (29, 19): [2]} and first.id == (1, 2, 0)
    assert pixels(second) == {} and pixels(third) == {(5, 10): [1]}
    with open_events(path, planes=(1, "zy"), size=10, threshold=0.4) as reader:
        found = {(2, 3): [0.5, 0], (8, 6): [2, 0], (1, 2): [0, 0.5], (9, 8): [0, 2]}
        assert pixels(reader.read(0)) == found
    with pytest.raises(EventError, match="a plane is 0, 1, 2 or two of x, y, z"):
        open_events(path, planes=("zz",))
    write_tensors(path, name="pcluster_semantics", mode="r+")
    assert open_events(path).producer == "sparse3d_pcluster"
    write_larcv3(tmp_path / "b.h5", EVENTS)
    write_tensors(tmp_path / "b.h5", mode="r+")
    assert open_events(tmp_path / "b.h5").producer == "sparse2d_wire"
    assert open_events(tmp_path / "b.h5", producer="pcluster").planes == ("zx",)


SEMANTICS = [{(1, 2, 3): 1, (1, 7, 3): 2, (9, 19, 29): 4, (5, 5, 5): 0}, {}, {(0, 0, 4): 0}]


def labelled(event):
    return dict(zip(map(tuple, event.image.coords.tolist()), event.pixel_labels.tolist()))


def test_semantic_classes_are_labels_of_pixels(tmp_path):
    path = write_tensors(tmp_path / "a.h5")
    with pytest.raises(EventError, match="holds no semantic classes; choose by pixel_labels= one"):
        open_events(path, pixel_labels=True)
    assert open_events(path).read(0).pixel_labels is None
    write_tensors(path, SEMANTICS, "pcluster_semantics", mode="r+")
    for wanted in (True, "pcluster_semantics", "sparse3d_pcluster_semantics"):
        with open_events(path, pixel_labels=wanted) as reader:
            first, _, third = reader
        # A track of 0.5 before a Michel electron of 0.25; a deposit of low energy; no class
        assert labelled(first) == {(3, 11): 1, (29, 19): 255} and labelled(third) == {(5, 10): 255}
    with open_events(path, pixel_labels=True, planes=("zx", "yx"), threshold=0.4) as reader:
        # In zx the track and the electron are one pixel, in yx the electron is below the threshold
        found = labelled(reader.read(0))
        assert found == {(3, 11): 1, (29, 19): 255, (2 + 5, 11): 1, (19 + 5, 19): 255}
    with open_events(path, pixel_labels=True, size=10, planes=("yx",)) as reader:
        assert labelled(reader.read(0)) == {(1, 3): 1, (3, 3): 0, (9, 7): 255}
    with open_events(path, pixel_labels=True, size=1, planes=("yx",)) as reader:
        assert labelled(reader.read(0)) == {(0, 0): 1}  # of what is known in a block
    write_tensors(path, SEMANTICS, "ghost_semantics", mode="r+")
    with pytest.raises(EventError, match="several producers; choose by pixel_labels= one of"):
        open_events(path, pixel_labels=True, producer="pcluster")
    with pytest.raises(EventError, match="holds no semantic classes 'x'"):
        open_events(path, pixel_labels="x")
    write_larcv3(tmp_path / "b.h5", EVENTS)
    with pytest.raises(EventError, match=r"sparse2d_wire are 2-D images; .* \(there are none\)"):
        open_events(tmp_path / "b.h5", pixel_labels=True)


def test_wrong_semantic_classes_are_named(tmp_path):
    path = write_tensors(write_tensors(tmp_path / "a.h5"), SEMANTICS, "semantics", mode="r+")
    with h5py.File(path, "r+") as file:
        group = file["Data/sparse3d_semantics_group"]
        voxels, meta = group["voxels"][:], group["image_meta"][:]
        voxels["id"][1], meta["number_of_voxels"][2] = voxels["id"][0], (10, 20, 31)
        group["voxels"][:], group["image_meta"][:] = voxels, meta
    for number, message in ((0, "two semantic classes"), (2, r"\[10, 20, 31\] voxels, and charge")):
        with open_events(path, pixel_labels=True) as reader:
            assert reader.read(1).pixel_labels.size == 0
            with pytest.raises(EventError, match=rf"a\.h5, event {number}: .*{message}"):
                reader.read(number)
    write_tensors(path, SEMANTICS[:2], "short", mode="r+")
    with pytest.raises(EventError, match="3 event ids, but sparse3d_short has 2 events"):
        open_events(path, pixel_labels="short", producer="pcluster")


def test_bad_tensors_are_named(tmp_path):
    path = write_tensors(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group = file["Data/sparse3d_pcluster_group"]
        voxels, rows = group["voxels"][:], group["voxel_extents"][:]
        voxels["id"][0], rows["N"][2] = 6000, 9
        group["voxels"][:], group["voxel_extents"][:] = voxels, rows
    for number, message in (
        (0, "projection 0 has the pixel id 6000 in an image of 10 x 20 x 30"),
        (2, "projection 0 has 1 pixels, should have 9"),
    ):
        with open_events(path) as reader:
            assert reader.read(1).image.nnz == 0
            with pytest.raises(EventError, match=rf"a\.h5, event {number}: .*{message}"):
                reader.read(number)
