"""The picture of maps at rest and lit, and the command that draws it."""

import numpy as np
import pytest

import minicnn as mc
from helpers import small_model
from minicnn.__main__ import main
from minicnn.data import SparseImage
from minicnn.engine.explain import lit_maps
from minicnn.inspect.report.lit import draw_lit

IMAGE = SparseImage([[3, 4], [4, 4]], [[1.0], [2.0]], (22, 19, 1))


def test_lit_maps_are_what_layers_give():
    model = small_model(fuse=False)
    found = lit_maps(model, IMAGE)
    assert list(found)[:2] == ["input_1", "conv2d_1"] and "flatten_1" not in found
    names = [name for name in found if name != "input_1"]
    for name, want in model.activations([IMAGE], names).items():
        assert np.allclose(found[name].dense(), want, atol=1e-6), name
    with pytest.raises(ValueError, match="runs dense"):
        lit_maps(model, np.ones((22, 19, 1), np.float32))
    with pytest.raises(ValueError, match="one input"):
        planes = [mc.Input((5, 5, 1)) for _ in range(2)]
        outputs = mc.Dense(2)(mc.Flatten()(mc.Add()(planes)))
        lit_maps(mc.Model(planes, outputs, device="reference"), IMAGE)


def test_a_picture_of_chosen_layers(tmp_path):
    lines = draw_lit(small_model(), IMAGE, tmp_path / "a.png", ["input_1", "conv2d_1"])
    assert lines[0].startswith("input_1: 2 of 22 x 19 positions lit (0.5%)") and len(lines) == 2
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="no map at rest and lit of 'dense_1': there are input_1"):
        draw_lit(small_model(), IMAGE, tmp_path / "b.png", ["dense_1"])


def test_the_command(tmp_path, capsys):
    assert main(["lit", "--out", str(tmp_path / "c.png")]) == 0
    said = capsys.readouterr().out
    assert "Conv2D 3 x 3: 39 of 24 x 24 positions lit" in said and (tmp_path / "c.png").exists()
    model = mc.Sequential([mc.Conv2D(2, 3), mc.Flatten(), mc.Dense(2)], (20, 20, 1))
    model.save(tmp_path / "m.safetensors")
    image = np.zeros((50, 50), np.float32)  # of another size than the network
    image[25:28, 25] = 9
    np.save(tmp_path / "e.npy", image)
    options = ["--weights", tmp_path / "m.safetensors", "--layers", "input_1", "--out"]
    assert main([str(a) for a in ("lit", tmp_path / "e.npy", *options, tmp_path / "d.png")]) == 0
    assert "1 of 20 x 20 positions lit" in capsys.readouterr().out
    assert main(["lit", "some.h5"]) == 2 and "--weights MODEL" in capsys.readouterr().err
