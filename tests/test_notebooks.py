"""The notebooks of examples/ run, small, and what a notebook shows of our objects is there."""

import re
import subprocess
import sys
import types

import pytest

import minicnn as mc
from helpers import ROOT
from minicnn.progress import Meter

SMALL = ("SIZE=50", "EVENTS=16", "EPOCHS=2", "DEVICE='reference'")


@pytest.mark.slow
def test_the_notebooks_run():
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "tests/helpers/notebook.py"),
            *(ROOT / "examples/notebooks", *SMALL),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2-a-layer-of-your-own.ipynb: _repr_html_" in done.stdout
    shown = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    assert "_repr_png_" in shown["1-first-training.ipynb"]
    assert re.search(r"wrong_\d/slope .* WRONG", done.stdout) and "prelu_2/slope" in done.stdout


def test_html_of_a_model_says_what_its_text_says():
    x = mc.Input((8, 8, 1))
    model = mc.Model(x, mc.Dense(2)(mc.Flatten()(mc.ReLU(name="<b>")(x))), device="reference")
    page = model._repr_html_()
    assert "dense_1 (Dense)" in page and "130" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert "&lt;b&gt;" in model.plan()._repr_html_()
    history = mc.callbacks.History()
    assert "no epochs" in history._repr_html_()
    history.rows = [{"epoch": k + 1, "loss": 1 / (k + 1)} for k in range(100)]
    page = history._repr_html_()
    assert "<svg" in page and '<td style="text-align:right">0.01<' in page and "..." in page


class Handle:
    def __init__(self, shown):
        self.shown = shown

    def update(self, what):
        self.shown.append(what)


@pytest.fixture
def notebook(monkeypatch):
    """IPython as a kernel has it; returns what is shown in the one output of a cell."""
    shown = []
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    display.HTML = str
    display.display = lambda what, display_id: shown.append(what) or Handle(shown)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_the_bar_of_a_notebook_leaves_nothing_behind(notebook, capsys):
    with pytest.raises(KeyboardInterrupt), Meter("load <x>", 4) as meter:
        meter.bar.every = 0
        meter.update(2, "loss 1.0")
        raise KeyboardInterrupt
    assert "load &lt;x&gt;" in notebook[0] and "2/4" in notebook[1] and "loss 1.0" in notebook[1]
    assert notebook[-1] == "" and capsys.readouterr().out == ""


def test_no_bar_in_plain_ipython_or_a_file(notebook, tmp_path):
    with open(tmp_path / "log", "w") as file, Meter("load", 4, file=file):
        pass
    sys.modules["IPython"].get_ipython = lambda: None
    with Meter("load", 4):
        pass
    assert not notebook
