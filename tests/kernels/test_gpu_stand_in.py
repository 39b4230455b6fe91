"""kernels/cuda/gpu.py against a stand-in for CuPy, NCCL and two GPUs: what no other test can run
without a GPU.
"""

import ctypes
import sys
import types

import numpy as np
import pytest

import minicnn as mc
from helpers import small_model
from helpers.cuda import emulated, few_lit
from minicnn.engine.device import resolve_device
from minicnn.kernels import get_backend
from minicnn.kernels.cuda import emulator, gpu
from minicnn.kernels.cuda.source import kernels as names_in
from minicnn.parallel import make_sync
from minicnn.parallel.device import mpi_buffer


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
                    "module", self.name, (grid, block), args, dict(self.module.defines), shared_mem
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
    assert {"list_marks", "list_pairs", "lit_block", "lit_dw", "lit_dx", "sgd"} <= set(
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
