"""Tables are exact; pictures are written, are not blank, and show every lit pixel."""

import csv
import subprocess
import sys

import numpy as np
import pytest

from helpers import SHARED
from minicnn.data.axes import PLAIN
from minicnn.data.event import CLASSES, PARTICLE, Event
from minicnn.data.readers import open_events
from minicnn.data.sparse import SparseImage
from minicnn.inspect.report import (
    View,
    draw_accuracy,
    draw_confusion,
    draw_event,
    draw_events,
    draw_history,
    talk_table,
    write_confusion_csv,
)
from minicnn.inspect.report.display import _busy_region, _draw_region

pytest.importorskip("matplotlib")
REAL = SHARED / "microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz"
TALK = np.array(
    [
        [851.47, 21.53, 0, 0, 0],
        [8.19, 1611.79, 0, 0.01, 2],
        [0, 0, 853.93, 0, 2.07],
        [2.9, 3.87, 3, 483.68, 332.54],
        [1, 1, 9.43, 307.19, 504.37],
    ]
)
TALK_COUNTS, TALK_CORRECT = (873, 1622, 856, 826, 823), (852, 1613, 854, 482, 508)
CONFUSION = np.array([[7, 3, 0], [0, 0, 0], [1, 0, 9]])


def look(path, least=300):
    """Pixels (H, W, 3) of a picture that was just drawn; it must be a PNG of some size and
    content.
    """
    from matplotlib.image import imread

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) >= least and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 1).all(), "something is cut off at the edge"
    return pixels


