"""Exact zero suppression: the blocks at the input at a cost that follows the lit pixels; stage.py
says how, classes.py what a class is.
"""

from .classes import axis_classes, first_positions
from .deferred import DeferredWeightGradient
from .stage import CROSSOVER, MODES, ZeroSuppressed

__all__ = [
    "CROSSOVER",
    "MODES",
    "DeferredWeightGradient",
    "ZeroSuppressed",
    "axis_classes",
    "first_positions",
]
