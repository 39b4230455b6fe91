"""Events: sparse images, readers of the file formats, the simulator, and the compressed store that
feeds training.
"""

from typing import Any

from . import transforms
from .augmented import Augmented
from .batches import ArrayDataset, batches
from .dataset import Dataset, EventSource
from .event import CLASS_OF_PDG, CLASSES, IGNORED, PARTICLE, PIXEL_CLASSES, Event, EventError
from .generate import generate
from .node_store import NodeStore
from .planes import Planes
from .readers import EventWriter, open_events
from .shard import shard, split
from .sparse import SparseImage
from .store import EventStore
from .targets import TARGETS, class_weights

__all__ = [
    "CLASSES",
    "CLASS_OF_PDG",
    "IGNORED",
    "PARTICLE",
    "PIXEL_CLASSES",
    "TARGETS",
    "ArrayDataset",
    "Augmented",
    "Dataset",
    "Event",
    "EventError",
    "EventSource",
    "EventStore",
    "EventWriter",
    "NodeStore",
    "Planes",
    "Simulator",
    "SparseImage",
    "batches",
    "class_weights",
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
