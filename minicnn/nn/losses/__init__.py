"""Losses: what a network is asked for, as objects; see base.py for the contract."""

from .base import LOSSES, Loss, LossResult, float_targets, loss_from_config
from .classification import SoftmaxCrossEntropy
from .pixels import IGNORED, PixelCrossEntropy
from .regression import Huber, MeanSquaredError

__all__ = [
    "IGNORED",
    "LOSSES",
    "Huber",
    "Loss",
    "LossResult",
    "MeanSquaredError",
    "PixelCrossEntropy",
    "SoftmaxCrossEntropy",
    "float_targets",
    "loss_from_config",
]
