"""Wire-Cell frames: containers of arrays as FrameFileSink and NumpyFrameSaver write them."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from minicnn.data.event import EventError
from minicnn.data.readers import NumpyImages, Waveforms, WireCell, archive, open_events

CHANNELS = [100, 101, 102, 104, 110]
#: {ident: {(row of CHANNELS, tick): value}}; the first tick is number 2
FRAMES = {3: {(1, 2): 13, (1, 3): 20, (4, 6): -5}, 4: {(0, 0): 2.5}}


def framelet(tag, ident, samples, channels, first_tick=2):
    """The arrays of a tag; samples are stored by column, as Eigen keeps them."""
    return {
        f"frame_{tag}_{ident}": np.asfortranarray(samples),
        f"channels_{tag}_{ident}": np.array(channels, np.int32),
        f"tickinfo_{tag}_{ident}": np.array([0, 500, first_tick], float),
    }


def arrays(frames=FRAMES, tag="gauss"):
    made = {}
    for ident, lit in frames.items():
        samples = np.zeros((len(CHANNELS), 7), np.float32)
        for at, value in lit.items():
            samples[at] = value
        made |= framelet(tag, ident, samples, CHANNELS)
        made[f"summary_{tag}_{ident}"] = np.zeros(len(CHANNELS))
        made[f"chanmask_bad_{ident}"] = np.zeros((0, 3), np.int32)
    return made


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def put(path, made, folder=""):
    """Write arrays, or bytes, into a container of the kind that the path's ending says."""
    contents = {n: a if isinstance(a, bytes) else npy(a) for n, a in made.items()}
    if path.suffix in (".npz", ".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in contents.items():
                file.writestr(f"{folder}{name}.npy", content)
    elif ".tar" in path.name:
        kind = path.suffix[1:] if path.suffix != ".tar" else ""
        with tarfile.open(path, f"w:{kind}", format=tarfile.GNU_FORMAT) as file:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"{folder}{name}.npy")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    else:
        path.mkdir()
        for name, content in contents.items():
            (path / f"{name}.npy").write_bytes(content)
    return path


def write(path):
    put(path, arrays())


def pixels(event):
    return {
        tuple(at): value.tolist()
        for at, value in zip(event.image.coords.tolist(), event.image.values)
    }


CONTAINERS = ("a.npz", "a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a")


@pytest.mark.parametrize("name", CONTAINERS)
def test_signals(tmp_path, name):
    path = put(tmp_path / name, arrays())
    with open_events(path) as reader:
        assert isinstance(reader, WireCell) and reader.tags == ("gauss",) and not reader.raw
        # channels 100 to 110 are rows, 9 columns of ticks 0 to 8 are centred on 11
        assert reader.image_shape == (11, 11, 1) and reader.labels.tolist() == [-1, -1]
        assert [(a.name, a.start) for a in reader.axes] == [("channel", 100), ("tick", -1)]
        first, second = reader
        assert pixels(first) == {(1, 5): [13], (1, 6): [20], (10, 9): [-5]}
        assert pixels(second) == {(0, 3): [2.5]} and [first.id, second.id] == [(0, 0, 3), (0, 0, 4)]
        assert pixels(reader.read(0)) == pixels(first)
    with open_events(path, tick_sum=2, threshold=0) as reader:  # ticks 4 and 5 are of column 2
        assert pixels(reader.read(0)) == {(1, 3 + 2): [33]}


def test_other_orders_and_folders_within(tmp_path):
    for change in (np.ascontiguousarray, np.transpose):
        made = arrays()
        for name in ("frame_gauss_3", "frame_gauss_4"):
            made[name] = change(made[name])
        path = put(tmp_path / "a.tar", made, "some/folder/")
        with open_events(path) as reader:
            assert pixels(reader.read(0)) == {(1, 5): [13], (1, 6): [20], (10, 9): [-5]}


