"""Networks on the CUDA kernels, on the emulator or with MINICNN_TEST_DEVICE=cuda on a GPU: training
as on the CPU, which GPU a rank takes, what is said where there is none or too little memory.
"""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import minicnn as mc
from helpers import MPI_CASES, ROOT, mpi, random_batch, small_model
from helpers.cuda import emulated, few_lit
from helpers.suppression import CASES, SHAPE, compare, event
from minicnn.engine.device import gpu_for_rank
from minicnn.parallel import place_on_node
from minicnn.parallel.device import cuda_aware

DEVICE = os.environ.get("MINICNN_TEST_DEVICE", "emulated")
device = pytest.mark.skipif(
    DEVICE == "emulated" and shutil.which("g++") is None,
    reason="the emulator needs g++, which is not on the PATH",
)


@device
@pytest.mark.parametrize("suppression", ["never", "always", "auto"])
@pytest.mark.parametrize(
    "optimizer", [lambda: mc.SGD(0.05, momentum=0.9), lambda: mc.Adam(0.01)], ids=["sgd", "adam"]
)
def test_training_is_that_of_the_cpu(suppression, optimizer):
    models = [
        small_model(d, zero_suppression=suppression, optimizer=optimizer()) for d in ("cpu", DEVICE)
    ]
    for step in range(3):
        x, y = few_lit(10, step)  # more than run at once
        losses = [m.train_on_batch(x, y) for m in models]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    cpu, cuda = (m.kernels.to_host(m.parameters) for m in models)
    assert np.linalg.norm(cpu - cuda) <= 1e-5 * np.linalg.norm(cpu)
    assert np.allclose(models[0].predict(x), models[1].predict(x), rtol=1e-4)


@device
def test_unfused_layers_and_dropout():
    def layers():
        return [
            mc.Conv2D(3, 3, strides=2),
            mc.ReLU(),
            mc.MaxPooling2D(3, 2),
            mc.Conv2D(4, 2),
            mc.ELU(),
            mc.Flatten(),
            mc.Dropout(0.3),
            mc.Dense(3),
        ]

    models = [
        mc.Sequential(layers(), (22, 19, 1), device=d, optimizer=mc.SGD(0.01))
        for d in ("reference", DEVICE)
    ]
    x, y = random_batch(4)
    assert models[0].train_on_batch(x, y) == pytest.approx(models[1].train_on_batch(x, y), rel=1e-5)
    reference, cuda = (m.kernels.to_host(m.parameters) for m in models)
    assert np.linalg.norm(reference - cuda) <= 1e-5 * np.linalg.norm(reference)


@device
@pytest.mark.parametrize("case", CASES)
def test_zero_suppression(case):
    compare(DEVICE, SHAPE, [event(SHAPE, p, seed=i) for i, p in enumerate(CASES[case])])


@device
def test_tf32_is_asked_for_and_said():
    x, y = few_lit(4)
    layers = [
        mc.Conv2D(9, 3, padding="same"),
        mc.ELU(),
        mc.MaxPooling2D(2),
        mc.Conv2D(6, 3, padding="same"),
        mc.ELU(),
        mc.MaxPooling2D(3),
        mc.Flatten(),
        mc.Dense(3),
    ]
    losses = {}
    for precision in ("float32", "tf32"):
        for mode in ("never", "always"):
            model = mc.Sequential(
                layers, (22, 19, 1), device=DEVICE, precision=precision, zero_suppression=mode
            )
            losses[precision, mode] = model.train_on_batch(x, y)
        assert ("forward in TF32" in str(model.plan())) == (precision == "tf32")
    # What is lit runs in float32: TF32 is for dense blocks.
    assert losses["tf32", "always"] == losses["float32", "always"]
    assert losses["float32", "never"] == pytest.approx(losses["float32", "always"], rel=1e-6)
    assert 1e-7 < abs(losses["tf32", "never"] / losses["float32", "never"] - 1) < 1e-3
    with pytest.raises(ValueError, match=r'precision "tf32" is for GPUs; this is cpu'):
        small_model("cpu", precision="tf32")
    with pytest.raises(ValueError, match="precision must be"):
        small_model("cpu", precision="half")


@device
def test_planes_backgrounds_and_dense_images():
    shape = (41, 38, 3)
    compare(
        DEVICE,
        shape,
        [event(shape, [(9, 9), (0, 37)], i, background=b) for i, b in enumerate((0.0, 0.75, 0.0))],
    )
    x, _ = few_lit(10)
    for mode in ("never", "always", "auto"):
        model = small_model(DEVICE, zero_suppression=mode)
        assert np.array_equal(
            model.predict(x), model.predict([mc.data.SparseImage.from_dense(image) for image in x])
        )


