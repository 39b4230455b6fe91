"""Dense NumPy images and their placement on the network's image; the real MicroBooNE preview
event.
"""

from pathlib import Path

import numpy as np
import pytest

from helpers import SHARED
from minicnn.data.event import CLASSES, EventError
from minicnn.data.readers import NumpyImages, open_events
from minicnn.data.readers.placement import merge, pad, repeat_ticks, shrink, sum_ticks
from minicnn.data.sparse import SparseImage

REAL = SHARED / "microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz"
needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="the MicroBooNE preview event is not on this machine"
)


# --- placement ------------------------------------------------------------------------------------


def test_placement():
    dense = np.arange(1.0, 13.0).reshape(2, 6)
    assert sum_ticks(dense, 3).tolist() == [[6, 15], [24, 33]]
    with pytest.raises(ValueError, match="6 ticks cannot be summed in blocks of 4"):
        sum_ticks(dense, 4)
    image = SparseImage.from_dense(dense)
    np.testing.assert_allclose(
        repeat_ticks(image, 3).to_dense()[..., 0], np.repeat(dense / 3, 3, 1), rtol=1e-6
    )
    np.testing.assert_array_equal(
        pad(image, 5, 8).to_dense()[..., 0], np.pad(dense, ((1, 2), (1, 1)))
    )
    cropped = pad(image, 3, 3, crop=True).to_dense()[..., 0]
    np.testing.assert_array_equal(cropped, np.pad(dense[:, 2:5], ((0, 1), (0, 0))))
    with pytest.raises(ValueError, match="2 x 6 does not fit on 5 x 5"):
        pad(image, 5, 5)
    with pytest.raises(ValueError, match="background 0"):
        pad(SparseImage.from_dense(dense, background=1.0), 9, 9)
    np.testing.assert_array_equal(merge([image, image]).to_dense(), 2 * image.to_dense())
    square = pad(image, 6, 6)
    np.testing.assert_array_equal(
        shrink(square, (3, 3, 1)).to_dense()[..., 0],
        square.to_dense()[..., 0].reshape(3, 2, 3, 2).sum((1, 3)),
    )


# --- dense NumPy images ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "u2", "i4", "?"])
def test_one_dense_image(tmp_path, dtype):
    dense = (np.random.default_rng(0).random((12, 9)) < 0.3).astype(dtype)
    np.save(tmp_path / "a.npy", dense)
    np.savez_compressed(tmp_path / "b.npz", img=dense, other=np.zeros(3))
    np.savez(tmp_path / "c.npz", x=dense[..., None], y=np.zeros(3))
    for name, options in (("a.npy", {}), ("b.npz", {}), ("c.npz", {"key": "x"})):
        with open_events(tmp_path / name, **options) as reader:
            assert isinstance(reader, NumpyImages) and reader.image_shape == (12, 9, 1)
            assert reader.labels.tolist() == [-1] and reader.class_names == CLASSES
            np.testing.assert_array_equal(
                reader.read(0).image.to_dense()[..., 0], dense.astype("f4")
            )
    with pytest.raises(EventError, match=r"c\.npz: holds the arrays x, y; say by key="):
        open_events(tmp_path / "c.npz")
    with pytest.raises(EventError, match="there is no 'z'"):
        open_events(tmp_path / "c.npz", key="z")


def test_class_folders(tmp_path):
    images = {}
    for k, name in enumerate(("pion", "muon", "muon", "K+")):
        (tmp_path / name).mkdir(exist_ok=True)
        images[name, k] = np.full((4, 5), k + 1.0)
        np.save(tmp_path / name / f"{k}.npy", images[name, k])
    with open_events(tmp_path) as reader:
        assert reader.class_names == CLASSES and reader.labels.tolist() == [4, 2, 2, 3]
        assert [event.image.values[0, 0] for event in reader] == [4, 2, 3, 1]
        assert reader.read(1).label == 2 and reader.read(1).id == (0, 0, 1)
    (tmp_path / "kaon 2").mkdir()
    np.savez(tmp_path / "kaon 2" / "a.npz", np.ones((4, 5)))
    with open_events(tmp_path) as reader:
        assert reader.class_names == (
            "K+",
            "kaon 2",
            "muon",
            "pion",
        ) and reader.labels.tolist() == [0, 1, 2, 2, 3]
    names = ("pion", "muon", "K+", "kaon 2", "other")
    with open_events(tmp_path, class_names=names) as reader:
        assert reader.class_names == names and reader.labels.tolist() == [2, 3, 1, 1, 0]
    with pytest.raises(EventError, match=r"the sub-folder 'K\+' is none of the classes a, b"):
        open_events(tmp_path, class_names=("a", "b"))


def test_folder_images_of_several_shapes_need_a_size(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 6)))
    np.save(tmp_path / "b.npy", np.ones((2, 2)))
    message = r"b\.npy, event 1 of .*\(2, 2, 1\).*\(4, 6, 1\)"
    with open_events(tmp_path) as reader, pytest.raises(EventError, match=message):
        reader.read(1)
    with open_events(tmp_path, size=8) as reader:
        assert [event.image.shape for event in reader] == [(8, 8, 1)] * 2
        np.testing.assert_array_equal(
            reader.read(1).image.to_dense()[..., 0], np.pad(np.ones((2, 2)), 3)
        )
    with open_events(tmp_path, size=3) as reader:  # 4 x 6 fits 6 x 6, summed by 2
        assert reader.read(0).image.to_dense()[..., 0].tolist() == [[2, 2, 2], [4, 4, 4], [2, 2, 2]]


