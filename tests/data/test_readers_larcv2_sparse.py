"""larcv2 ROOT files: sparse images and 3-D tensors, on an object that answers as uproot does
(tests/helpers/larcv2.py); 3-D tensors once more in a real ROOT file where uproot is installed
(the extra root)."""

import numpy as np
import pytest

from helpers.larcv2 import (
    image_tree,
    particle_tree,
    pixels,
    plane,
    rooted,
    tensor2d_tree,
    tensor3d_branches,
    tensor3d_tree,
)
from minicnn.data.event import EventError
from minicnn.data.readers import open_events

PARTICLES = [[dict(pdg=13, pz=0.5, trackid=1)], []]
TENSORS = [{(1, 2, 3): 0.5, (1, 7, 3): 0.25, (9, 19, 29): 2}, {}]


@pytest.fixture
def root(tmp_path, monkeypatch):
    return rooted(tmp_path, monkeypatch)


def test_sparse_images(root):
    events = [[{}, {23: 9.5, 8: 1.5}, {0: 1}], [{}, {}, {}]]
    path = root(tensor2d_tree(events), particle_tree(PARTICLES))
    with open_events(path, planes=(1, 2)) as reader:
        assert reader.image_shape == (6, 6, 2) and reader.labels.tolist() == [2, -1]
        first, second = reader
    # 4 wires centred on 6
    assert pixels(first) == {(4, 5): [9.5, 0], (2, 2): [1.5, 0], (1, 0): [0, 1]}
    assert pixels(second) == {} and second.id == (7, 7, 1)
    with open_events(path, threshold=2) as reader:
        assert reader.planes == (2,) and pixels(reader.read(0)) == {}


def test_tensors_are_projected(root):
    path = root(tensor3d_tree(TENSORS), particle_tree(PARTICLES))
    with open_events(path) as reader:
        assert reader.image_shape == (30, 30, 1) and reader.planes == ("zx",)
        assert reader.labels.tolist() == [2, -1]
        # 10 voxels along x are centred on 30
        assert pixels(reader.read(0)) == {(3, 11): [0.75], (29, 19): [2]}
        assert pixels(reader.read(1)) == {}
        z, x = reader.axes
        assert (z.length, z.cm, z.origin) == ("z", 2, 0) and x.origin == -10 - 10 * 2
    with open_events(path, planes=(1, "zy"), size=10, threshold=0.4) as reader:
        assert reader.planes == ("yx", "zy")
        # (2, 1), (7, 1), (19, 9) in yx of 20 x 10; (3, 2), (3, 7), (29, 19) in zy of 30 x 20
        found = {(2, 3): [0.5, 0], (8, 6): [2, 0], (1, 2): [0, 0.5], (9, 8): [0, 2]}
        assert pixels(reader.read(0)) == found
    with open_events(root(tensor3d_tree(TENSORS, unit=2))) as reader:  # wires and ticks
        assert reader.axes[0].cm == 0
    for planes in ((3,), ("zz",), ("zx", 0)):
        with pytest.raises(EventError, match=r"a plane is 0, 1, 2 or two of x, y, z"):
            open_events(path, planes=planes)


def test_semantic_classes_are_labels_of_pixels(root):
    """More of it in test_readers_larcv3_tensors.py: the arithmetic is the same."""
    classes = [{(1, 7, 3): 3, (1, 2, 3): 1, (9, 19, 29): 0}, {}]
    path = root(tensor3d_tree(TENSORS), tensor3d_tree(classes, "pcluster_semantics"))
    with open_events(path, pixel_labels=True, planes=("yx",)) as reader:
        first, second = reader
    assert first.image.coords.tolist() == [[2, 6], [7, 6], [19, 14]]
    assert first.pixel_labels.tolist() == [1, 0, 0] and second.pixel_labels.size == 0
    assert open_events(path).read(0).pixel_labels is None
    path = root(tensor3d_tree(TENSORS), tensor3d_tree(classes[:1], "pcluster_semantics"))
    with pytest.raises(EventError, match="pcluster_semantics has 1 entries for 2 events"):
        open_events(path, pixel_labels=True)


def test_which_images_are_read(root):
    trees = [
        tensor3d_tree(TENSORS),
        tensor3d_tree(TENSORS, "pcluster_semantics"),
        tensor2d_tree([[{1: 1}]] * 2),
        tensor2d_tree([[{2: 1}]] * 2, name="pcluster"),
    ]
    assert open_events(root(*trees[:2])).producer == "sparse3d_pcluster"
    assert open_events(root(*trees[:3])).producer == "sparse2d_wire"
    assert (
        open_events(root(*trees, image_tree([[plane((4, 6), p0_0=1)]] * 2))).producer
        == "image2d_data"
    )
    assert open_events(root(*trees), producer="sparse3d_pcluster").planes == ("zx",)
    for producer in ("pcluster", None):
        with pytest.raises(EventError, match="choose by producer= one of sparse2d_pcluster, spars"):
            open_events(root(*trees), producer=producer)


def test_bad_voxels_are_named(root):
    short = tensor2d_tree([[{1: 1.0}], [{1: 1.0}]])
    (tree,) = short.values()
    content = tree["sparse2d_wire_branch/_tensor_v/_tensor_v._voxel_v"].values
    content[1] = content[1][:-2]
    outside = tensor2d_tree([[{1: 1.0}], [{24: 1.0}]])
    unequal = tensor2d_tree([[{1: 1.0}], [{1: 1.0}]])
    (tree,) = unequal.values()
    tree["sparse2d_wire_branch/_tensor_v/_tensor_v._meta._row_count"].values[1] = [6, 6]
    tree["sparse2d_wire_branch/_tensor_v/_tensor_v._meta._col_count"].values[1] = [4, 4]
    for trees, message in (
        (short, "has 26 bytes of voxels, expected 28 or more"),
        (outside, "has the voxel 24 in an image of 4 x 6"),
        (unequal, "has the pixels of 1 planes, but sizes of 2"),
        (tensor3d_tree([TENSORS[0], {(0, 0, 30): 1.0}]), "voxel 6000 in an image of 10 x 20 x 30"),
        (tensor3d_tree([TENSORS[0], {(0, 0, 0): np.inf}]), "has the value"),
    ):
        with open_events(root(trees)) as reader:
            reader.read(0)
            with pytest.raises(EventError, match=rf"a\.root, event 1: .*{message}"):
                reader.read(1)


def write_tensors(path):
    """A real ROOT file with the leaves of 3-D tensors and no objects around them."""
    import awkward as ak
    import uproot

    kinds = {"_voxel_v._id": np.uint64, "_voxel_v._value": np.float32, "_meta._unit": np.int32}
    columns = {
        key: ak.values_astype(ak.Array(column), kinds.get(key, np.asarray(column[0]).dtype))
        for key, column in tensor3d_branches(TENSORS).items()
    }
    with uproot.recreate(path) as file:
        types = {key: column.type.content for key, column in columns.items()}
        file.mktree("sparse3d_pcluster_tree", types).extend(columns)


def test_a_real_file_of_tensors(tmp_path):
    pytest.importorskip("uproot", reason="uproot is not installed (the extra root)")
    write_tensors(tmp_path / "a.root")
    with open_events(tmp_path / "a.root") as reader:
        assert pixels(reader.read(0)) == {(3, 11): [0.75], (29, 19): [2]}
        assert pixels(reader.read(1)) == {} and reader.axes[0].cm == 2
