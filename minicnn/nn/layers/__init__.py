"""Layers: thin descriptions of what an op needs over the kernels of a backend; see base.py."""

from .activation import (
    ELU,
    GELU,
    Activation,
    Dropout,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    SpatialDropout2D,
    Tanh,
)
from .base import REGISTRY, Context, Layer, Parameter
from .conv import Conv2D, Conv2DTranspose, DepthwiseConv2D
from .dense import Dense, Flatten
from .merge import Add, Concatenate, Cropping2D, UpSampling2D, ZeroPadding2D
from .norm import BatchNormalization, LayerNormalization
from .pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D

__all__ = [
    "ELU",
    "GELU",
    "REGISTRY",
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Context",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPooling2D",
    "Parameter",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialDropout2D",
    "Tanh",
    "UpSampling2D",
    "ZeroPadding2D",
]