def test_planes_of_microboone(tmp_path):
    samples = np.zeros((8256, 4), np.float32)
    samples[2399, 0], samples[4799, 1], samples[4800, 2], samples[8255, 3] = 1, 2, 3, 4
    path = put(tmp_path / "a.npz", framelet("gauss", 0, samples, range(8256), 0))
    column = (3600 - 4) // 2
    with open_events(path) as reader:
        assert reader.planes == (2,) and reader.image_shape == (3600, 3600, 1)
        assert pixels(reader.read(0)) == {(72, column + 2): [3], (72 + 3455, column + 3): [4]}
        assert reader.axes[0].length == "z" and reader.axes[0].start == -72
    with open_events(path, planes=(1, 0), size=1800) as reader:
        row = (600 + 2399) // 2
        lit = {(row, column // 2): [2, 1]}
        assert pixels(reader.read(0)) == lit
    with open_events(path, channels=(2390, 2400)) as reader:
        assert reader.planes is None and pixels(reader.read(0)) == {(9, 3): [1]}
    part = put(tmp_path / "b.npz", framelet("gauss", 0, samples[2000:2500], range(2000, 2500), 0))
    assert open_events(part).planes is None
    assert pixels(open_events(part, plane=0).read(0)) == {(2399 + 600, column): [1]}


def waveforms():
    rng = np.random.default_rng(0)
    adc = 400 + 3 * np.arange(96)[:, None] + 1.5 * rng.standard_normal((96, 2000))
    adc[20:60, 700:712] += 200
    adc[70] += 80 * rng.standard_normal(2000)
    return np.round(adc).astype(np.int16)


def test_raw_waveforms_are_cleaned(tmp_path):
    np.save(tmp_path / "a.npy", waveforms())
    with open_events(tmp_path / "a.npy", tick_sum=2) as reader:
        assert isinstance(reader, Waveforms)
        expected = reader.read(0)
    for tag in ("orig", "something"):
        path = put(tmp_path / f"{tag}.npz", framelet(tag, 7, waveforms(), range(200, 296), 0))
        with open_events(path, tick_sum=2, size=3600) as reader:
            assert reader.raw and reader.unit == "ADC"
            found = reader.read(0)
            assert reader.notes[0] == "channels 270 left out: noise above 10 ADC, or none"
        np.testing.assert_array_equal(found.image.values, expected.image.values)
        moved = found.image.coords - expected.image.coords
        assert len(np.unique(moved, axis=0)) == 1
        with open_events(path, raw=False) as reader:
            assert reader.read(0).image.values.max() > 400
    order = np.random.default_rng(1).permutation(96)  # groups are of neighbours all the same
    made = framelet("orig", 7, waveforms()[order], 200 + order, 0)
    with open_events(put(tmp_path / "mixed.npz", made), tick_sum=2, size=3600) as reader:
        assert pixels(reader.read(0)) == pixels(found)
    later = put(tmp_path / "later.npz", framelet("orig", 7, waveforms(), range(96), 1))
    with open_events(later, tick_sum=2) as reader:  # the pulse is in ticks 701 to 712
        assert set(reader.read(0).image.coords[:, 1].tolist()) == set(range(350, 357))
    with open_events(path, tick_sum=2, threshold=500) as reader:
        assert reader.read(0).image.nnz < found.image.nnz


def test_tags(tmp_path):
    zeros, half = np.zeros((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    made = framelet("gauss0", 1, half, (0, 1), 0) | framelet("gauss1", 1, 2 * half, (2, 3), 0)
    made |= framelet("gauss0", 2, zeros, (0, 1), 0) | framelet("a_b", 3, half, (0, 1), 0)
    path = put(tmp_path / "a.tar.bz2", made)
    with pytest.raises(
        EventError, match=r"a\.tar\.bz2: choose by tag= out of 'gauss0', 'gauss1', "
    ):
        open_events(path)
    with open_events(path, tag=("gauss0", "gauss1")) as reader:
        first, second, third = reader
        assert reader.notes == {2: "has no traces of gauss0 or gauss1"}
    assert first.image.to_dense().sum() == 9 and second.image.nnz == third.image.nnz == 0
    with open_events(path, tag="a_b", raw=False, ticks=(1, 1)) as reader:
        assert [event.image.nnz for event in reader] == [0, 0, 2]
    for tag in ("", "*"):  # traces without a tag
        path = put(tmp_path / "b.npz", framelet(tag, 1, half, (0, 1), 0))
        assert open_events(path, raw=False).read(0).image.nnz == 6


def test_ticks_are_numbered_by_the_frame(tmp_path):
    """Columns begin at multiples of tick_sum of all ticks, wherever a frame begins."""
    ones = np.ones((1, 5), np.float32)
    made = framelet("gauss", 0, ones, [7], 3) | framelet("gauss", 1, ones, [7], 0)
    with open_events(put(tmp_path / "a.npz", made), tick_sum=4) as reader:
        assert pixels(reader.read(0)) == {(0, 0): [1], (0, 1): [4]}
        assert pixels(reader.read(1)) == {(0, 0): [4], (0, 1): [1]}
    with open_events(tmp_path / "a.npz", ticks=(4, 5)) as reader:
        assert [event.image.values.sum() for event in reader] == [2, 1]


def damaged(**changes):
    made = arrays()
    for name, array in changes.items():
        if array is None:
            del made[name]
        else:
            made[name] = array
    return made


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"channels_gauss_4": None}, r"has no array channels_\* beside the others"),
        ({"tickinfo_gauss_4": None}, r"has no array tickinfo_\* beside the others"),
        ({"channels_gauss_4": np.arange(4)}, r"has 4 channels for samples \(5, 7\)"),
        ({"channels_gauss_4": np.zeros(5, int)}, "has a channel twice"),
        ({"channels_gauss_4": np.arange(-1, 4)}, "has channels from -1 to 3, expected 0 to"),
        ({"tickinfo_gauss_4": np.zeros(2)}, r"has the tickinfo \[0.0, 0.0\], expected time"),
        ({"tickinfo_gauss_4": np.full(3, np.nan)}, "has the tickinfo"),
        ({"frame_gauss_4": np.full((5, 7), np.nan)}, "channels 100-102, 104, 110 are not all fin"),
        ({"frame_gauss_4": np.zeros(5)}, r"expected samples \(channels, ticks\), got float64 \(5,"),
        ({"frame_gauss_4": np.array([[None] * 7] * 5)}, "got object"),
        ({"channels_gauss_4": np.array([None])}, "channels_gauss_4: holds object, expected numb"),
        ({"frame_gauss_4": b"\x93NUMPY and so on"}, "frame_gauss_4: "),
    ],
)
@pytest.mark.parametrize("name", ["a.npz", "a.tar.bz2", "a"])
def test_bad_events_are_named(tmp_path, name, changes, message):
    path = put(tmp_path / name, damaged(**changes))
    with open_events(path) as reader:
        assert reader.read(0).image.nnz == 3
        with pytest.raises(EventError, match=rf"{name}, event 1: .*{message}"):
            reader.read(1)


