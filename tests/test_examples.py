"""The examples run as they are written, but for one epoch."""

from importlib.util import module_from_spec, spec_from_file_location

import pytest

import minicnn as mc
from helpers import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("layer_lab", [], "slopes learned: 0."),
        ("residual", ["residual.png", "saliency.png", "model.safetensors"], "Connected to"),
        ("unet", ["pixels.png"], "track: 0."),
    ],
)
def test_an_example_runs(name, written, said, tmp_path, monkeypatch, capsys):
    fit = mc.Model.fit
    monkeypatch.setattr(mc.Model, "fit", lambda *a, **options: fit(*a, **{**options, "epochs": 1}))
    monkeypatch.chdir(tmp_path)
    spec = spec_from_file_location(name, ROOT / f"examples/{name}.py")
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main()
    assert said in capsys.readouterr().out
    for file in written:
        assert (tmp_path / "runs" / name / file).stat().st_size > 1000
