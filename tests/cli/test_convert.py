"""``convert``: what is written, what is left out, what is reported."""

import os
from itertools import chain

import numpy as np
import pytest

from helpers.cli import make_events, run
from minicnn.data import EventWriter, generate, open_events
from minicnn.locks import LockedError

pytest.importorskip("h5py")


def test_convert_and_its_options(tmp_path, capsys):
    source = make_events(tmp_path / "a.h5", 12)
    status, out, err = run(capsys, "convert", source, "--out", tmp_path / "b.h5")
    assert (
        status == 0
        and not err
        and "wrote 12 events of 40 x 40 x 1" in out
        and "0 rejected, 0 not selected" in out
    )
    with open_events(source) as before, open_events(tmp_path / "b.h5") as after:
        assert after.labels.tolist() == before.labels.tolist() and after.metadata["sources"] == [
            "a.h5"
        ]
        for a, b in zip(before, after, strict=True):
            assert (
                a.id == b.id
                and a.image.values.tobytes() == b.image.values.tobytes()
                and a.particles == b.particles
            )
    status, out, _ = run(
        capsys,
        "convert",
        source,
        "--out",
        tmp_path / "b.h5",
        "--overwrite",
        "--label-map",
        "13=mu,2212=p,-13=mu",
        "--select",
        "labelled",
        "--select",
        "lit>=4",
        "--size",
        "20",
        "--threshold",
        "45",
    )
    assert status == 0 and "classes: mu 1, p 1" in out and "0 rejected, 10 not selected" in out
    with open_events(tmp_path / "b.h5") as after:
        assert (
            after.class_names == ("mu", "p")
            and [e.id[2] for e in after] == [8, 11]
            and after.image_shape == (20, 20, 1)
        )
    for select, numbers in (
        ("class=gamma,K+", [0, 4, 6, 10]),
        ("events=3:5", [3, 4]),
        ("events=10:", [10, 11]),
        ("lit<=2", [0, 1]),
    ):
        assert (
            run(
                capsys,
                "convert",
                source,
                "--out",
                tmp_path / "b.h5",
                "--overwrite",
                "--select",
                select,
            )[0]
            == 0
        )
        with open_events(tmp_path / "b.h5") as after:
            assert [event.id[2] for event in after] == numbers
    status, out, err = run(
        capsys, "convert", source, "--out", tmp_path / "c.h5", "--select", "lit>=99"
    )
    assert (
        status == 2
        and err == "error: no event was written (0 rejected, 12 not selected)\n"
        and not (tmp_path / "c.h5").exists()
    )


def test_shares_meet_and_have_no_event_in_common(tmp_path, capsys):
    source = make_events(tmp_path / "a.h5", 30)
    parts = []
    for k, share in enumerate(("0:0.5", "0.5:0.85", "0.85:1")):
        out = tmp_path / f"{k}.h5"
        assert run(capsys, "convert", source, "--out", out, "--select", f"share={share}")[0] == 0
        with open_events(out) as reader:
            parts.append([event.id[2] for event in reader])
    assert list(map(len, parts)) == [15, 11, 4] and sorted(chain(*parts)) == list(range(30))
    assert parts[0] == sorted(parts[0]) != list(range(15))
    for share in ("0.8:0.2", "0:2", "a:b", "0.1.1:1"):
        status, _, err = run(
            capsys, "convert", source, "--out", tmp_path / "x.h5", "--select", f"share={share}"
        )
        assert status == 2 and f"--select share={share}: " in err


@pytest.mark.parametrize("processes", (1, 2))
def test_balanced_classes(tmp_path, capsys, processes):
    """Of two inputs together; unlabelled events are of no class."""
    sources = [
        make_events(tmp_path / "a.h5", 40, labels=(0, 1, 1, -1)),
        make_events(tmp_path / "b.h5", 40, labels=(0, 0, 1, 4)),
        tmp_path / "missing.h5",
    ]
    out = tmp_path / "c.h5"
    options = ["--balance", "--overwrite", "--out", out, "--processes", processes]
    status, text, err = run(capsys, "convert", *sources, *options)
    assert status == 0 and "gamma 10, e+- 10, mu+- 0, pi+- 0, K+ 10" in text
    assert "1 rejected, 50 not selected" in text and "missing.h5: no such file" in err
    with open_events(out) as reader:
        numbers = [event.id[2] for event in reader]
        assert reader.metadata["balance"] == "classes"
    run(capsys, "convert", *sources, *options)
    with open_events(out) as reader:
        assert [event.id[2] for event in reader] == numbers != sorted(numbers)
    some = ["--select", "class=gamma,e+-", "--select", "events=:20"]
    assert "gamma 15, e+- 15, mu+- 0" in run(capsys, "convert", *sources, *options, *some)[1]
    for more in (["--label-map", "13=mu"], ["--select", "lit>=3"]):
        status, _, err = run(capsys, "convert", *sources, *options, *more)
        assert status == 2 and "convert first, then balance the event file" in err


