"""Raw waveforms: made-up channels with known pedestals, noise and pulses; the real MicroBooNE ones
where they are.
"""

import tracemalloc

import numpy as np
import pytest

from helpers import SHARED
from minicnn.data.event import EventError
from minicnn.data.readers import NumpyImages, Waveforms, open_events
from minicnn.data.readers.cleaning import noise

DATA = SHARED
REAL = DATA / "microboone_run3493_raw_waveforms.npz"
needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="the MicroBooNE waveforms are not on this machine"
)


def waveforms(channels=60, ticks=3200, pulses=(), bad=(), common=5.0, seed=0):
    """uint16 ADC: pedestals, noise of sigma 1.5, noise common to groups of 48, Gaussian pulses
    (channel, tick, height).
    """
    rng = np.random.default_rng(seed)
    adc = 460 + 3 * np.arange(channels)[:, None] + 1.5 * rng.standard_normal((channels, ticks))
    adc += np.repeat(common * rng.standard_normal((-(-channels // 48), ticks)), 48, 0)[:channels]
    for channel, tick, height in pulses:
        adc[channel] += height * np.exp(-0.5 * ((np.arange(ticks) - tick) / 4) ** 2)
    for channel in bad:
        adc[channel] += 60 * rng.standard_normal(ticks)
    return np.round(adc).astype(np.uint16)


def clusters(event):
    """{wire: (columns from, to)} of the lit pixels."""
    coords = event.image.coords
    return {
        int(wire): (int(c.min()), int(c.max()))
        for wire in np.unique(coords[:, 0])
        for c in [coords[coords[:, 0] == wire, 1]]
    }


@pytest.mark.parametrize("pedestal", ["median", "mode"])
def test_pulses_are_found_and_nothing_else(tmp_path, pedestal):
    np.save(tmp_path / "a.npy", waveforms(pulses=[(7, 1000, 60), (55, 2000, 90)], bad=[20, 21, 50]))
    with open_events(tmp_path / "a.npy", pedestal=pedestal, threshold=7) as reader:
        assert (
            isinstance(reader, Waveforms)
            and len(reader) == 1
            and reader.image_shape == (3600, 3600, 1)
        )
        event = reader.read(0)
        assert reader.notes == {0: "channels 20-21, 50 left out: noise above 10 ADC, or none"}
    # 60 channels and 3200 ticks, each a column, centred on 3600: 1770 and 200
    found = clusters(event)
    assert set(found) == {1777, 1825}
    assert (
        1190 <= found[1777][0] < 1200 < found[1777][1] <= 1210
        and 2190 <= found[1825][0] < 2200 < found[1825][1] <= 2210
    )
    dense = event.image.to_dense()[..., 0]
    assert (
        abs(dense[1777, 1200] - 60) < 8
        and abs(dense[1777].sum() - 60 * 4 * np.sqrt(2 * np.pi)) < 60
    )
    assert event.label == -1


def test_common_noise_is_what_hides_small_pulses(tmp_path):
    np.save(tmp_path / "a.npy", waveforms(common=8, pulses=[(7, 1000, 25)]))
    assert 1777 in clusters(open_events(tmp_path / "a.npy", threshold=8).read(0))
    assert 1777 not in clusters(open_events(tmp_path / "a.npy", threshold=8, group=0).read(0))


def test_summing_ticks(tmp_path):
    adc = waveforms(48, 9595, [(3, 9592, 200)], common=0)
    np.savez(tmp_path / "a.npz", first=adc, second=adc[:1])
    with open_events(
        tmp_path / "a.npz"
    ) as reader:  # 9595 ticks by 3: 3199 columns, the last of one tick
        assert len(reader) == 2 and reader.keys == ["first", "second"]
        assert clusters(reader.read(0))[1776 + 3][1] == (3600 - 3199) // 2 + 3198
        assert reader.read(1).image.nnz == 0
    with open_events(tmp_path / "a.npz", key="first", tick_sum=10, size=900, threshold=8) as reader:
        assert (
            len(reader) == 1
            and reader.image_shape == (900, 900, 1)
            and set(clusters(reader.read(0))) == {444}
        )
    with (
        open_events(tmp_path / "a.npz", tick_sum=2) as reader,
        pytest.raises(EventError, match=r"48 x 4798 does not fit"),
    ):
        reader.read(0)


def test_bipolar(tmp_path):
    np.save(tmp_path / "a.npy", waveforms(pulses=[(7, 1000, 60), (7, 1015, -60)]))
    assert open_events(tmp_path / "a.npy").read(0).image.values.min() > 0
    assert open_events(tmp_path / "a.npy", bipolar=True).read(0).image.values.min() < -40


def test_dead_channels_are_noted(tmp_path):
    adc = waveforms(48)
    adc[5] = 450
    np.save(tmp_path / "a.npy", adc)
    with open_events(tmp_path / "a.npy") as reader:
        reader.read(0)
        assert reader.notes[0].startswith("channels 5 left out")


def test_images_are_not_waveforms(tmp_path):
    image = np.zeros((50, 2000), np.uint16)
    image[3, :40] = 7
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "float.npy", waveforms().astype(np.float32) - 475)  # no pedestal
    np.savez(tmp_path / "mixed.npz", img=waveforms(), label=np.zeros((60, 3200), np.int8))
    for name in ("image.npy", "float.npy", "mixed.npz"):
        assert isinstance(open_events(tmp_path / name), NumpyImages)


def test_errors(tmp_path):
    np.save(tmp_path / "a.npy", waveforms())
    for options, message in (
        ({"pedestal": "mean"}, "median or the mode"),
        ({"tick_sum": 0}, "are positive"),
        ({"size": 0}, "positive"),
        ({"threshold": -1}, "are positive"),
        ({"key": "x"}, "has no array 'x'"),
        ({"plane": 2}, "no option plane"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(tmp_path / "a.npy", **options)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-7000])
    with pytest.raises(EventError, match=r"a\.npy: its header says .* but 377,000 follow"):
        open_events(tmp_path / "a.npy")
    np.save(tmp_path / "f.npy", np.asfortranarray(waveforms()))
    with pytest.raises(EventError, match="Fortran order"):
        Waveforms(tmp_path / "f.npy").read(0)
    np.savez_compressed(tmp_path / "z.npz", a=waveforms())
    data = bytearray((tmp_path / "z.npz").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "z.npz").write_bytes(bytes(data))
    with (
        open_events(tmp_path / "z.npz") as reader,
        pytest.raises(EventError, match=r"z\.npz, event 0: .*damaged"),
    ):
        reader.read(0)


def test_a_group_of_channels_is_in_memory(tmp_path):
    np.savez(
        tmp_path / "a.npz", a=np.tile(waveforms(48, 3000), (20, 1))
    )  # 5.8 MB of counts, 11.5 MB as float
    with open_events(tmp_path / "a.npz", group=12) as reader:
        tracemalloc.start()
        reader.read(0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3e6


@needs_real
def test_the_real_waveforms():
    with np.load(REAL) as file:
        raw = file["Y_ch7728_7775"].astype(np.float32)
    adc = raw - np.median(raw, 1, keepdims=True)
    assert 455 < np.median(raw) < 495 and 2.5 < np.median(noise(adc)) < 3.5
    quiet = noise(adc - np.median(adc, 0))
    assert 1.4 < np.median(quiet) < 2.0  # 1.7 ADC after the common noise is gone
    with open_events(REAL) as reader:
        assert isinstance(reader, Waveforms) and len(reader) == 7
        events = dict(zip(reader.keys, reader))
        assert (
            sorted(reader.notes) == [1, 5]
            and "U_ch0624_0671_noisy" in reader.notes[1]
            and "noisy_1ch" in reader.notes[5]
        )
    tracks = events["Y_ch7728_7775"].image
    assert (
        800 < tracks.nnz < 2000 and tracks.values.max() > 600 and events["noisy_1ch"].image.nnz == 0
    )
    rows = np.bincount(tracks.coords[:, 0])
    assert (rows[1776:1824] > 0).mean() > 0.4 and rows.sum() == rows[1776:1824].sum()


@pytest.mark.skipif(not DATA.exists(), reason="the reference files are not on this machine")
def test_geant4_steps_are_no_images():
    with pytest.raises(
        EventError,
        match=r"geant4.*\.h5: this file holds the steps of Geant4 particles, which are not",
    ):
        open_events(DATA / "geant4_muon_100MeV_in_argon.h5")


@pytest.mark.parametrize("kind", ["int16", "int32", "uint64", "float32"])
def test_waveforms_of_other_types(tmp_path, kind):
    """What uproot gives, or a division: the same lit pixels."""
    rng = np.random.default_rng(0)
    adc = np.round(2048 + 3 * rng.standard_normal((96, 2000)))
    adc[20:60, 700:712] += 200
    np.save(tmp_path / "a.npy", adc.astype(kind))
    with open_events(tmp_path / "a.npy") as reader:
        assert isinstance(reader, Waveforms) and 0 < reader.read(0).image.nnz < 1000
    np.save(tmp_path / "b.npy", np.where(rng.random((96, 2000)) < 0.9, 7.5, 0).astype(np.float32))
    assert not isinstance(open_events(tmp_path / "b.npy"), Waveforms)
