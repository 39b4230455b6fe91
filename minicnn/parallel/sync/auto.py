"""The mode that a training chooses by itself, from what its own ranks measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Sync

AUTO = "auto"
#: Modes with the update of "gradients", to the order of sums; and modes with another one, which
#: have to be allowed. Both from the plainest on.
SAME_UPDATE, OTHER_UPDATE = ("gradients", "overlap", "hierarchical"), ("fp16", "bf16", "delayed")


class AutoSync(Sync):
    """The place of a mode that is chosen at the start of a training: ``fit`` measures, and goes on
    with the mode that ``record`` names (train/choose_sync.py).

    comm: all ranks. allow: modes of OTHER_UPDATE that may be chosen as well.
    """

    options = ("allow",)

    def __init__(self, comm: Any, allow: Sequence[str] = ()) -> None:
        super().__init__(comm)
        unknown = [mode for mode in allow if mode not in OTHER_UPDATE]
        if unknown:
            raise ValueError(
                f"sync=auto can be allowed {', '.join(OTHER_UPDATE)}, got {', '.join(unknown)}"
            )
        self.allow = tuple(allow)

    def reduce_gradients(self, model: Any) -> bool:
        raise ValueError('sync "auto" is chosen by fit: give a single step the name of a mode')