def track(shape=(3600, 3600, 1), label=2):
    at = np.arange(min(shape[:2]) // 4)
    particles = np.zeros(1, PARTICLE)
    particles["pdg"], particles["parent"], particles["momentum"] = 13, -1, (0, 300, 400)
    values = np.linspace(5, 90, len(at))[:, None].repeat(shape[2], 1)
    image = SparseImage.from_pixels(at + shape[0] // 4, 2 * at + 10, values, shape)
    return Event(image, label, (1, 2, 3), particles)


# --- tables ---------------------------------------------------------------------------------------


def test_the_talks_table():
    assert (
        talk_table(TALK, TALK_CORRECT, TALK_COUNTS, CLASSES)
        == """\
gamma: 873.00 e+-: 1622.00 mu+-: 856.00 pi+-: 826.00 K+: 823.00

Truth    Prediction                               highest score
          gamma      e+-    mu+-    pi+-      K+  was correct:
gamma    851.47    21.53    0.00    0.00    0.00           852
e+-        8.19  1611.79    0.00    0.01    2.00          1613
mu+-       0.00     0.00  853.93    0.00    2.07           854
pi+-       2.90     3.87    3.00  483.68  332.54           482
K+         1.00     1.00    9.43  307.19  504.37           508"""
    )


def test_tables_of_other_classes_stay_aligned():
    names = ("a", "a very long name", "c")
    lines = talk_table(CONFUSION * 1e6, (7e6, 0, 9e6), (1e7, 0, 1e7), names).splitlines()
    assert lines[0] == "a: 10000000.00 a very long name: 0.00 c: 10000000.00"
    assert len({len(line) for line in lines[3:]}) == 1
    with pytest.raises(
        ValueError, match=r"2 classes \(a, b\) need arrays of 2 x 2 or 2, got \(3, 3\)"
    ):
        talk_table(CONFUSION, (1, 2), (1, 2), ("a", "b"))


def test_confusion_csv(tmp_path):
    path = write_confusion_csv(tmp_path / "c.csv", CONFUSION, CONFUSION + 0.25, ("a", "b, b", "c"))
    with open(path, newline="", encoding="utf-8") as file:
        a, b, c = csv.DictReader(file)
    assert (
        a["truth"] == "a" and b["truth"] == "b, b" and c["events"] == "10" and c["correct"] == "9"
    )
    assert float(a["efficiency"]) == 0.7 and float(a["purity"]) == 0.875 and float(c["purity"]) == 1
    assert b["efficiency"] == "nan" and float(b["purity"]) == 0
    assert [a[f"predicted {name}"] for name in ("a", "b, b", "c")] == ["7", "3", "0"]
    assert [float(c[f"score {name}"]) for name in ("a", "b, b", "c")] == [1.25, 0.25, 9.25]


# --- pictures -------------------------------------------------------------------------------------


def test_confusion_picture(tmp_path):
    look(draw_confusion(tmp_path / "b.png", np.round(TALK), CLASSES, "validation"))
    look(draw_confusion(tmp_path / "c.png", np.zeros((2, 2)), ("a", "b")), 200)
    with pytest.raises(ValueError, match="need arrays of"):
        draw_confusion(tmp_path / "d.png", CONFUSION, CLASSES)


def test_accuracy_picture(tmp_path):
    rng = np.random.default_rng(0)
    labels, against = (
        rng.integers(0, 2, 300),
        {"momentum": rng.uniform(100, 1000, 300), "slope": rng.random(300)},
    )
    against["slope"][:7] = np.nan
    good = look(
        draw_accuracy(tmp_path / "a.png", against, labels, labels, ("a", "b", "none of it"))
    )
    assert not np.array_equal(
        good,
        look(
            draw_accuracy(tmp_path / "b.png", against, labels, 1 - labels, ("a", "b", "none of it"))
        ),
    )
    one = look(draw_accuracy(tmp_path / "c.png", {"momentum": [500.0]}, [1], [1], ("a", "b")))
    assert one.shape[1] < good.shape[1]
    for nothing in ([], [np.nan]):
        with pytest.raises(ValueError, match="no events of known momentum"):
            draw_accuracy(
                tmp_path / "d.png",
                {"momentum": nothing},
                [0] * len(nothing),
                [0] * len(nothing),
                ("a", "b"),
            )


def test_history_picture(tmp_path):
    rows = [{"epoch": k + 1, "loss": 1.6 / (k + 1), "accuracy": 0.2 + 0.1 * k} for k in range(5)]
    plain = look(draw_history(rows, tmp_path / "a.png"))
    both = look(
        draw_history(
            [{**row, "val_loss": 1.0, "val_accuracy": 0.5} for row in rows], tmp_path / "b.png"
        )
    )
    assert not np.array_equal(plain, both)
    look(
        draw_history(
            [{"epoch": "1", "loss": "nan", "accuracy": "0.5", "val_loss": ""}], tmp_path / "d.png"
        )
    )
    with pytest.raises(ValueError, match="has no epochs"):
        draw_history([], tmp_path / "e.png")


@pytest.mark.parametrize(
    "event, options",
    [
        (track(), {"scores": [0.1, 0, 0.7, 0.2, 0], "title": "an event"}),
        (track().image, {"view": View(zoom=False)}),
        (track((64, 48, 2)), {"view": View(channel=1)}),
        (
            track((64, 48, 1)).image.to_dense()[..., 0],
            {"scores": np.full(5, 0.2), "view": View(zoom=False)},
        ),
        (Event(SparseImage.from_dense(np.zeros((64, 64))), -1), {}),
    ],
)
def test_event_picture(tmp_path, event, options):
    look(draw_event(event, tmp_path / "a.png", **options))


@pytest.mark.parametrize("name", ["run_$7_of_$_9.npy", "caf\udce9.npy"])
def test_names_that_are_no_formula_nor_text(tmp_path, name):
    look(draw_event(track(), tmp_path / "a.png", title=name))


def test_a_single_lit_pixel_can_be_seen(tmp_path):
    for row, column in ((0, 3599), (1799, 2711)):
        event = SparseImage(np.array([(row, column)]), np.ones((1, 1)), (3600, 3600, 1))
        pixels = look(draw_event(event, tmp_path / "a.png", view=View(zoom=False)))
        red, green, blue = np.moveaxis(
            pixels[:, : int(0.8 * pixels.shape[1])], -1, 0
        )  # left of the colour bar
        assert (
            (red > 0.7) & (green > 0.3) & (blue < 0.3)
        ).sum() >= 1  # its colour is the scale's last


@pytest.mark.parametrize("region", [(0, 3600, 0, 3600), (100, 1111, 5, 909), (0, 50, 0, 3600)])
def test_the_raster_keeps_the_largest_pixel(region):
    from matplotlib.figure import Figure

    rng = np.random.default_rng(0)
    rows, columns, values = (
        rng.integers(0, 3600, 900),
        rng.integers(0, 3600, 900),
        rng.normal(size=900),
    )
    axes = Figure().subplots()
    picture = _draw_region(axes, rows, columns, values, region, (0, 1), 300, PLAIN)
    raster, (left, right, bottom, top) = picture.get_array(), picture.get_extent()
    assert max(raster.shape) <= 300
    inside = (
        (rows >= region[0]) & (rows < region[1]) & (columns >= region[2]) & (columns < region[3])
    )
    i = ((columns + 0.5 - bottom) / (top - bottom) * raster.shape[0])[inside].astype(int)
    j = ((rows + 0.5 - left) / (right - left) * raster.shape[1])[inside].astype(int)
    assert (raster[i, j] >= values[inside]).all() and not np.ma.getmaskarray(raster)[i, j].any()
    assert set(raster.compressed()) <= set(values[inside])


def test_the_enlarged_region_holds_the_track():
    event = track()
    rows, columns = event.image.coords.T
    top, bottom, left, right = _busy_region(rows, columns, event.image.values[:, 0], 3600, 3600)
    assert 700 <= top <= 900 and 1790 <= bottom < 2000 and 0 <= left <= 10 and 1800 < right < 2200
    everywhere = np.arange(3600)
    charge = np.where((everywhere > 2000) & (everywhere < 2400), 3.0, 1.0)
    top, bottom, left, right = _busy_region(everywhere, everywhere, charge, 3600, 3600)
    assert bottom - top == right - left == 720 and top <= 2000 and bottom >= 2400


def test_grid_picture(tmp_path):
    events = [track(label=k) for k in range(4)]
    look(draw_events(events, tmp_path / "a.png", scores=np.eye(5)[:4], titles=list("abcd")))
    look(draw_events(events[:1], tmp_path / "b.png", view=View(zoom=False)))
    with pytest.raises(ValueError, match="4 events with 1 titles and no scores"):
        draw_events(events, tmp_path / "c.png", titles=["x"])
    with pytest.raises(ValueError, match="0 events"):
        draw_events([], tmp_path / "c.png")


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(
        ValueError, match=r"5 classes .* need as many scores, got an array of shape \(3,\)"
    ):
        draw_event(track(), tmp_path / "a.png", scores=[1, 2, 3])
    with pytest.raises(ValueError, match="channels 0 to 0, asked for 2"):
        draw_event(track(), tmp_path / "a.png", view=View(channel=2))


@pytest.mark.skipif(not REAL.exists(), reason="the MicroBooNE preview event is not on this machine")
def test_the_real_event(tmp_path):
    with open_events(REAL) as reader:
        event = reader.read(0)
    pixels = look(
        draw_event(event, tmp_path / "a.png", scores=np.full(5, 0.2), title="MicroBooNE run 7004")
    )
    assert (pixels.max(-1) - pixels.min(-1) > 0.2).mean() > 0.01  # coloured: tracks


def test_no_pyplot_and_nothing_at_import(tmp_path):
    code = (
        "import sys, minicnn.inspect.report as r\n"
        "assert 'matplotlib' not in sys.modules\n"
        "r.draw_history([dict(epoch=1, loss=1, accuracy=1)], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)