def test_convert_by_several_processes(tmp_path, capsys):
    """The same bytes, notes and rejects as by one."""
    folder = tmp_path / "images"
    for name in ("muon", "kaon"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            np.save(
                folder / name / f"{i:02}.npy",
                np.full((12, 12), np.nan if i == 13 else i % 7, np.float32),
            )
    reports = []
    for k, processes in enumerate((1, 2)):
        out = tmp_path / f"{k}.h5"
        status, text, err = run(
            capsys,
            "convert",
            folder,
            "--out",
            out,
            "--processes",
            processes,
            "--threshold",
            "2",
            "--select",
            "events=3:38",
            "--select",
            "lit>=1",
        )
        assert status == 0 and "2 rejected" in text and "mu+- " in text
        reports.append((out.read_bytes(), err.replace(str(out), ""), text.replace(str(out), "")))
    assert reports[0] == reports[1]
    assert run(capsys, "convert", folder, "--out", tmp_path / "c.h5", "--processes", 0)[0] == 2


def test_convert_reports_every_reject(tmp_path, capsys):
    folder = tmp_path / "images"
    for k, name in enumerate(("muon", "electron", "kaon")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            image = np.zeros((12, 12), np.float32)
            image[k, i] = np.nan if (k, i) == (1, 3) else 5
            np.save(folder / name / f"{i}.npy", image)
    (folder / "kaon" / "7.npy").write_bytes(b"rubbish")
    (tmp_path / "foreign.txt").write_text("hello")
    arguments = ["convert", folder, tmp_path / "foreign.txt", "--out", tmp_path / "b.h5"]
    status, out, err = run(capsys, *arguments)
    assert (
        status == 0
        and "wrote 22 events" in out
        and "3 rejected" in out
        and "e+- 7, mu+- 8, pi+- 0, K+ 7" in out
    )
    report = (tmp_path / "b.h5.report.txt").read_text()
    assert err.startswith(report) and report.count("rejected: ") == 3
    for text in (
        "electron/3.npy, event 3 of",
        "kaon/7.npy, event 15 of",
        "foreign.txt: the format",
    ):
        assert text in report
    status, out, err = run(capsys, *arguments, "--bad-events", "stop", "--overwrite")
    assert (
        status == 2 and "nothing was written" in err and len(open_events(tmp_path / "b.h5")) == 22
    )  # the old file stays
    status, out, err = run(capsys, "convert", tmp_path / "foreign.txt", "--out", tmp_path / "c.h5")
    assert status == 2 and "foreign.txt: the format" in err and not list(tmp_path.glob("c.h5*"))
    make_events(tmp_path / "a.h5")
    status, out, err = run(capsys, "convert", tmp_path / "a.h5", folder, "--out", tmp_path / "d.h5")
    assert (
        status == 0 and "has images of 12 x 12 x 1, the first input 40 x 40 x 1; give --size" in err
    )


def test_an_event_file_has_one_writer(tmp_path, capsys):
    source, out, link = make_events(tmp_path / "a.h5"), tmp_path / "b.h5", tmp_path / "c.h5"
    link.symlink_to(out)
    with EventWriter(out, (40, 40, 1)) as first, open_events(source) as events:
        for path in (out, link):
            status, _, err = run(capsys, "convert", source, "--out", path, "--no-isolate")
            assert status == 2 and f"{path}: in use by process {os.getpid()} on " in err, err
        with pytest.raises(LockedError, match="in use by process"):
            generate(out, 1, None)
        first.append(events.read(3))
    assert len(open_events(out)) == 1  # the first one's
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]
    assert run(capsys, "convert", source, "--out", out, "--overwrite")[0] == 0
