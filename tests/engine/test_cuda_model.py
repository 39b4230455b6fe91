"""Networks on the CUDA kernels, on the emulator or with MINICNN_TEST_DEVICE=cuda on a GPU: training
as on the CPU, which GPU a rank takes, what is said where there is none or too little memory.
"""

import ctypes
import json
import os
import shutil
import sys
import types

import numpy as np
import pytest

import minicnn as mc
from helpers import MPI_CASES, ROOT, mpi, random_batch, small_model
from helpers.suppression import CASES, SHAPE, compare, event
from minicnn.engine.device import gpu_for_rank, resolve_device
from minicnn.kernels import get_backend
from minicnn.kernels.cuda import emulator, gpu
from minicnn.kernels.cuda.source import kernels as names_in
from minicnn.parallel import make_sync, place_on_node
from minicnn.parallel.device import cuda_aware, mpi_buffer

DEVICE = os.environ.get("MINICNN_TEST_DEVICE", "emulated")
emulated = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not on the PATH"
)
device = pytest.mark.skipif(
    DEVICE == "emulated" and shutil.which("g++") is None,
    reason="the emulator needs g++, which is not on the PATH",
)


def few_lit(n, seed=0):
    x, y = random_batch(n, seed=seed)
    return np.where(np.abs(x) < 1.5, np.float32(0), x), y


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
    assert losses["tf32", "never"] == pytest.approx(losses["tf32", "always"], rel=1e-6)
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
    assert done.returncode == 0 and done.stdout.strip() == "ok", done.stdout + done.stderr


@emulated
@pytest.mark.mpi
def test_the_training_example(tmp_path):
    """2 ranks, 3 steps, as a user runs it."""
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
        "SLURM_LOCALID",
    ):
        monkeypatch.delenv(variable, raising=False)
    assert place_on_node() == (0, 1)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3")
    assert place_on_node() == (3, 4)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "8")
    assert place_on_node() == (3, 8)


class FakeCupy(types.ModuleType):
    """CuPy's interface as far as gpu.py uses it, over the emulator: two GPUs with 96 KiB of shared
    memory per block.
    """

    __version__ = "fake"

    def __init__(self):
        super().__init__("cupy")
        run = emulator.Emulator()
        self.ndarray, self.empty, self.asarray, self.asnumpy, self.launches = (
            emulator.DeviceArray,
            run.empty,
            run.asarray,
            run.to_host,
            [],
        )
        fake = self

        class Device:
            compute_capability, pci_bus_id = "70", "0000:00:00.0"
            attributes = {  # noqa: RUF012
                "MultiProcessorCount": 2,
                "MaxSharedMemoryPerBlock": 48 << 10,
                "MaxSharedMemoryPerBlockOptin": 96 << 10,
            }
            mem_info = (1 << 30, 2 << 30)

            def __init__(self, index):
                self.index = index

            def use(self):
                fake.used = self.index

            def synchronize(self):
                pass

        class RawModule:
            def __init__(self, code, options):
                assert options[0] == "-std=c++17"
                self.code, self.defines = (
                    code,
                    tuple(tuple(o[2:].split("=", 1)) for o in options[1:]),
                )

            def get_function(self, name):
                assert name in names_in(self.code)
                return Function(self, name)

        class Function:
            max_dynamic_shared_size_bytes = 38 << 10  # 48 KiB less static arrays

            def __init__(self, module, name):
                self.module, self.name = module, name

            def __call__(self, grid, block, args, shared_mem=0):
                assert (
                    len(grid) == len(block) == 3
                    and shared_mem <= self.max_dynamic_shared_size_bytes <= 96 << 10
                )
                assert all(isinstance(a, emulator.DeviceArray | np.generic) for a in args)
                fake.launches.append(self.name)
                e = emulator.Emulator(replaced={"module": self.module.code})
                e.launch(
                    "module", self.name, grid, block, args, dict(self.module.defines), shared_mem
                )

        self.RawModule = RawModule
        space = types.SimpleNamespace
        self.cuda = space(
            Device=Device,
            memory=space(OutOfMemoryError=MemoryError),
            alloc_pinned_memory=bytearray,
            runtime=space(
                getDeviceCount=lambda: 2,
                getDeviceProperties=lambda i: {"name": b"Fake GPU", "totalGlobalMem": 2 << 30},
            ),
        )

        class NcclCommunicator:
            def __init__(self, size, unique, rank):
                assert (size, unique, rank) == (2, (7,), 0)

            def allReduce(self, source, to, count, kind, operation, stream):
                assert source == to and (kind, operation, stream) == ("float", "sum", 11)
                numbers = (ctypes.c_float * count).from_address(to)
                numbers[:] = [2 * n for n in numbers]

        self.nccl = space(
            available=False,
            get_unique_id=lambda: (7,),
            NcclCommunicator=NcclCommunicator,
            NCCL_FLOAT32="float",
            NCCL_SUM="sum",
        )
        self.cuda.get_current_stream = lambda: space(ptr=11)
        self.get_default_memory_pool = lambda: space(free_bytes=lambda: 1 << 20)