def test_only_the_image_asked_for_is_loaded(tmp_path, monkeypatch):
    for k in range(5):
        np.save(tmp_path / f"{k}.npy", np.full((6, 6), k))
    loaded, load = [], np.load

    def spy(path, **options):
        loaded.append((Path(path).name, options))
        return load(path, **options)

    monkeypatch.setattr(np, "load", spy)
    with open_events(tmp_path) as reader:
        assert not loaded
        reader.read(3)
    assert loaded == [("3.npy", {"mmap_mode": "r", "allow_pickle": False})]


def test_bad_dense_images(tmp_path):
    dense = np.ones((6, 6), "f4")
    dense[2, 3] = np.nan
    bad = {
        "nan": (dense, r"row 2, column 3.*nan"),
        "huge": (np.full((2, 2), 1e300), "inf"),
        "stack": (np.zeros((2, 3, 4, 5)), r"expected an image .* got float64 \(2, 3, 4, 5"),
        "text": (np.array([["a"]]), "of real numbers"),
        "none": (np.zeros((0, 4)), "expected an image"),
        "pickled": (np.array([[{}]], object), "expected an image"),
    }
    for name, (array, message) in bad.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, array, allow_pickle=True)
        with (
            pytest.raises(EventError, match=rf"{name}\.npy.*{message}"),
            open_events(path) as reader,
        ):
            reader.read(0)


def test_a_garbled_header(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((4, 4)))
    data = path.read_bytes()
    for old, new in (
        (b"}", b"]"),
        (b"(4, 4)", b"(4, 4("),
        (b"descr", b"dexcr"),
        (b"<f8", b"<q9"),
        (b"(4, 4)", b"(4,9e)"),
    ):
        path.write_bytes(data.replace(old, new))
        with pytest.raises(EventError, match=r"a\.npy"):
            open_events(path)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truncated_dense_images(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez_compressed)(
        path, np.random.default_rng(0).random((50, 50))
    )
    data = path.read_bytes()
    for keep in (4, 7, 60, 0.5, 0.99):
        path.write_bytes(data[: keep if keep > 1 else int(keep * len(data))])
        with pytest.raises(EventError, match=rf"a\.{suffix}"), open_events(path) as reader:
            reader.read(0)


@needs_real
def test_the_real_microboone_event():
    raw = np.load(REAL)["img"] * (100 / 255)
    with open_events(REAL) as reader:
        assert reader.image_shape == (3600, 3600, 1) and reader.labels.tolist() == [-1]
        image = reader.read(0).image.to_dense()[..., 0]
    expected = np.pad(np.repeat(raw / 3, 3, axis=1), ((72, 72), (199, 200)))
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    with open_events(REAL, size=720) as reader:
        np.testing.assert_allclose(
            reader.read(0).image.to_dense()[..., 0],
            expected.reshape(720, 5, 720, 5).sum((1, 3)),
            rtol=1e-5,
        )
    with open_events(REAL, size=1000) as reader:  # centred on 4000 x 4000
        assert reader.image_shape == (1000, 1000, 1)
        total = reader.read(0).image.values.sum(dtype=np.float64)
        np.testing.assert_allclose(total, expected.sum(dtype=np.float64), rtol=1e-5)


def test_the_first_file_decides_nothing_and_hidden_ones_are_none(tmp_path):
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.full((12, 12), k + 1))
        (tmp_path / f"._{k}.npy").write_bytes(b"\0\5\x16\7 of a Mac")
    (tmp_path / "0.npy").write_bytes((tmp_path / "0.npy").read_bytes()[:150])
    for options in ({}, {"size": 6}):
        with open_events(tmp_path, **options) as reader:
            assert len(reader) == 3 and reader.read(2).image.nnz
            with pytest.raises(EventError, match=r"0\.npy, event 0 of .*: its header says"):
                reader.read(0)
    for k in (1, 2):
        (tmp_path / f"{k}.npy").write_bytes(b"rubbish")
    with pytest.raises(EventError, match=r"0\.npy: its header says"):
        open_events(tmp_path)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_largest_image_has_place(tmp_path, names):
    for name, edge in zip(names, (20, 50)):
        np.save(tmp_path / f"{name}.npy", np.eye(edge))
    with open_events(tmp_path, size=10) as reader:  # both in blocks of 5
        small, large = sorted(event.image.nnz for event in reader)
        assert (small, large) == (4, 10)


def test_an_image_of_3600_is_placed_as_any_other(tmp_path):
    for edge in (3599, 3600):
        image = np.zeros((edge, edge), np.uint8)
        image[7, 9] = 3
        np.save(tmp_path / "a.npy", image)
        for size in (1000, 4000):
            with open_events(tmp_path / "a.npy", size=size) as reader:
                assert reader.read(0).image.values.tolist() == [[3]]


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((100, 64, 64)), "stack of images save each to a file of its own"),
        (np.zeros((3, 240, 320)), "channels_first=true"),
        (np.zeros((500, 5)), "500 x 5 is a table"),
        (np.zeros(20, [("run", "i4"), ("adc", "f4")]), r"records of 2 fields \(run, adc\)"),
        (np.zeros(20, [(f"field_{k:03}", "i4") for k in range(600)]), "records of very many"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(EventError, match=r"a\.npy: .*" + message):
        open_events(tmp_path / "a.npy")


def test_channels_first(tmp_path):
    image = np.arange(2 * 10 * 12, dtype=np.float32).reshape(2, 10, 12)
    np.save(tmp_path / "a.npy", image)
    with open_events(tmp_path / "a.npy", channels_first=True) as reader:
        assert reader.image_shape == (10, 12, 2)
        np.testing.assert_array_equal(reader.read(0).image.to_dense(), np.moveaxis(image, 0, -1))
