"""Axes of images: where a pixel is in the detector, after padding, summing, conversion; what a
display shows of it.
"""

import numpy as np
import pytest

from minicnn.data import Event, EventWriter, Simulator, SparseImage, open_events
from minicnn.data.axes import MICROBOONE, PLAIN, Axis, placed
from minicnn.inspect.report.display import _extent
from minicnn.simulate import geometry

pytest.importorskip("h5py")


def at(axis, pixel):
    """(number, cm) at the middle of a pixel."""
    return axis.start + axis.step * (pixel + 0.5), axis.origin + axis.cm * (pixel + 0.5)


def test_padding_and_summing_keep_every_pixel_in_its_place():
    axis = Axis("wire", 1.0, 0.0, "z", 0.3, 0.25)
    for padding, block, pixel in ((72, 1, 100), (7, 5, 63), (0, 25, 0)):
        moved = axis.padded(padding).summed(block)
        number, cm = at(moved, (pixel + padding) // block)
        assert (
            abs(number - (pixel + 0.5)) <= block / 2
            and abs(cm - 0.3 * (pixel + 0.5) - 0.25) <= 0.3 * block / 2
        )
    rows, columns = placed((axis, Axis("tick", 2.0)), (30, 20), 40, 8)
    assert (rows.step, rows.start, columns.step, columns.start) == (
        5.0,
        -5.0,
        10.0,
        -20.0,
    ) and rows.cm == pytest.approx(1.5)


def test_the_simulator_draws_where_the_geometry_says():
    rows, columns = MICROBOONE
    assert at(rows, geometry.row_of(0.0, 500.0) - 0.5)[1] == pytest.approx(500.0)
    assert at(columns, geometry.column_of(100.0) - 0.5)[1] == pytest.approx(100.0)
    small = Simulator(shape=(144, 3600, 1)).axes
    assert small[0].cm == pytest.approx(7.5) and small[1] == columns


def test_event_files_keep_axes_and_unit(tmp_path):
    axes = (Axis("wire", 1.0, -4.0, "y", 0.4, 2.0), Axis("tick", 3.0))
    image = SparseImage(np.zeros((1, 2)), np.ones((1, 1)), (20, 20, 1))
    for name, metadata in (
        ("a", {"axes": [list(axis) for axis in axes], "units": "MeV"}),
        ("b", {}),
        ("c", {"creator": "minicnn simulate"}),
    ):
        with EventWriter(tmp_path / f"{name}.h5", (20, 20, 1), metadata=metadata) as writer:
            writer.append(Event(image, 0))
    with open_events(tmp_path / "a.h5") as whole, open_events(tmp_path / "a.h5", size=5) as small:
        assert (
            whole.axes == axes
            and whole.unit == "MeV"
            and small.axes == tuple(axis.summed(4) for axis in axes)
        )
    with open_events(tmp_path / "b.h5") as plain, open_events(tmp_path / "c.h5") as old:
        assert (
            plain.axes == PLAIN
            and plain.unit == ""
            and old.axes[0].step == 180.0
            and old.axes[0].name == "wire"
        )


def test_waveforms_and_images_are_not_taken_for_microboone(tmp_path):
    np.save(
        tmp_path / "raw.npy", np.random.default_rng(0).integers(470, 480, (48, 9594)).astype("u2")
    )
    np.save(tmp_path / "image.npy", np.eye(30, 20, dtype="f4"))
    with (
        open_events(tmp_path / "raw.npy") as raw,
        open_events(tmp_path / "image.npy", size=40) as image,
    ):
        assert (raw.axes[0].name, raw.axes[0].start, raw.axes[1].step, raw.axes[1].start) == (
            "channel",
            -1776.0,
            3.0,
            -603.0,
        )
        assert raw.unit == "ADC" and raw.axes[0].cm == 0
        assert (image.axes[0].name, image.axes[0].start, image.axes[1].start) == (
            "row",
            -5.0,
            -10.0,
        )


def test_extent_of_a_drawing_is_in_wires_and_ticks():
    assert _extent((72, 172, 400, 500), MICROBOONE) == (0.0, 100.0, 800.0, 1000.0)


def test_files_of_several_detectors_name_no_axes(tmp_path, capsys):
    from minicnn.__main__ import main

    image = SparseImage(np.zeros((1, 2)), np.ones((1, 1)), (20, 20, 1))
    for name, axis in (("a", "wire"), ("b", "strip")):
        with EventWriter(
            tmp_path / f"{name}.h5",
            (20, 20, 1),
            metadata={"axes": [[axis], ["tick"]], "units": "ADC"},
        ) as writer:
            writer.append(Event(image, 0))
    one, both = tmp_path / "one.h5", tmp_path / "both.h5"
    assert main(["convert", str(tmp_path / "a.h5"), str(tmp_path / "a.h5"), "--out", str(one)]) == 0
    assert (
        main(["convert", str(tmp_path / "a.h5"), str(tmp_path / "b.h5"), "--out", str(both)]) == 0
    )
    assert "b.h5: its rows and columns are not those of the first input" in capsys.readouterr().err
    with open_events(one) as a, open_events(both) as b:
        assert a.axes[0].name == "wire" and a.unit == "ADC" and b.axes == PLAIN and b.unit == "ADC"
    assert (
        main(["display", str(one), "--out", str(tmp_path / "one.png")]) == 0
        and (tmp_path / "one.png").exists()
    )
