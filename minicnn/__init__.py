"""minicnn: a from-scratch CNN engine for LArTPC event images, data-parallel over MPI.

Importing it loads neither numba, cupy nor mpi4py: backends and MPI load when they are first used.
"""
from . import callbacks, data, kernels, metrics, models, optim, parallel, trace
from .checkpoint import CheckpointError, load_model
from .gradcheck import check_gradients
from .layers import ELU, Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D, ReLU
from .model import Sequential
from .optim import LARS, SGD, Adam
from .train import NotFiniteError, evaluate, fit, train_step

__version__ = "0.1.0"

__all__ = ["ELU", "LARS", "SGD", "Adam", "CheckpointError", "Conv2D", "Dense", "Dropout", "Flatten", "Layer", "MaxPooling2D",
           "NotFiniteError", "ReLU", "Sequential", "callbacks", "check_gradients", "data", "evaluate", "fit", "kernels", "load_model",
           "metrics", "models", "optim", "parallel", "trace", "train_step"]
