"""Dense NumPy images and their placement on the network's image; the real MicroBooNE preview
event.
"""

from pathlib import Path

import numpy as np
import pytest

from helpers import SHARED
from minicnn.data.event import CLASSES, EventError
from minicnn.data.readers import NumpyImages, open_events
from minicnn.data.readers.placement import merge, pad, repeat_ticks, shrink, shrunk_shape, sum_ticks
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
        shrink(square, shrunk_shape(square.shape, 3)).to_dense()[..., 0],
        square.to_dense()[..., 0].reshape(3, 2, 3, 2).sum((1, 3)),
    )
    for size in (4, 0, 12):
        with pytest.raises(ValueError, match="divisor of 6"):
            shrunk_shape((6, 6, 1), size)
    with pytest.raises(ValueError, match="not square"):
        shrunk_shape((6, 4, 1), 2)


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
    with pytest.raises(EventError, match="3600 x 3600 cannot be shrunk to size 1000"):
        open_events(REAL, size=1000)
