"""What README and docs show runs: their Python blocks, one after the other in each page."""

import argparse
import re
import runpy
import subprocess
import sys
from importlib import import_module

import pytest

from helpers import ROOT
from minicnn.__main__ import COMMANDS

PAGES = ["README.md", "docs/networks.md", "docs/exchange.md"]
PAGES += ["docs/tutorial.md", "docs/recipes.md", "docs/keras-pytorch.md"]
#: What pages take for granted that show a part of a program, and the module that they need.
SMALL = """
simulator = mc.data.Simulator(seed=0, shape=(50, 50, 1), sample="isotropic")
events, comm = mc.data.EventStore().load(simulator, range(8)), None
model = mc.models.microboone(size=50, input_scale=1e-4, device="reference")
"""
EVENTS = """
import h5py, numpy as np
mc.data.generate("events.h5", 3, mc.data.Simulator(0, (50, 50, 1), sample="isotropic"))
k = 1
"""
BEFORE = {
    "docs/format.md": (EVENTS, "h5py"),
    "docs/ledger.md": (SMALL, "numpy"),
    "docs/runs.md": (SMALL, "tensorboardX"),
}
AFTER = {
    "docs/format.md": """
event = mc.data.open_events("events.h5").read(k)
assert np.array_equal(image, event.image.to_dense())
""",
}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize("page", [*PAGES, *BEFORE])
def test_the_python_of_a_page_runs(page, tmp_path):
    before, module = BEFORE.get(page, ("", "numpy"))
    pytest.importorskip(module)
    code = "\n".join([before, *blocks(page), AFTER.get(page, "")])
    # The pages show the talk's sizes; here the same with few and small events.
    code = code.replace("size=3600", "size=50").replace(
        "length=500", "length=40, shape=(50, 50, 1)"
    )
    code = code.replace("range(400)", "range(16)").replace("range(400, 500)", "range(16, 24)")
    code = code.replace("(512, 512, 1)", "(32, 32, 1)")
    code = "import minicnn as mc\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


LINE = re.compile(r"^(?: {4}|```sh\n)(.*-m minicnn .*|.*(?:python|srun) \S+\.py.*)$", re.M)
WORDS = re.compile(r"`([^`\n]*(?:-m minicnn \w|python \w+/\w+\.py)[^`\n]*)`")


def commands():
    """Yield (page, command line) of all pages: on lines of their own, and within the text."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = page.read_text().replace("\\\n", " ")
        for line in [*LINE.findall(text), *WORDS.findall(text)]:
            yield page.relative_to(ROOT).as_posix(), line.split("  #")[0].split(" # ")[0]


@pytest.fixture(scope="module")
def helps():
    """Return {"train": its help, ...}, without the line breaks."""
    found = {}
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        import_module(f"minicnn.cli.{command}").arguments(parser)
        found[command] = parser.format_help()
    return found


def test_commands_of_the_pages_exist_with_their_options(helps):
    """Renamed commands, files and options are found; that the commands run is shown elsewhere."""
    checked = 0
    for page, line in commands():
        words = line.replace("`", " ").replace("=", " ").split()
        if "-m" in words and "minicnn" in words:
            command = words[words.index("minicnn") + 1]
            if command in ("COMMAND", "--help"):
                continue
            assert command in COMMANDS, f"{page}: {line}"
            known, rest = helps[command], words[words.index("minicnn") + 2 :]
        else:
            script = next(word for word in words if word.endswith(".py"))
            if not script.startswith(("examples/", "benchmarks/")):
                continue
            assert (ROOT / script).exists(), f"{page}: {line}"
            known = "--help --json " + (ROOT / script).read_text()
            known += helps["train"] if script == "examples/microboone.py" else ""
            known += (ROOT / "benchmarks/common.py").read_text()
            rest = words[words.index(script) + 1 :]
        for option in (word for word in rest if re.fullmatch(r"--[a-z][a-z-]+", word)):
            assert re.search(rf"{option}\b", known), f"{page}: {option} in {line}"
            checked += 1
    assert checked > 60


def test_all_pages_with_python_are_run():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    names = {page.relative_to(ROOT).as_posix() for page in pages}
    assert {name for name in names if blocks(name)} == {*PAGES, *BEFORE}


def test_links_between_the_pages_exist():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_site():
    named = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert named == there


def test_the_reference_has_every_public_name():
    import minicnn as mc

    modules = re.findall(r"^::: (\S+)", (ROOT / "docs/reference.md").read_text(), re.M)
    rooms = (mc, mc.data, mc.data.readers, mc.parallel, mc.models, mc.losses, mc.optim)
    for room in (*rooms, mc.callbacks):
        for name in getattr(room, "__all__", ()):
            home = getattr(getattr(room, name), "__module__", None)
            if isinstance(home, str) and home.startswith("minicnn"):
                # A package shows what it imports; that of the readers imports them when asked.
                package = home.rpartition(".")[0].replace("minicnn.data.readers", "")
                assert home in modules or package in modules, f"{name} of {home}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason='pip install "minicnn[docs]"')
    pytest.importorskip("mkdocstrings_handlers.python")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reference.html").read_text()
    for name in ("Conv2D", "EventStore", "export_model", "StepCheckpoint", "Larcv3"):
        assert name in page
    for page in tmp_path.glob("*.html"):  # no network: neither fonts nor scripts from elsewhere
        assert not re.findall(r'(?:src|stylesheet" href)="https?://', page.read_text()), page


def test_extras_are_named_as_every_shell_takes_them():
    """zsh takes the brackets of minicnn[mpi] for a pattern where they are not quoted."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]
    pages += [page for top in ("minicnn", "benchmarks") for page in ROOT.glob(f"{top}/**/*.py")]
    for page in pages:
        bare = re.findall(r"pip install (?:-\S+ )*minicnn\[\w+\]", page.read_text())
        assert not bare, f"{page.relative_to(ROOT)}: {bare}"


def test_a_release_is_a_tag_with_notes():
    release = runpy.run_path(str(ROOT / ".github/release.py"))["notes"]
    changelog = (
        "# Changelog\n\n## 0.2.0 (2027-01-01)\n\n- New.\n\n## 0.1.0 (unreleased)\n\n- Old.\n"
    )
    assert release("v0.2.0", "0.2.0", changelog) == "- New."
    for tag, version in (("v0.2.0", "0.2.1"), ("v0.1.0", "0.1.0"), ("v0.3.0", "0.3.0")):
        with pytest.raises(SystemExit, match=r"expected v0\.2\.1|needs one section"):
            release(tag, version, changelog)
