"""How ranks stay one model: sum the gradients every step, or average the weights every k steps.

    gradients       one Allreduce of the whole buffer, the main thread waits for it
    overlap         the same sums in buckets, each on its way while earlier layers' gradients are
                    still being computed (overlap.py)
    delayed         the sums arrive one step later and are applied then: all of a step hides them,
                    the weights lag by one (overlap.py)
    fp16, bf16      half the bytes; what rounding loses is kept and sent with the next step
                    (compressed.py)
    hierarchical    within the nodes first, then between one rank of each
    weights         every k steps the mean of weights and optimizer state (weights.py)
    auto            the one of these that is fastest on the ranks at hand (auto.py)

All but "delayed" and "weights" make the same updates as one rank with all the events, up to
rounding (or compression). ``benchmarks/allreduce.py`` measures which is fastest where. base.py has
the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from .auto import AUTO, OTHER_UPDATE, AutoSync
from .base import Sync
from .compressed import CompressedSync
from .gradients import GradientSync, HierarchicalSync
from .overlap import DelayedSync, OverlapSync
from .weights import WeightSync

#: name: (what makes the mode, the options that it takes)
_MAKERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "gradients": (GradientSync, GradientSync.options),
    "overlap": (OverlapSync, OverlapSync.options),
    "delayed": (DelayedSync, DelayedSync.options),
    "fp16": (partial(CompressedSync, form="fp16"), CompressedSync.options),
    "bf16": (partial(CompressedSync, form="bf16"), CompressedSync.options),
    "hierarchical": (HierarchicalSync, HierarchicalSync.options),
    "weights": (WeightSync, WeightSync.options),
    AUTO: (AutoSync, AutoSync.options),
}
#: The modes themselves.
MODES = tuple(mode for mode in _MAKERS if mode != AUTO)
TRANSPORTS = ("mpi", "nccl")


def make_sync(
    mode: str,
    comm: Any,
    every: int = 1,
    bucket: int | None = None,
    transport: str = "mpi",
    allow: Sequence[str] = (),
) -> Sync:
    """Return the sync of that name, a mode or "auto", for ``comm`` (None: one rank); ``every`` is
    for "weights", ``bucket`` (bytes) for "overlap", ``transport`` "nccl" lets NCCL add up the
    device buffers of "gradients" and "weights", and ``allow`` names modes with another update that
    "auto" may choose.

    Raises ValueError for an unknown mode, and for an option that the mode would ignore.
    """
    if mode not in _MAKERS:
        raise ValueError(f"sync must be one of {', '.join(_MAKERS)}, got {mode!r}")
    if transport not in TRANSPORTS:
        raise ValueError(f"transport must be one of {', '.join(TRANSPORTS)}, got {transport!r}")
    make, takes = _MAKERS[mode]
    given = {"every": every, "bucket": bucket, "transport": transport, "allow": tuple(allow)}
    options = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    for name in options.keys() - set(takes):
        modes = " or ".join(f'"{m}"' for m, (_, known) in _MAKERS.items() if name in known)
        raise ValueError(
            f"{_WHAT[name].format(options[name])} goes with sync={modes}, got {mode!r}"
        )
    made = make(comm, **options)
    made.mode = mode
    return made


_DEFAULTS = {"every": 1, "bucket": None, "transport": "mpi", "allow": ()}
_WHAT = {
    "every": "averaging every {} steps",
    "bucket": "a bucket size",
    "transport": 'transport "{}"',
    "allow": "allowing {}",
}

__all__ = [
    "AUTO",
    "MODES",
    "OTHER_UPDATE",
    "TRANSPORTS",
    "AutoSync",
    "CompressedSync",
    "DelayedSync",
    "GradientSync",
    "HierarchicalSync",
    "OverlapSync",
    "Sync",
    "WeightSync",
    "make_sync",
]
