"""larcv2 ROOT files: dense images and particles, on an object that answers as uproot does
(tests/helpers/larcv2.py); foreign and damaged files are real ROOT files where uproot is installed
(the extra root)."""

import sys

import numpy as np
import pytest

from helpers.larcv2 import Branch, image_tree, particle_tree, pixels, plane, rooted
from minicnn.data.event import EventError
from minicnn.data.readers import Larcv2Root, open_events

MUON, PROTON = dict(pdg=13, pz=0.5, trackid=1), dict(pdg=2212, pz=0.3, trackid=2)
MICHEL = dict(pdg=-11, pz=0.04, trackid=3, parent_trackid=1, process="Decay")
EVENTS = [
    [plane((4, 6), p0_0=1), plane((4, 6), p3_5=9.5, p1_2=1.5)],
    [plane((4, 6)), plane((4, 6))],
]
PARTICLES = [[PROTON, MUON, MICHEL], []]


@pytest.fixture
def root(tmp_path, monkeypatch):
    return rooted(tmp_path, monkeypatch)


def test_images_and_particles(root):
    with open_events(root(image_tree(EVENTS), particle_tree(PARTICLES))) as reader:
        assert (
            isinstance(reader, Larcv2Root)
            and reader.planes == (1,)
            and reader.image_shape == (6, 6, 1)
        )
        assert reader.labels.tolist() == [2, -1]
        first, second = reader
    assert pixels(first) == {(4, 5): [9.5], (2, 2): [1.5]} and first.id == (
        7,
        8,
        0,
    )  # 4 wires centred on 6
    assert pixels(second) == {} and second.id == (7, 8, 1) and len(second.particles) == 0
    proton, muon, michel = first.particles
    assert [p["parent"] for p in (proton, muon, michel)] == [-1, -1, 1]
    assert muon["momentum"].tolist() == [0, 0, 500] and muon["start"].tolist() == [1, 2, 3]
    with pytest.raises(EventError, match="the file is closed"):
        reader.read(0)


def test_options(root):
    path = root(
        image_tree(EVENTS),
        image_tree(EVENTS[::-1], "other"),
        particle_tree(PARTICLES),
        particle_tree([[], [MUON]], "zz"),
    )
    with pytest.raises(
        EventError, match=r"a\.root: .*choose by producer= one of image2d_data, image2d_other"
    ):
        open_events(path)
    with open_events(path, producer="data", planes=(0, 1), size=3, threshold=1.2) as reader:
        assert reader.image_shape == (3, 3, 2) and pixels(reader.read(0)) == {
            (2, 2): [0, 9.5],
            (1, 1): [0, 1.5],
        }
    with open_events(path, producer="other", label_of_pdg={13: 0}, class_names=("mu",)) as reader:
        assert reader.labels.tolist() == [0, -1]
    for options, message in (
        ({"producer": "x"}, "no images 'x'"),
        ({"producer": "data", "plane": 2}, "planes are 0 to 1"),
    ):
        with pytest.raises(EventError, match=message):
            open_events(path, **options)


def test_one_event_at_a_time(root, monkeypatch):
    for module in ("root", "products"):
        monkeypatch.setattr(f"minicnn.data.readers.larcv2_{module}.ENTRIES_AT_A_TIME", 2)
    Branch.largest = 0
    with open_events(root(image_tree(EVENTS * 3), particle_tree(PARTICLES * 3))) as reader:
        assert reader.labels.tolist() == [2, -1] * 3 and [pixels(event) for event in reader] == [
            pixels(e) for e in reader
        ]
    assert Branch.largest == 2


def test_images_without_counts_are_square(root):
    square = [[plane((5, 5), p1_4=3)]]
    with open_events(root(image_tree(square, shape=False))) as reader:
        assert (
            reader.image_shape == (5, 5, 1)
            and pixels(reader.read(0)) == {(1, 4): [3]}
            and reader.labels.tolist() == [-1]
        )
    with pytest.raises(
        EventError,
        match=r"a\.root, event 0: has planes of \[24, 24\] pixels for images of \[\(4, 4\)",
    ):
        open_events(root(image_tree(EVENTS, shape=False)))


def test_bad_events_are_named(root):
    large = [plane((9, 9))] * 2
    bad = [[], EVENTS[0], [plane((4, 6), p0_0=np.nan)] * 2, [plane((4, 6))], large]
    with open_events(root(image_tree(bad))) as reader:  # the first one decides nothing
        assert reader.image_shape == (9, 9, 1)  # the largest has place
        reader.read(1), reader.read(4)
        for number, message in (
            (0, "has planes of"),
            (2, "has the value"),
            (3, "has no plane 1, it has 1 planes"),
        ):
            with pytest.raises(EventError, match=rf"a\.root, event {number}: .*{message}"):
                reader.read(number)
    for trees, message in (
        ([], "no tree image2d_"),
        ([image_tree([])], "holds no events"),
        (
            [image_tree(EVENTS), particle_tree([[]])],
            "particle_mctruth_tree has 1 entries for 2 events",
        ),
    ):
        with pytest.raises(EventError, match=r"a\.root: .*" + message):
            open_events(root(*trees))


def test_particles_of_several_producers(root):
    def both(*names):
        trees = [particle_tree([[dict(pdg=13, pz=1.0)]] * 2, name) for name in names]
        return root(image_tree(EVENTS[:2]), *trees)

    with pytest.raises(EventError, match="choose by particles= one of cosmic, neutrino"):
        open_events(both("cosmic", "neutrino"))
    assert open_events(both("cosmic", "neutrino"), particles="cosmic").labels.tolist() == [2, 2]
    assert open_events(both("cosmic", "mctruth")).labels.tolist() == [2, 2]
    with pytest.raises(EventError, match="holds no particles 'x', only cosmic"):
        open_events(both("cosmic"), particles="x")


@pytest.mark.parametrize("unit, kind", [(1000, 0), (1000, 1), (1, 0), (1, 1)])
def test_the_unit_of_momentum_is_told_by_energy_and_mass(root, unit, kind):
    """Momenta in GeV/c or MeV/c, energies total or kinetic."""
    momentum, mass = 300.0, 105.66  # MeV
    energy = np.hypot(momentum, mass) - kind * mass
    tree = particle_tree([[dict(pdg=13, pz=momentum / unit)]] * 2)
    (branches,) = (one.branches for one in tree.values())
    name = next(key for key in branches if key.endswith("_pz")).replace("_pz", "_energy_init")
    branches[name] = Branch([[energy / unit]] * 2)
    with open_events(root(image_tree(EVENTS[:2]), tree)) as reader:
        assert reader.read(0).momentum == pytest.approx(300, rel=1e-5)


def test_without_uproot(tmp_path, monkeypatch):
    (tmp_path / "a.root").write_bytes(b"root and more")
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(EventError, match=r"a\.root: .*pip install .minicnn\[root\]"):
        open_events(tmp_path / "a.root")


def test_foreign_and_truncated_root_files(tmp_path):
    uproot = pytest.importorskip("uproot", reason="uproot is not installed (the extra root)")
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("something_tree", {"x": "int32"}).extend({"x": np.arange(1000)})
    with pytest.raises(
        EventError,
        match=r"a\.root: this ROOT file has no tree image2d_\*_tree, .*, it has something_tree",
    ):
        open_events(tmp_path / "a.root")
    (tmp_path / "a.root").write_bytes((tmp_path / "a.root").read_bytes()[:200])
    with pytest.raises(EventError, match=r"a\.root: .*truncated"):
        open_events(tmp_path / "a.root")
