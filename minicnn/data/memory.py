"""Do the events fit? Asked while they are loaded: what the first ones take tells what all will."""

from __future__ import annotations

from ..parallel.launch import place_on_node
from ..parallel.machine import free_memory
from ..text import bytes_text
from .event import EventError

#: Events after which the first estimate is made; others follow at twice as many, and so on.
FIRST = 32
#: Bytes of Python's objects per event, beside its compressed pixels.
OBJECTS = 400


def check_memory(taken: int, done: int, total: int, origin: str) -> None:
    """Raise EventError where ``total`` events will not fit into the memory that is free, judged by
    ``done`` of them that took ``taken`` bytes; ``origin``: their file, for the message.

    All ranks of a node are taken to load as much as this one.
    """
    if done < FIRST or done & (done - 1):
        return
    ranks = place_on_node()[1]
    each = taken / done + OBJECTS
    free = free_memory()
    if each * (total - done) * ranks <= free:
        return
    fits = done + int(free / (each * ranks))
    of_ranks = f" on each of {ranks} ranks of this node" if ranks > 1 else ""
    raise EventError(
        f"{origin}: {total:,} events of {bytes_text(each)}, compressed,{of_ranks} do not fit into "
        f"the {bytes_text(free)} of memory that are free; {fits:,} would fit: load fewer, on more "
        "nodes, or with a stronger codec (zstd, level 9)"
    )
