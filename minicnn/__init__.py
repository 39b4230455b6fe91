"""minicnn: a from-scratch CNN engine for LArTPC event images, data-parallel over MPI.

Importing it loads neither numba, cupy nor mpi4py: backends and MPI load when they are first used.
"""

# First: it tells the other ranks of a node of an import below that fails on this one.
from . import watch  # noqa: F401

# isort: split
from . import data, exchange, kernels, parallel
from .engine.model import Model, Sequential
from .inspect import trace
from .nn import initializers, layers, losses
from .nn import networks as models
from .nn.gradcheck import check_gradients
from .nn.graph import Input
from .nn.layers import *  # noqa: F403
from .nn.losses import Huber, MeanSquaredError, PixelCrossEntropy, SoftmaxCrossEntropy
from .nn.losses import evaluation as metrics
from .train import callbacks, optim
from .train.checkpoint import CheckpointError, load_model
from .train.evaluate import evaluate
from .train.fit import fit
from .train.optim import LARS, SGD, Adam
from .train.step import NotFiniteError, train_step
from .train.step_checkpoint import StepCheckpoint

__version__ = "0.1.0"

__all__ = [
    "LARS",
    "SGD",
    "Adam",
    "CheckpointError",
    "Huber",
    "Input",
    "MeanSquaredError",
    "Model",
    "NotFiniteError",
    "PixelCrossEntropy",
    "Sequential",
    "SoftmaxCrossEntropy",
    "StepCheckpoint",
    "callbacks",
    "check_gradients",
    "data",
    "evaluate",
    "exchange",
    "fit",
    "initializers",
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
__all__ += layers.__all__
