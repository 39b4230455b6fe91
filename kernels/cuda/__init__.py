"""CUDA backend, float32: one .cu file per op and its launcher beside it.

    common.cuh       what kernels share          emulator.h    runs them on the CPU, for tests
    backend.py       the ops as one namespace over a runtime, gpu.py (CuPy) or emulator.py (g++)
    source.py        the text of a kernel        compile.py    NVRTC: cubins, registers and spills

Every convolution output is one chain of fused multiply-adds over (ky, kx, c_in) from +0. Nothing
adds with atomics: a sum has one owner and a fixed order, so that results are the same from run to
run.
"""
