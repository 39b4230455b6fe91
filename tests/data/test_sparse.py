"""SparseImage: types of pixels, images made without checks, single planes, what a notebook
shows.
"""

import numpy as np
import pytest

from minicnn.data import SparseImage, sparse


def two_planes(background=0.0):
    dense = np.full((4, 6, 2), background, np.float32)
    dense[1, 2], dense[3, 5, 0], dense[0, 1, 1] = (3, 4), -7, 9
    return SparseImage.from_dense(dense, background)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f2", "f8", "?"])
@pytest.mark.parametrize("background", [0, 1])
def test_pixels_of_any_real_type_become_float32(dtype, background):
    dense = np.array([[0, 1, 0], [1, 100, 7]]).astype(dtype)
    image = SparseImage.from_dense(dense, background)
    assert image.values.dtype == np.float32 and image.coords.dtype == np.int32
    assert np.array_equal(image.to_dense()[..., 0], dense.astype(np.float32))
    rows, columns = np.nonzero(dense)
    again = SparseImage.from_pixels(rows, columns, dense[rows, columns], (2, 3, 1))
    assert np.array_equal(again.to_dense()[..., 0], dense.astype(np.float32))


def test_the_background_is_compared_in_float32():
    dense = np.full((3, 3), 0.1)
    dense[1, 1] = 0.2
    for background in (0.1, np.float64(0.1)):
        image = SparseImage.from_dense(dense, background)
        assert image.nnz == 1 and image.background == float(np.float32(0.1))


def test_sums_of_pixels_are_rounded_once():
    image = SparseImage.from_pixels([0, 0], [0, 0], np.array([2**24, 1.0]) + 0.5, (1, 1, 1))
    assert image.values[0, 0] == np.float32(2**24 + 2)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: SparseImage.from_dense(np.array([[1j]])), "real numbers, got an array of complex"),
        (lambda: SparseImage.from_dense(np.array([["a"]])), "real numbers"),
        (lambda: SparseImage.from_dense(np.array([[1e300]])), r"has the value \[inf\]"),
        (lambda: SparseImage.from_dense(np.zeros((2, 2, 2, 2))), "got .2, 2, 2, 2."),
        (lambda: SparseImage([[2**32 + 1, 0]], [1.0], (4, 4, 1)), "pixel 0 at .4294967297, 0."),
        (lambda: SparseImage([[0.5, 0]], [1.0], (4, 4, 1)), "whole numbers"),
        (lambda: SparseImage([[0, 0]], [1.0, 2.0], (4, 4, 1)), r"shape \(1, 1\), got \(2,\)"),
        (lambda: SparseImage.from_pixels([0], [9], [1.0], (4, 4, 1)), "column 9. lies outside"),
    ],
)
def test_what_is_no_image(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_trusted_images_are_checked_only_where_asked(monkeypatch):
    coords, values = np.array([[1, 0], [0, 3]], np.int32), np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match="not in row-major order"):
        SparseImage.trusted(coords, values, (4, 4, 1))
    with pytest.raises(ValueError, match=r"takes values as contiguous float32 \(2, 1\), got float"):
        SparseImage.trusted(coords[::-1].copy(), values.astype(float), (4, 4, 1))
    with pytest.raises(ValueError, match="takes coords as contiguous int32"):
        SparseImage.trusted(coords[::-1], values, (4, 4, 1))
    monkeypatch.setattr(sparse, "CHECK_TRUSTED", False)
    image = SparseImage.trusted(coords, values, (4, 4, 1))
    assert image.coords is coords and image.values is values and image.background == 0


@pytest.mark.parametrize("background", [0.0, 2.0])
def test_planes_have_the_pixels_of_one_channel(background):
    image = two_planes(background)
    planes = image.planes()
    assert [plane.nnz for plane in planes] == [2, 2] and planes[0].shape == (4, 6, 1)
    for c, plane in enumerate(planes):
        assert np.array_equal(plane.to_dense()[..., 0], image.to_dense()[..., c])
        assert plane.background == background
    with pytest.raises(IndexError, match="planes 0 to 1, asked for 2"):
        image.plane(2)


def test_what_a_notebook_shows():
    assert repr(two_planes()) == "SparseImage(4 x 6 x 2, 3 lit (12.500%), -7 to 9)"
    empty = SparseImage(np.zeros((0, 2)), np.zeros((0, 1)), (5, 5, 1), background=2)
    assert repr(empty) == "SparseImage(5 x 5 x 1, 0 lit, background 2)"