def test_options_that_do_not_fit(tmp_path):
    path = put(tmp_path / "a.npz", arrays())
    for options, message in (
        ({"plane": 3}, "planes are 0, 1 and 2, each once"),
        ({"plane": 1, "channels": (0, 9)}, "give one of both"),
        ({"tick_sum": 0}, "ticks summed are positive"),
        ({"ticks": (5, 4)}, r"ticks are \(first, last\)"),
        ({"channels": (5, 4)}, r"channels are \(first, last\)"),
        ({"channels": (0, 99_999)}, "more than"),
        ({"tag": "x"}, "choose by tag= out of 'gauss'"),
        ({"pedestal": "x", "raw": True}, "median or the mode"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)
    path = put(tmp_path / "b.npz", framelet("gauss", 0, np.ones((1, 2)), [8256]))
    with pytest.raises(
        EventError, match=r"event 0: has the channel 8256, MicroBooNE has 0 to 8255"
    ):
        open_events(path, plane=2).read(0)


def test_containers_that_lie(tmp_path, monkeypatch):
    sound = put(tmp_path / "a.tar", arrays()).read_bytes()
    at = sound.index(b"channels_gauss_4")

    def tar(content):
        (tmp_path / "a.tar").write_bytes(content)
        return tmp_path / "a.tar"

    with pytest.raises(EventError, match=rf"a\.tar: the tar header at byte {at:,} is damaged"):
        open_events(tar(sound[: at + 3] + b"X" + sound[at + 4 :]))
    with pytest.raises(EventError, match=r"a\.tar: .*claims .* bytes of arrays, in a file of"):
        open_events(tar(sound[: at + 512]))
    for name, message in (("a.tar.bz2", "damaged"), ("a.tar.gz", "damaged"), ("a.npz", "damaged")):
        path = put(tmp_path / name, arrays())
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(EventError, match=rf"{name}: .*{message}"), open_events(path) as reader:
            list(reader)
    path = put(tmp_path / "a.tar.gz", arrays())
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))  # the checksum of all of it
    with pytest.raises(EventError, match=r"a\.tar\.gz: CRC check failed.*damaged"):
        open_events(path)
    path = put(tmp_path / "b.npz", arrays())
    monkeypatch.setattr(archive, "MOST_BYTES", 200)
    with pytest.raises(
        EventError, match=r"b\.npz: frame_gauss_3 claims 268 bytes; arrays of up to"
    ):
        open_events(path)
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(archive, "IN_ANY_FILE", 0)
    monkeypatch.setattr(archive, "SHRINKS_AT_MOST", 0.5)
    with pytest.raises(EventError, match=r"b\.npz: claims .* bytes of arrays, in a file of"):
        open_events(path)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file, pytest.warns(UserWarning, match="Dupl"):
        for name in ("channels_a_0", "frame_a_0", "frame_a_0"):
            file.writestr(name + ".npy", npy(np.zeros((1, 1))))
    monkeypatch.undo()
    with pytest.raises(EventError, match=r"c\.npz: holds the array frame_a_0 twice"):
        open_events(tmp_path / "c.npz")


