"""Feature maps at rest and lit: the dense network, exactly, at a cost that follows what an event
changes. map.py says what a LitMap is, rules.py how layers compute on them.
"""

from . import convolution, linear, normalization, pixelwise, pooling
from .map import Grid, LitGradient, LitMap
from .rules import RULES, Rule, rule_for

__all__ = [
    "RULES",
    "Grid",
    "LitGradient",
    "LitMap",
    "Rule",
    "convolution",
    "linear",
    "normalization",
    "pixelwise",
    "pooling",
    "rule_for",
]
