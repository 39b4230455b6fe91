"""Events: sparse images, readers of the file formats, the simulator, and the compressed store that
feeds training.
"""

from typing import Any

from . import transforms
from .batches import ArrayDataset, batches
from .event import CLASS_OF_PDG, CLASSES, IGNORED, PARTICLE, PIXEL_CLASSES, Event, EventError
from .generate import generate
from .node_store import NodeStore
from .readers import EventWriter, open_events
from .shard import shard, split
from .sparse import SparseImage
from .store import EventStore

__all__ = [
    "CLASSES",
    "CLASS_OF_PDG",
    "IGNORED",
    "PARTICLE",
    "PIXEL_CLASSES",
    "ArrayDataset",
    "Event",
    "EventError",
    "EventStore",
    "EventWriter",
    "NodeStore",
    "Simulator",
    "SparseImage",
    "batches",
    "generate",
    "open_events",
    "shard",
    "split",
    "transforms",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "Simulator":  # its inner loops need numba, which takes a second to load
        from ..simulate import Simulator

        return Simulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
