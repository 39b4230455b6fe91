"""``compare`` and ``report``: runs side by side, and a run on one page."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.cli import run
from minicnn.inspect.report import draw_history
from minicnn.inspect.report.html import (
    command_block,
    page,
    picture_block,
    table_block,
    text_block,
)
from minicnn.jobs.compare import differing_settings, ledgers, read_runs
from minicnn.jobs.results import command_line

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def history(rate, ledger, epochs=3):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.3 * epoch, "val_loss": 1.1 / epoch}
        row |= {"val_accuracy": 0.29 * epoch, "seconds": 10.0, "events_per_second": rate}
        if ledger:  # ms of 2 ranks: each has half of the events
            row |= {f"seconds: {name}": s for name, s in ledger.items()}
        rows.append(row)
    return rows


def make_run(folder, rate=100.0, ledger=None, **arguments):
    folder.mkdir(parents=True)
    rows = history(rate, ledger)
    record = {
        "command": "python -m minicnn train --out <here>",
        "arguments": {"out": str(folder), "train": 1000},
        "recipe": {"batch_size": 8, "optimizer": "adam"} | arguments,
        "sample": {"name": "talk"},
        "ranks": 2,
        "threads": 1,
        "seconds": 33.0,
        "peak_memory_mb": 200.0,
        "versions": {"minicnn": "0.1.0", "numpy": "2"},
        "machine": {"cpu": "a cpu", "date": str(folder)},
        "network": "conv & pool <of the talk>",
        "epochs": rows,
        "accuracy": 0.87,
        "loss": 0.3,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


PARTS = {"forward block1_conv1": 3.0, "forward block2_conv1": 2.0, "backward": 4.0, "other": 1.0}


def test_compare(tmp_path, capsys):
    a = make_run(tmp_path / "one" / "run", ledger=PARTS)
    b = make_run(tmp_path / "two" / "run", 125.0, PARTS | {"backward": 2.0}, batch_size=32)
    (tmp_path / "three").mkdir()
    with open(tmp_path / "three" / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(history(50.0, None)[0]))
        writer.writeheader()
        writer.writerows(history(50.0, None, 2))
    status, out, err = run(capsys, "compare", a, b, tmp_path / "three", "--out", tmp_path / "c.png")
    assert status == 0 and not err
    assert "three is not complete" in out and (tmp_path / "c.png").read_bytes()[1:4] == b"PNG"
    lines = {re.split(r"  +", line.strip())[0]: line for line in out.splitlines()}
    assert re.search(r"batch_size +8 +32 +-$", lines["batch_size"])
    assert "optimizer" in lines and "machine, date" not in lines  # a run without settings differs
    assert re.search(r"100 +125 \(\+25\.0 %\) +50 \(-50\.0 %\)", lines["events/s, median epoch"])
    # 4 s of 10 s for 500 events of a rank: 8 ms each, and 2 s for 625 events 3.2 ms
    assert re.search(r"backward +8 +3\.2 \(-60\.0 %\) +-", out)
    order = [name for name, _ in ledgers(read_runs([a, b]))]
    assert order[0] == "backward" and order[-1] == "all parts" and order.count("forward") == 1
    assert [name for name, _ in differing_settings(read_runs([a, b]))] == ["out", "batch_size"]
    status, out, _ = run(capsys, "compare", a, a)
    assert status == 0 and "settings: all the same" in out and "run (2)" in out


def test_what_cannot_be_compared(tmp_path, capsys):
    a = make_run(tmp_path / "a")
    for arguments, message in (
        ((a,), "compare takes two runs or more"),
        ((a, tmp_path), "no run has completed an epoch here"),
        ((a, tmp_path / "missing"), "no run has completed an epoch here"),
    ):
        status, _, err = run(capsys, "compare", *arguments)
        assert status == 2 and message in err and "Traceback" not in err
    (a / "run.json").write_text("{}")
    status, _, err = run(capsys, "compare", a, a)
    assert status == 2 and "not the record of a run" in err
    status, _, err = run(capsys, "report", a)
    assert status == 2 and "not the record of a run" in err
    status, _, err = run(capsys, "report", tmp_path)
    assert status == 2 and "no complete run is here" in err
    (a / "run.json").write_text('{"epochs": [], "arguments": {}}')  # the least that is a record
    assert (
        run(capsys, "report", a)[0] == 0
        and "no validation events after 0 epochs" in (a / "report.html").read_text()
    )


def test_the_page_of_a_run_stands_alone(tmp_path, capsys):
    a = make_run(tmp_path / "<b>a</b>")
    (a / "scores.txt").write_text("ROC < area")
    draw_history(history(1.0, None), a / "loss.png")
    status, out, _ = run(capsys, "report", a)
    text = (a / "report.html").read_text()
    assert status == 0 and out.strip() == f"wrote {a}/report.html"
    assert text.startswith("<!DOCTYPE html>") and "accuracy 87.0 % after 3 epochs" in text
    assert (
        "<span>--out</span> <span>&lt;here&gt;</span>" in text
        and "<b>a</b>" not in text
        and "ROC &lt; area" in text
    )
    assert "conv &amp; pool" in text and text.count("data:image/png;base64,") == 1
    links = re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", text)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    for number in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{number}"' in text
    assert "Mistakes" not in text  # there is no gallery


def test_blocks_of_a_page(tmp_path):
    assert picture_block(tmp_path / "no.png", "nothing") == ""
    assert "<td>&lt;&amp;&gt;</td>" in table_block(("a",), [("<&>",)])
    assert "&lt;i&gt;" in text_block("<i>")
    whole = page("t", "s", {"empty": ["", ""], "full": ["<p>x</p>"]})
    assert "empty" not in whole and '<a href="#part-0">full</a>' in whole


@pytest.mark.parametrize("width", (390, 1280))
def test_the_page_fits_its_window(tmp_path, width):
    """In a browser, where there is one: nothing is wider than a phone or a desktop window."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    picture = tmp_path / "wide.png"
    draw_history(history(1.0, None), picture)
    wide = page("x" * 300, "y " * 200, {
        "Text": [text_block("z" * 400)],
        "Table": [table_block(["h" * 40] * 12, [["v" * 40] * 12])],
        "Settings": [table_block((), [("name", "w" * 300)])],
        "Command": [command_block("c" * 400)],
        "Picture": [picture_block(picture, "wide")],
    })  # fmt: skip
    probe = (
        "<script>const d = document.documentElement, range = document.createRange(), "
        "cell = [...document.querySelectorAll('td')].find(td => td.innerText == 'name'); "
        "range.selectNodeContents(cell); "
        "document.title = `${d.scrollWidth} of ${d.clientWidth} in ${innerWidth}, "
        "${range.getClientRects().length} line, ${document.images[0].width} pixels`</script>"
    )
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="INNER"></iframe>'
    inner = (wide + probe.replace("document.title", "parent.document.title")).replace("&", "&amp;")
    outer = frame.replace("INNER", inner.replace('"', "&quot;"))
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><body>{outer}")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=3000",
         "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    figures = r"<title>(\d+) of (\d+) in (\d+), (\d+) line, (\d+) pixels</title>"
    found = re.search(figures, done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    assert found[1] == found[2] and int(found[3]) == width, found[0]
    assert found[4] == "1" and int(found[5]) >= 600, found[0]  # names whole, pictures legible


def test_the_command_is_written_as_it_may_be_typed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/lib/minicnn/__main__.py", "train", "--out", "a b"])
    assert command_line(1) == "python -m minicnn train --out 'a b'"
    monkeypatch.setattr("sys.argv", [str(Path("examples") / "microboone.py"), "--ledger"])
    assert command_line(4) == "mpiexec -n 4 python examples/microboone.py --ledger"