@pytest.fixture
def fake_cupy(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", fake.nccl)
    monkeypatch.setattr(gpu, "_backend", None)
    monkeypatch.setattr(
        emulator.DeviceArray,
        "data",
        property(lambda a: types.SimpleNamespace(ptr=a.__array_interface__["data"][0])),
    )
    monkeypatch.setattr(
        emulator.DeviceArray,
        "get",
        lambda a, out: out.__setitem__(Ellipsis, emulator.plain(a)),
        raising=False,
    )
    return fake


@emulated
def test_the_gpu_runtime_against_a_stand_in_for_cupy(fake_cupy, monkeypatch):
    """What gpu.py asks of CuPy runs here; what CuPy then does needs a GPU."""
    monkeypatch.setenv("MPI_LOCALRANKID", "3")
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    backend, text = resolve_device("cuda")
    assert (
        text == "cuda:1 (Fake GPU, 2 GiB), shared by 2 ranks of this node" and fake_cupy.used == 1
    )
    assert resolve_device("cuda:1") == (backend, "cuda:1 (Fake GPU, 2 GiB)")
    with pytest.raises(
        RuntimeError, match=r'device "cuda:0": this process uses GPU 1 already and cannot use 0 too'
    ):
        resolve_device("cuda:0")
    x, y = few_lit(3)
    models = [
        small_model(d, optimizer=mc.SGD(0.05), zero_suppression="always")
        for d in ("cuda", "emulated")
    ]
    assert models[0].train_on_batch(x, y) == models[1].train_on_batch(x, y)
    assert {"conv2d_block", "block_dw", "window_gradients", "list_marks", "sgd"} <= set(
        fake_cupy.launches
    )
    with mpi_buffer(models[0].gradients, backend) as memory:
        assert type(memory) is np.ndarray and np.array_equal(
            memory, backend.to_host(models[0].gradients)
        )
        memory += 1
    assert np.array_equal(backend.to_host(models[0].gradients), memory)
    with pytest.raises(
        RuntimeError, match=r"cuda:1 \(Fake GPU, 2 GiB\) has no tensor cores for TF32"
    ):
        small_model("cuda", precision="tf32")
    assert backend.memory_free() == (1 << 30) + (1 << 20)


class TwoRanks:
    """A communicator of two ranks that does what rank 0 of two alike sees."""

    rank, size = 0, 2

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value, value]


@emulated
def test_nccl_against_a_stand_in(fake_cupy):
    """What is asked of NCCL, and what is said where it is missing; what it does needs two GPUs."""
    backend, _ = resolve_device("cuda:0")
    gradients = backend.asarray(np.arange(5, dtype=np.float32))
    sync = make_sync("gradients", TwoRanks(), transport="nccl")
    with pytest.raises(ValueError, match="CuPy finds no NCCL library"):
        sync.allreduce(gradients, backend)
    fake_cupy.nccl.available = True
    for times in (2, 4):
        sync.allreduce(gradients, backend)
        assert np.array_equal(backend.to_host(gradients), times * np.arange(5))
    for k, message in (
        (emulator.backend(), "NCCL is for GPUs, this is emulated"),
        (get_backend("reference"), "this is the reference"),
    ):
        with pytest.raises(ValueError, match=message):
            make_sync("weights", TwoRanks(), transport="nccl").allreduce(gradients, k)
    with pytest.raises(ValueError, match="transport must be one of mpi, nccl, got 'smoke'"):
        make_sync("gradients", None, transport="smoke")


def test_there_is_no_such_gpu(fake_cupy):
    with pytest.raises(
        RuntimeError, match=r'device "cuda:5": there is no GPU 5: this process sees 2'
    ):
        resolve_device("cuda:5")
    for bad in ("cuda:x", "cuda:-1", "gpu"):
        with pytest.raises(ValueError, match="unknown device"):
            resolve_device(bad)


@pytest.mark.parametrize(
    "count, message",
    [
        (None, "CuPy cannot be imported"),
        (0, "the CUDA driver sees no GPU"),
        (RuntimeError("driver too old"), r"no usable CUDA driver \(driver too old\)"),
    ],
)
def test_a_gpu_that_cannot_be_used_says_why(monkeypatch, fake_cupy, count, message):
    def counting():
        if isinstance(count, Exception):
            raise count
        return count

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy if count is not None else None)
    fake_cupy.cuda.runtime.getDeviceCount = counting
    with pytest.raises(RuntimeError, match=f'device "cuda": .*{message}.* Use device="cpu"'):
        resolve_device("cuda")
    assert resolve_device("auto")[1] == "cpu (auto)"


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
    monkeypatch.delenv("MINICNN_CUDA_AWARE")
    pytest.importorskip("mpi4py")
    assert cuda_aware() in (True, False, None)
    cuda_aware.cache_clear()
