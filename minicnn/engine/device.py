"""Which backend runs a model: the CPU, a GPU, the reference, the emulator."""

from typing import Any

from ..kernels import get_backend

#: Precisions of the forward pass of dense blocks: where they run, and how they are written.
ROUNDED = {"tf32": ("GPUs", "TF32"), "bf16": ("the CPU", "bf16")}


def resolve_device(device: str) -> tuple[Any, str]:
    """Return (backend, description) for "auto", "cpu", "cuda", "cuda:K", "reference" or "emulated".

    "cuda" takes the GPU of this rank's place on its node, in turn where ranks are more than GPUs,
    and the description says how many share it; "cuda:K" takes GPU K. "auto" takes a GPU where there
    is one, else the CPU. An explicit "cuda" that cannot run raises RuntimeError with the reason:
    there is no silent fallback. "emulated" runs the CUDA kernels on the CPU, for tests.
    """
    if device in ("cpu", "reference", "emulated"):
        return get_backend(device), device
    if device == "auto":
        from ..kernels.cuda.gpu import problem

        return (get_backend("cpu"), "cpu (auto)") if problem() else _gpu("cuda")
    if device == "cuda" or (device.startswith("cuda:") and device[5:].isdigit()):
        return _gpu(device)
    raise ValueError(
        f'unknown device {device!r}: choose "auto", "cpu", "cuda", "cuda:K", "reference" or '
        '"emulated"'
    )


def _gpu(device: str) -> tuple[Any, str]:
    """Return (backend, description) of a GPU."""
    from ..kernels.cuda import gpu
    from ..parallel import place_on_node

    reason = gpu.problem()
    if reason:
        raise RuntimeError(f'device "{device}": {reason}. Use device="cpu"')
    rank, ranks = place_on_node()
    index, sharing = (
        gpu_for_rank(rank, ranks, gpu.device_count()) if device == "cuda" else (int(device[5:]), 1)
    )
    try:
        backend = gpu.backend(index)
    except RuntimeError as failure:
        raise RuntimeError(f'device "{device}": {failure}') from None
    return backend, backend.runtime.describe() + (
        f", shared by {sharing} ranks of this node" if sharing > 1 else ""
    )


def in_precision(precision: str, kernels: Any, device: str) -> tuple[Any, str]:
    """Return (backend, description) for "float32", for "tf32" on a GPU, or for "bf16" on a CPU;
    ValueError for a backend that has no such precision, RuntimeError for a machine that has not.
    """
    if precision == "float32":
        return kernels, device
    if precision not in ROUNDED:
        raise ValueError(f'precision must be "float32", "tf32" or "bf16", got {precision!r}')
    where, name = ROUNDED[precision]
    if precision not in kernels.precisions:
        raise ValueError(f'precision "{precision}" is for {where}; this is {device}')
    return kernels.precisions[precision](), f"{device}, forward in {name}"


def gpu_for_rank(rank: int, ranks: int, gpus: int) -> tuple[int, int]:
    """Return (GPU, ranks on it) for one of the ranks of a node: they take the GPUs in turn."""
    return rank % gpus, len(range(rank % gpus, ranks, gpus))
