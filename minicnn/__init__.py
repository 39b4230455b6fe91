"""minicnn: a from-scratch CNN engine for LArTPC event images, data-parallel over MPI.

Importing it loads neither numba, cupy nor mpi4py: backends and MPI load when they are first used.
"""

from . import data, kernels, parallel
from .engine.model import Model, Sequential
from .inspect import trace
from .nn import initializers, layers, losses
from .nn import networks as models
from .nn.gradcheck import check_gradients
from .nn.graph import Input
from .nn.layers import (
    ELU,
    GELU,
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    Layer,
    LayerNormalization,
    LeakyReLU,
    MaxPooling2D,
    Parameter,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    SpatialDropout2D,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from .nn.losses import Huber, MeanSquaredError, PixelCrossEntropy, SoftmaxCrossEntropy
from .nn.losses import evaluation as metrics
from .train import callbacks, optim
from .train.checkpoint import CheckpointError, load_model
from .train.evaluate import evaluate
from .train.fit import fit
from .train.optim import LARS, SGD, Adam
from .train.step import NotFiniteError, train_step

__version__ = "0.1.0"

__all__ = [
    "ELU",
    "GELU",
    "LARS",
    "SGD",
    "Activation",
    "Adam",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "CheckpointError",
    "Concatenate",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Huber",
    "Input",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPooling2D",
    "MeanSquaredError",
    "Model",
    "NotFiniteError",
    "Parameter",
    "PixelCrossEntropy",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "SpatialDropout2D",
    "Tanh",
    "UpSampling2D",
    "ZeroPadding2D",
    "callbacks",
    "check_gradients",
    "data",
    "evaluate",
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
