"""The emulator finds what a GPU would leave undefined."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT
from minicnn.kernels.cuda import emulator
from minicnn.kernels.cuda.source import kernels, source

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not on the PATH"
)

PROBE = r"""
#include "common.cuh"
extern "C" __global__ void sums(const float* x, float* y) {               // of a block of 64, by shuffles and shared memory
  SHARED(float, warps, 2);
  float v = x[blockIdx.x * 64 + threadIdx.x];
  for (int by = 16; by; by /= 2) v += __shfl_down_sync(WHOLE_WARP, v, by);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) y[blockIdx.x] = warps[0] + warps[1];
}
extern "C" __global__ void reversed(const float* x, float* y) {           // through dynamic shared memory, in a 3-d block
  DYNAMIC_SHARED(float, s);
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z), n = blockDim.x * blockDim.y * blockDim.z;
  s[t] = x[t];
  __syncthreads();
  y[t] = s[n - 1 - t];
}
extern "C" __global__ void uninitialised(float* y) { SHARED(float, s, 4); y[threadIdx.x] = s[threadIdx.x]; if (!threadIdx.x) s[0] = 1; }
extern "C" __global__ void some(float* y) { if (threadIdx.x < 16) __syncthreads(); y[0] = 1; }
extern "C" __global__ void elsewhere(float* y) {
  if (threadIdx.x < 16) __syncthreads();
  else
    __syncthreads();
}
extern "C" __global__ void half_warp(float* y) { if (threadIdx.x < 16) y[0] = __shfl_sync(WHOLE_WARP, y[0], 0); }
extern "C" __global__ void beyond(float* y, int at) { SHARED(float, s, 8); s[at] = 1; y[0] = s[at]; }
extern "C" __global__ void beyond_dynamic(float* y, int at) { DYNAMIC_SHARED(float, s); Shared<float> t = s + 2; y[0] = t[at] = 1; }
extern "C" __global__ void unaligned(float* y, int at) { SHARED(float, s, 16); float v[4]; load(v, s + at); y[0] = v[0]; }
extern "C" __global__ void ballot(float* y) { y[threadIdx.x] = __popc(__ballot_sync(WHOLE_WARP, threadIdx.x % 3 == 0)); }
"""


def probe(kernel, *args, block=64, grid=1, shared=0, **options):
    emulator.Emulator(replaced={"probe.cu": PROBE}, **options).launch(
        "probe.cu", kernel, (grid, block), args, {}, shared
    )


@pytest.mark.parametrize("flags", [(), ("-DEMULATE_WITH_UCONTEXT",)], ids=("assembly", "ucontext"))
@pytest.mark.parametrize("falling", [False, True])
def test_barriers_shuffles_and_shared_memory(falling, flags):
    x, y, z = np.arange(192, dtype=np.float32), np.zeros(3, np.float32), np.zeros(24, np.float32)
    probe("sums", emulator.device(x), emulator.device(y), grid=3, falling=falling, flags=flags)
    assert np.array_equal(y, x.reshape(3, 64).sum(1))
    probe(
        "reversed",
        emulator.device(x),
        emulator.device(z),
        block=(2, 3, 4),
        shared=96,
        falling=falling,
        flags=flags,
    )
    assert np.array_equal(z, np.arange(24)[::-1])
    probe("ballot", emulator.device(y[:1].repeat(32)), block=32, falling=falling, flags=flags)


def test_shared_memory_is_nan_in_every_block():
    y = emulator.device(np.zeros(1, np.float32))
    probe("uninitialised", y, block=1, grid=2)  # the second block does not see what the first left
    assert np.isnan(emulator.plain(y)).all()


@pytest.mark.parametrize(
    "kernel, arguments, message",
    [
        (
            "some",
            (),
            r"divergent barrier: of 64 threads 16 wait at __syncthreads.* and 48 have ended",
        ),
        (
            "elsewhere",
            (),
            r"divergent barrier: of 64 threads 64 wait at __syncthreads.* 48 elsewhere",
        ),
        (
            "half_warp",
            (),
            r"divergent barrier: of 64 threads 0 wait at __syncthreads, 16 at a warp barrier or "
            r"shuffle",
        ),
        ("beyond", (8,), r"shared array: place 8 of 8"),
        ("beyond", (-1,), r"shared array: place -1 of 8"),
        ("beyond_dynamic", (6,), r"shared array: place 8 of 8 \(thread 0 of block 0, 0, 0\)"),
        ("unaligned", (2,), "a vector of 16 bytes that is not aligned"),
        ("unaligned", (16,), "place 16 of 16"),
        ("beyond", (), "1 arguments given to a kernel of 2"),
        ("beyond", (np.int64(1),), "argument 1 has 8 bytes, the kernel takes 4"),
    ],
)
def test_what_a_gpu_leaves_undefined_is_an_error(kernel, arguments, message):
    y = emulator.device(np.zeros(64, np.float32))
    with pytest.raises(RuntimeError, match=message):
        probe(kernel, y, *arguments, shared=32)
    probe("beyond", y, 7)  # and the next launch works
    assert y[0] == 1


def test_a_block_is_not_larger_than_a_gpu_allows():
    with pytest.raises(RuntimeError, match="a block has 1 to 1024 threads, not 2048"):
        probe("ballot", emulator.device(np.zeros(64, np.float32)), block=2048)


def test_device_arrays_do_not_mix_with_host_arrays():
    k = emulator.backend()
    a, host = k.asarray(np.ones((2, 3), np.float32)), np.ones((2, 3), np.float32)
    for mix in (
        lambda: a + host,
        lambda: host * a,
        lambda: a @ host.T,
        lambda: np.concatenate([a, host]),
        lambda: a.__iadd__(host),
        lambda: a.__setitem__(0, host[0]),
        lambda: a[np.array([0, 1])],
        lambda: a.__setitem__(np.array([0, 1]), 0),
    ):
        with pytest.raises(TypeError, match="mixes a device array with a host array"):
            mix()
    a += 1
    b = (2 * a).reshape(3, 2)
    assert (
        type(b) is type(a @ b) is type(a.sum(0)) is emulator.DeviceArray
        and type(k.to_host(b)) is np.ndarray
    )
    with pytest.raises(TypeError, match="contiguous device arrays, got ndarray"):
        k.each("activations.cu", "relu", 6, host, a)
    with pytest.raises(TypeError, match="contiguous device arrays, got DeviceArray"):
        k.each("activations.cu", "relu", 6, a.T, a)
    with pytest.raises(OverflowError, match=r"pass np\.int64"):
        k.launch("activations.cu", "relu", (1, 1), (a, a, 2**31))


def test_sources_are_whole():
    text = source("block.cu")
    assert (
        "#include" not in text
        and text.count("float activate(") == 1
        and kernels(text) == ["conv2d_block"]
    )
    assert kernels(source("block_dx.cu")) == [
        "sort_channels",
        "window_gradients",
        "gather_windows",
    ]


# ---------------------------------------------------------------------------------------- sanitizer
SANITIZED = """
import numpy as np
from minicnn.kernels.cuda import emulator
from minicnn.kernels.cuda.source import read
from minicnn.kernels.shapes import Block
import sys
replaced = {"activations.cu": read("activations.cu").replace("if (i >= n) return", "")} if sys.argv[1] == "broken" else {}
k = emulator.backend(replaced=replaced)
x = k.asarray(np.random.default_rng(0).standard_normal((1, 11, 13, 1)).astype("f4"))
w, b = k.zeros((3, 3, 1, 5)), k.zeros((5,))
w += 0.1
k.elu(x)
pooled = k.conv2d_block(x, w, b, Block(3))
k.conv2d_block_backward(pooled.y, pooled, w, Block(3))
at = k.lit_pixels(x)
values = k.take_pixels(x, at)
k.put_pixels(x, at, values)
print("clean")
"""


@pytest.mark.parametrize("how", ["whole", "broken"])
def test_address_sanitizer_sees_accesses_beyond_global_arrays(how):
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("g++ has no AddressSanitizer library")
    env = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "MINICNN_EMULATOR_FLAGS": "-fsanitize=address",
        "PYTHONMALLOC": "malloc",
    }
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, how], env=env, capture_output=True, text=True, cwd=ROOT
    )
    if how == "whole":
        assert done.returncode == 0 and done.stdout.strip() == "clean", done.stderr[-3000:]
    else:
        assert done.returncode and "heap-buffer-overflow" in done.stderr, done.stderr[-3000:]
