"""What will run: which layers are one fused kernel, on which backend, at what cost.
``print(model.plan())`` shows it.
"""

import math

from ..kernels import get_backend
from ..nn.layers import ELU, Conv2D, Layer, MaxPooling2D, ReLU
from .suppression import CROSSOVER, MODES, ZeroSuppressed


def resolve_device(device):
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
        f'unknown device {device!r}: choose "auto", "cpu", "cuda", "cuda:K", "reference" or "emulated"'
    )


def _gpu(device):
    """Return (backend, description) of a GPU."""
    from ..kernels.cuda import gpu
    from ..parallel import place_on_node

    reason = gpu.problem()
    if reason:
        raise RuntimeError(f'device "{device}": {reason}. Use device="cpu"')
    rank, ranks = place_on_node()
    index, sharing = (
        share(rank, ranks, gpu.device_count()) if device == "cuda" else (int(device[5:]), 1)
    )
    try:
        backend = gpu.backend(index)
    except RuntimeError as failure:
        raise RuntimeError(f'device "{device}": {failure}') from None
    return backend, backend.runtime.describe() + (
        f", shared by {sharing} ranks of this node" if sharing > 1 else ""
    )


def in_precision(precision, kernels, device):
    """Return (backend, description) for "float32", or for "tf32" where the backend has it;
    ValueError or RuntimeError where not.
    """
    if precision not in ("float32", "tf32"):
        raise ValueError(f'precision must be "float32" or "tf32", got {precision!r}')
    if precision == "float32":
        return kernels, device
    if not hasattr(kernels, "in_tf32"):
        raise ValueError(f'precision "tf32" is for GPUs; this is {device}')
    return kernels.in_tf32(), device + ", forward in TF32"


def share(rank, ranks, gpus):
    """Return (GPU, ranks on it) for one of the ranks of a node: they take the GPUs in turn."""
    return rank % gpus, len(range(rank % gpus, ranks, gpus))


class FusedBlock:
    """Conv2D -> ELU or ReLU -> MaxPooling2D as one kernel; takes the place of the three layers in
    the plan.

    An increasing activation and a bias that is constant in a window commute with the maximum, so
    the convolution's output is never stored and one output in pool^2 carries a gradient.
    """

    def __init__(self, conv, activation, pool):
        self.layers = (conv, activation, pool)
        self.conv, self.alpha, self.pool = conv, activation.alpha, pool.pool_size
        self.name = conv.name

    @staticmethod
    def matches(layers):
        """Tell whether the first three layers can run as one block; returns (bool, reason if they
        are the pattern but cannot).
        """
        kinds = tuple(map(type, layers[:3]))
        if (
            len(kinds) < 3
            or kinds[0] is not Conv2D
            or kinds[1] not in (ELU, ReLU)
            or kinds[2] is not MaxPooling2D
        ):
            return False, ""
        conv, activation, pool = layers[:3]
        if conv.strides != (1, 1):
            return False, f"stride {conv.strides}"
        if pool.strides != pool.pool_size:
            return False, "pool stride is not the pool size"
        if math.prod(pool.pool_size) > 256:
            return False, "more than 256 positions in a pool window"
        if activation.alpha < 0:
            return False, "alpha < 0: the activation does not increase"
        return True, ""

    def forward(self, k, x, p, work=None, rng=None):
        y, argmax = k.conv2d_block(
            x, p["w"], p["b"], self.pool, self.alpha, self.conv.padding, work=work
        )
        return y, (x, y, argmax)

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        x, y, argmax = saved
        return k.conv2d_block_backward(
            dy,
            x,
            p["w"],
            y,
            argmax,
            self.pool,
            self.alpha,
            self.conv.padding,
            need_dx,
            g["w"],
            g["b"],
            work=work,
        )[0]


