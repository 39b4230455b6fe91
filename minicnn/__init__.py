"""minicnn: a from-scratch CNN engine for LArTPC event images, data-parallel over MPI.

Importing it loads neither numba, cupy nor mpi4py: backends and MPI load when they are first used.
"""

from . import data, kernels, parallel
from .engine.model import Sequential
from .inspect import trace
from .nn import layers, losses
from .nn import networks as models
from .nn.gradcheck import check_gradients
from .nn.layers import ELU, Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D, ReLU
from .train import callbacks, metrics, optim
from .train.checkpoint import CheckpointError, load_model
from .train.fit import NotFiniteError, evaluate, fit, train_step
from .train.optim import LARS, SGD, Adam

__version__ = "0.1.0"

__all__ = [
    "ELU",
    "LARS",
    "SGD",
    "Adam",
    "CheckpointError",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "MaxPooling2D",
    "NotFiniteError",
    "ReLU",
    "Sequential",
    "callbacks",
    "check_gradients",
    "data",
    "evaluate",
    "fit",
    "kernels",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "optim",
    "parallel",
    "trace",
    "train_step",
]
