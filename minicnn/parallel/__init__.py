"""Data-parallel training over MPI: the only package that imports mpi4py, and only when a
communicator is asked for.
"""

from .collective import agree, everywhere, ordered, together
from .comm import Alone, as_comm
from .launch import place_on_node, threads_per_rank, world
from .sync import AUTO, MODES, OTHER_UPDATE, AutoSync, GradientSync, Sync, WeightSync, make_sync

__all__ = [
    "AUTO",
    "MODES",
    "OTHER_UPDATE",
    "Alone",
    "AutoSync",
    "GradientSync",
    "Sync",
    "WeightSync",
    "agree",
    "as_comm",
    "everywhere",
    "make_sync",
    "ordered",
    "place_on_node",
    "threads_per_rank",
    "together",
    "world",
]