class Plan:
    """The list of ``stages`` (layers, fused blocks, zero-suppressed blocks) of a model on one
    backend; ``str()`` gives a table.
    """

    def __init__(
        self, layers, input_shape, device, fuse, zero_suppression, input_map, precision="float32"
    ):
        self.kernels, self.device = in_precision(precision, *resolve_device(device))
        self.stages, self.rows, self.shapes = [], [], []
        shape, i = tuple(input_shape), 0
        while i < len(layers):
            fits, reason = FusedBlock.matches(layers[i:])
            stage = FusedBlock(*layers[i : i + 3]) if fuse and fits else layers[i]
            members = stage.layers if isinstance(stage, FusedBlock) else (stage,)
            flops, before = 0, shape
            for layer in members:
                flops += (
                    layer.flops(shape)
                    if not isinstance(stage, FusedBlock) or layer is stage.conv
                    else 0
                )
                shape = layer.output_shape(shape)
            note = "fused" if len(members) > 1 else (f"not fused: {reason}" if reason else "")
            self.stages.append(stage)
            self.shapes.append(before)
            self.rows.append(self._row(members, before, shape, flops, note, first=i == 0))
            i += len(members)
        self.shapes.append(shape)
        self._suppress(zero_suppression, input_map)

    def _suppress(self, mode, input_map):
        """Make one zero-suppressed stage of the fused blocks at the input, unless ``mode`` is
        "never".
        """
        count = 0
        while count < len(self.stages) and isinstance(self.stages[count], FusedBlock):
            count += 1
        self.suppressed = None
        if mode not in MODES:
            raise ValueError(f"zero_suppression must be one of {', '.join(MODES)}, got {mode!r}")
        if mode == "never" or not count:
            return
        self.suppressed = ZeroSuppressed(
            self.stages[:count], self.shapes[: count + 1], input_map, mode
        )
        self.stages[:count] = [self.suppressed]
        for row in self.rows[:count]:
            row["note"] = "fused, zero-suppressed" + (
                f" (dense above {CROSSOVER:.0%} lit)" if mode == "auto" else ""
            )

    @property
    def microbatch(self):
        """Events that run at once, as the backend likes (None: the whole batch); with zero
        suppression 1, on a GPU some.
        """
        return (
            getattr(self.kernels, "suppressed", 1) if self.suppressed else self.kernels.microbatch
        )

    def device_bytes(self, events):
        """Return about how many bytes of memory ``events`` dense events take at a time: images,
        what the backward pass needs, gradients.
        """
        images = [math.prod(shape) for shape in self.shapes]
        return events * (
            sum(r["bytes"] for r in self.rows) + 4 * images[0] + 8 * max(images[1:], default=0)
        )

    def out_of_memory(self, events, problem):
        """Return the MemoryError that says how many events fit at a time instead of ``events``."""
        free = getattr(self.kernels, "memory_free", lambda: None)()
        if free is None:
            return MemoryError(
                f"{self.device}: {events} events at a time do not fit into memory ({problem}): use a smaller batch"
            )
        fits = min(int(free // self.device_bytes(1)), events - 1)
        advice = (
            f"a batch_size of {fits} fits"
            if fits > 0
            else "not even one event fits: use smaller images or another device"
        )
        return MemoryError(
            f"{self.device}: out of memory with {events} events at a time, which need about "
            f"{self.device_bytes(events) / 2**30:.2f} GiB; {free / 2**30:.2f} GiB are free: {advice} ({problem})"
        )

    def _row(self, members, before, after, flops, note, first):
        """One line of the table. A block's gradients cost 1 / pool^2 of its forward pass each: only
        maxima have one.
        """
        share = 1 / math.prod(members[-1].pool_size) if len(members) > 1 else 1
        has_weights = bool(members[0].parameter_shapes(before))
        backward = flops * share * ((1 if first else 2) if has_weights else 1)
        return {
            "layers": " + ".join(m.name for m in members),
            "kind": " + ".join(type(m).__name__ for m in members),
            "output": after,
            "forward": flops,
            "backward": backward,
            "note": note,
            "bytes": 4 * math.prod(after) + (math.prod(after) if len(members) > 1 else 0),
        }

    def __str__(self):
        width = max(len(r["layers"]) for r in self.rows) + 2
        lines = [
            f"Plan on {self.device}: batches run as "
            + (
                f"{self.microbatch} event{'s' * (self.microbatch > 1)} at a time"
                if self.microbatch
                else "a whole"
            ),
            f"{'stage':<{width}}{'output':>18}{'fwd GFLOP':>11}{'bwd GFLOP':>11}{'saved MB':>10}  note",
        ]
        for r in self.rows:
            lines.append(
                f"{r['layers']:<{width}}{' x '.join(map(str, r['output'])):>18}{r['forward'] / 1e9:>11.3f}"
                f"{r['backward'] / 1e9:>11.3f}{r['bytes'] / 1e6:>10.2f}  {r['note']}".rstrip()
            )
        total = [sum(r[key] for r in self.rows) for key in ("forward", "backward", "bytes")]
        lines.append(
            f"{'one event':<{width}}{'':>18}{total[0] / 1e9:>11.3f}{total[1] / 1e9:>11.3f}{total[2] / 1e6:>10.2f}"
        )
        if self.suppressed and self.suppressed.events:
            lines.append("cells computed per event so far: " + self.suppressed.occupancy())
        return "\n".join(lines)


__all__ = ["FusedBlock", "Layer", "Plan", "resolve_device"]
