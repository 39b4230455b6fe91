"""PyTorch's training step on a GPU, for gpu.py to compare with."""

import statistics

import numpy as np
from common import MOMENTUM, RATE, compared_scale

import minicnn as mc


def steps_of_torch(size, batch, events, repeats):
    """Yield rows of PyTorch's step, images already on the GPU: eager with TF32 off and on, and
    compiled with the pool before the ELU.
    """
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        return
    from torch.nn import functional as f

    model = mc.models.microboone(size, device="reference", zero_suppression="never")
    weights, pools = (
        model.get_weights(),
        [block.pool for block, _ in model.plan().fused_blocks()],
    )
    names = [n[:-2] for n, w in weights.items() if w.ndim == 4]
    x = (
        torch.tensor(np.stack([e.image.to_dense() for e in events[:batch]]) * compared_scale(size))
        .permute(0, 3, 1, 2)
        .cuda()
    )
    y = torch.tensor([e.label for e in events[:batch]]).cuda()

    def loss_of(p, x, pool_first):
        for name, pool in zip(names, pools):
            x = f.conv2d(x, p[name + "/w"], p[name + "/b"], padding="same")
            x = (
                f.elu(f.max_pool2d(x, pool))
                if pool_first
                else f.max_pool2d(f.elu(x, inplace=True), pool)
            )
        x = f.elu(f.linear(x.permute(0, 2, 3, 1).flatten(1), p["fc1/w"], p["fc1/b"]))
        return f.cross_entropy(f.linear(x, p["predictions/w"], p["predictions/b"]), y)

    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        for compiled in (False, True):
            p = {
                n: torch.tensor(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T)
                .cuda()
                .contiguous(
                    memory_format=torch.channels_last if w.ndim == 4 else torch.contiguous_format
                )
                .requires_grad_()
                for n, w in weights.items()
            }
            optimizer = torch.optim.SGD(p.values(), RATE, MOMENTUM, fused=True)
            call = torch.compile(loss_of) if compiled else loss_of

            def step(p=p, optimizer=optimizer, call=call, first=compiled):
                optimizer.zero_grad()
                call(p, x, first).backward()
                optimizer.step()

            try:
                torch.cuda.reset_peak_memory_stats()
                for _ in range(3):
                    step()
                seconds = []
                for _ in range(repeats):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                    step()
                    end.record()
                    end.synchronize()
                    seconds.append(begin.elapsed_time(end) / 1e3)
                yield {
                    "engine": f"PyTorch {torch.__version__}"
                    f"{' compiled, pool first' if compiled else ''}, "
                    f"{'TF32' if tf32 else 'fp32'}",
                    "batch": batch,
                    "seconds": statistics.median(seconds) / batch,
                    "memory": torch.cuda.max_memory_allocated(),
                }
            except (
                Exception
            ) as problem:  # out of memory, or no compiler for torch.compile: said, not hidden
                print(
                    f"PyTorch{' compiled' if compiled else ''}, batch {batch}: "
                    f"{str(problem).splitlines()[0]}"
                )
            torch.cuda.empty_cache()