def test_nothing_is_unpacked_and_no_link_is_followed(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    secret = tmp_path / "secret.npy"
    secret.write_bytes(npy(np.ones((5, 7), np.float32)))
    path = put(inside / "a.tar", damaged(frame_gauss_4=None), "../../")
    with tarfile.open(path, "a", format=tarfile.GNU_FORMAT) as file:
        link = tarfile.TarInfo("frame_gauss_4.npy")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        file.addfile(link)
    with open_events(path) as reader:
        assert reader.read(0).image.nnz == 3
        with pytest.raises(EventError, match=r"event 1: has no array frame_\*"):
            reader.read(1)
    assert sorted(os.listdir(tmp_path)) == ["inside", "secret.npy"]
    assert os.listdir(inside) == ["a.tar"]


def test_what_is_no_container_of_frames(tmp_path):
    np.savez(tmp_path / "image.npz", img=np.ones((20, 20), np.float32))
    assert isinstance(open_events(tmp_path / "image.npz"), NumpyImages)
    put(tmp_path / "images", {"frame_a_0": np.ones((20, 20), np.float32)})
    assert isinstance(open_events(tmp_path / "images"), NumpyImages)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"some text"))
    put(tmp_path / "a.tar", {"image": np.ones((20, 20), np.float32)})
    for name in ("a.gz", "a.tar"):
        with pytest.raises(EventError, match=rf"{name}: the format of this file is not known"):
            open_events(tmp_path / name)