@device
def test_checkpoints_go_from_device_to_device(tmp_path):
    x, y = few_lit(4)
    model = small_model(DEVICE, optimizer=mc.Adam(0.01))
    model.fit((x, y), validation_data=(x, y), epochs=1, batch_size=2)
    model.save(tmp_path / "model")
    again = [
        mc.load_model(tmp_path / "model", device=d, optimizer=mc.Adam(0.01))
        for d in ("cpu", DEVICE)
    ]
    losses = [m.train_on_batch(x, y) for m in (model, *again)]
    assert losses[0] == losses[2] == pytest.approx(losses[1], rel=1e-5)


@emulated
@pytest.mark.mpi
def test_two_ranks_three_steps():
    done = mpi(2, MPI_CASES, "emulated")
    assert done.returncode == 0 and done.stdout.strip() == "ok emulated", done.stdout + done.stderr


@emulated
@pytest.mark.mpi
def test_the_training_example(tmp_path):
    """2 ranks, 3 steps, as a user runs it, but for coordinates of rest: gradients that nearly
    cancel there are rounding, which Adam makes as large as any other step (devices are compared
    in tests/train/test_rest_coordinates.py).
    """
    losses = []
    for device in ("emulated", "cpu"):
        done = mpi(
            2,
            ROOT / "examples/microboone.py",
            "--size",
            144,
            "--device",
            device,
            "--train",
            6,
            "--validation",
            2,
            "--epochs",
            1,
            "--batch-size",
            1,
            "--no-keep-rest",
            "--out",
            tmp_path / device,
            "--cache",
            tmp_path / "cache",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        losses.append(json.loads((tmp_path / device / "run.json").read_text())["epochs"][-1])
    weights = [
        mc.load_model(tmp_path / d / "model.safetensors", device="reference").parameters
        for d in ("emulated", "cpu")
    ]
    assert np.linalg.norm(weights[0] - weights[1]) <= 1e-5 * np.linalg.norm(weights[1])
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-5)


# ------------------------------------------------------------------------------------------ devices
def test_ranks_take_gpus_in_turn(monkeypatch):
    assert [gpu_for_rank(r, 5, 2) for r in range(5)] == [(0, 3), (1, 2), (0, 3), (1, 2), (0, 3)]
    assert [gpu_for_rank(r, 2, 4) for r in range(2)] == [(0, 1), (1, 1)]
    for variable in (
        "MPI_LOCALRANKID",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "PALS_LOCAL_RANKID",
        "FLUX_TASK_LOCAL_ID",
        "PMI_LOCAL_RANK",
        "SLURM_LOCALID",
    ):
        monkeypatch.delenv(variable, raising=False)
    assert place_on_node() == (0, 1)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3")
    assert place_on_node() == (3, 4)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "8")
    assert place_on_node() == (3, 8)


@emulated
def test_out_of_memory_names_the_batch_that_fits():
    model = small_model("emulated", zero_suppression="never")
    one = model.plan().device_bytes(1)
    model.kernels.runtime.memory = 3 * one
    x, y = random_batch(8)
    with pytest.raises(
        MemoryError,
        match=r"emulated: out of memory with 8 events at a time.*: a batch_size of 3 fits \(13376 "
        r"bytes asked",
    ):
        model.train_on_batch(x, y)
    model.kernels.runtime.memory = one // 2
    with pytest.raises(MemoryError, match="not even one event fits"):
        model.predict(x)


def test_cuda_awareness_can_be_told(monkeypatch):
    for value in ("1", "0"):
        cuda_aware.cache_clear()
        monkeypatch.setenv("MINICNN_CUDA_AWARE", value)
        assert cuda_aware() == (value == "1")
    cuda_aware.cache_clear()


def test_libraries_are_asked_whether_they_are_cuda_aware(monkeypatch):
    """Open MPI answers by a number; MPICH by an error code and a number, of GPUs of the kind 0."""
    pytest.importorskip("mpi4py.MPI")
    monkeypatch.delenv("MINICNN_CUDA_AWARE", raising=False)
    monkeypatch.delenv("MPICH_GPU_SUPPORT_ENABLED", raising=False)

    def mpich(failed, supported):
        def query(kind, answer):
            answer._obj.value = supported if kind == 0 else 1 - supported
            return failed

        return SimpleNamespace(MPIX_GPU_query_support=query)

    for library, aware in (
        (SimpleNamespace(MPIX_Query_cuda_support=lambda: 1), True),
        (SimpleNamespace(MPIX_Query_cuda_support=lambda: 0), False),
        (mpich(failed=0, supported=1), True),
        (mpich(failed=0, supported=0), False),
        (mpich(failed=1, supported=1), False),
        (SimpleNamespace(), None),
    ):
        cuda_aware.cache_clear()
        monkeypatch.setattr("ctypes.CDLL", lambda path, library=library: library)
        assert cuda_aware() is aware
    monkeypatch.setenv("MPICH_GPU_SUPPORT_ENABLED", "1")
    cuda_aware.cache_clear()
    assert cuda_aware() is True
    cuda_aware.cache_clear()
