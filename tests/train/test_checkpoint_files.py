"""Checkpoints that lie: every fault is a CheckpointError that names the file, before any memory is
taken for what the file claims.
"""

import json
import os
import resource

import numpy as np
import pytest

import minicnn as mc
from helpers import small_model
from minicnn.train.checkpoint import FORMAT, FORMAT_BEFORE, _digest

safetensors = pytest.importorskip("safetensors.numpy")


def hostile(path, change, kind=FORMAT):
    """Write a checkpoint whose settings ``change`` has edited, with a digest that holds."""
    model = small_model()
    arrays = {"weight:" + name: w for name, w in model.get_weights().items()}
    state = {
        "format": kind,
        "config": model.config(),
        "updates": 0,
        "steps": 0,
        "optimizer": model.optimizer.config(),
    }
    if kind == FORMAT_BEFORE:
        config = state["config"]
        for key in ("nodes", "outputs", "losses"):
            del config[key]
        config["layers"], state["optimizer"] = config["layers"][1:], "SGD"
        config["input_shape"] = [22, 19, 1]
    text = change(state)
    state["digest"] = _digest(arrays, state if kind == FORMAT else None)
    text = json.dumps(state) if text is None else text
    path.write_bytes(safetensors.save(arrays, {"minicnn": text}))
    return path


def layer(number, **settings):
    return lambda state: state["config"]["layers"][number].update(settings)


def elus(count):
    def change(state):
        state["config"]["layers"] += [{"type": "ELU", "name": f"e{i}"} for i in range(count)]

    return change


FAULTS = {
    "10^12 units": layer(-1, units=10**12),
    "3*10^7 units": layer(-1, units=3 * 10**7),
    "infinite units": layer(-1, units=float("inf")),
    "a kernel of 10^5 x 10^5": layer(1, kernel_size=[10**5, 10**5]),
    "an input of 10^6 x 10^6": layer(0, shape=[10**6, 10**6, 1]),
    "10^5 layers": elus(10**5),
    "a list for the settings": lambda state: "[]",
    "nested settings": lambda state: "[" * 100_000,
    "no settings": lambda state: "{}",
    "no updates": lambda state: state.__delitem__("updates"),
    "updates in words": lambda state: state.update(updates="many"),
    "updates below 0": lambda state: state.update(updates=-5),
    "a list of steps": lambda state: state.update(steps=[1]),
    "no optimizer": lambda state: state.update(optimizer=None),
    "a foreign optimizer": lambda state: state.update(optimizer={"type": "os", "options": {}}),
    "layers that are numbers": lambda state: state["config"].update(layers=[1, 2]),
    "a place of no layer": lambda state: state["config"].update(nodes=[[99]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_settings_that_lie_are_refused(tmp_path, fault):
    path = hostile(tmp_path / "m.safetensors", FAULTS[fault])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(mc.CheckpointError, match=r"m\.safetensors"):
        mc.load_model(path, device="reference")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_the_format_before_is_read_and_checked(tmp_path):
    path = hostile(tmp_path / "m.safetensors", lambda state: None, FORMAT_BEFORE)
    model = mc.load_model(path, device="reference")
    for name, weight in small_model().get_weights().items():
        np.testing.assert_array_equal(model.get_weights()[name], weight)
    for change in (layer(-1, units=10**12), lambda state: state.update(updates=None)):
        with pytest.raises(mc.CheckpointError, match=r"m\.safetensors"):
            mc.load_model(hostile(path, change, FORMAT_BEFORE), device="reference")


def test_every_bit_of_the_settings_is_covered(tmp_path):
    """No flipped bit of the header gives another model, and none a foreign exception."""
    path = tmp_path / "m.safetensors"
    mc.Sequential([mc.Flatten(), mc.Dense(2)], (2, 2, 1), device="reference", seed=3).save(path)
    sound = path.read_bytes()
    expected = mc.load_model(path, device="reference").config()
    header = 8 + int.from_bytes(sound[:8], "little")
    for byte in range(0, header):
        damaged = bytearray(sound)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        try:
            assert mc.load_model(path, device="reference").config() == expected
        except mc.CheckpointError as problem:
            assert "m.safetensors" in str(problem)


def test_optimizer_state_of_another_length_is_refused(tmp_path):
    model = small_model(optimizer=mc.SGD(0.01, 0.9))
    x = np.ones((1, 22, 19, 1), np.float32)
    model.train_on_batch(x, np.zeros(1, np.int64))
    model.optimizer.state["velocity"] = model.parameters[:-1]
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(mc.CheckpointError, match="optimizer:velocity"):
        mc.load_model(tmp_path / "m.safetensors", device="reference")


def test_a_file_of_keras_has_another_reader(tmp_path):
    (tmp_path / "theirs.keras").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(mc.CheckpointError, match=r"theirs\.keras: .*mc\.exchange\.import_keras"):
        mc.load_model(tmp_path / "theirs.keras")


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(mc.CheckpointError, match="no regular file"):
        mc.load_model(tmp_path / "m.safetensors", device="reference")
