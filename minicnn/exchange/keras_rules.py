"""What a layer is called in Keras, and its settings there: one row per layer, for both directions.

Keras has minicnn's layout of images and of every array, so that rows name settings alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..nn import layers

#: Settings in which a layer of Keras must agree with minicnn's where it has them.
COMMON = {"data_format": "channels_last", "groups": 1, "keepdims": False}


@dataclass(frozen=True)
class Row:
    """kind: the class in keras.layers. settings: {minicnn's argument: Keras' argument}. fixed: what
    else Keras' arguments must be.
    """

    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _function(name: str) -> Row:
    return Row("Activation", {}, {"activation": name})


_WINDOW = {"kernel_size": "kernel_size", "strides": "strides", "padding": "padding"}
_POOL = {"pool_size": "pool_size", "strides": "strides"}

RULES: dict[type, Row] = {
    layers.Conv2D: Row("Conv2D", {"filters": "filters", **_WINDOW, "dilation": "dilation_rate"}),
    layers.DepthwiseConv2D: Row(
        "DepthwiseConv2D",
        {**_WINDOW, "depth_multiplier": "depth_multiplier", "dilation": "dilation_rate"},
    ),
    layers.Conv2DTranspose: Row(
        "Conv2DTranspose",
        {"filters": "filters", **_WINDOW},
        {"dilation_rate": (1, 1), "output_padding": None},
    ),
    layers.Dense: Row("Dense", {"units": "units"}),
    layers.Flatten: Row("Flatten"),
    layers.MaxPooling2D: Row("MaxPooling2D", _POOL, {"padding": "valid"}),
    layers.AveragePooling2D: Row("AveragePooling2D", _POOL, {"padding": "valid"}),
    layers.GlobalAveragePooling2D: Row("GlobalAveragePooling2D"),
    layers.GlobalMaxPooling2D: Row("GlobalMaxPooling2D"),
    layers.UpSampling2D: Row("UpSampling2D", {"size": "size"}, {"interpolation": "nearest"}),
    layers.ZeroPadding2D: Row("ZeroPadding2D", {"padding": "padding"}),
    layers.Cropping2D: Row("Cropping2D", {"cropping": "cropping"}),
    layers.ELU: Row("ELU", {"alpha": "alpha"}),
    layers.ReLU: Row("ReLU", {}, {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    layers.LeakyReLU: Row("LeakyReLU", {"alpha": "negative_slope"}),
    layers.GELU: _function("gelu"),
    layers.SiLU: _function("silu"),
    layers.Sigmoid: _function("sigmoid"),
    layers.Tanh: _function("tanh"),
    layers.Softplus: _function("softplus"),
    layers.Softmax: Row("Softmax", {}, {"axis": -1}),
    layers.BatchNormalization: Row(
        "BatchNormalization", {"momentum": "momentum", "epsilon": "epsilon"}, {"axis": -1}
    ),
    layers.LayerNormalization: Row("LayerNormalization", {"epsilon": "epsilon"}, {"axis": -1}),
    layers.Dropout: Row("Dropout", {"rate": "rate"}, {"noise_shape": None}),
    layers.SpatialDropout2D: Row("SpatialDropout2D", {"rate": "rate"}),
    layers.Add: Row("Add"),
    layers.Concatenate: Row("Concatenate", {}, {"axis": -1}),
}

#: What Keras calls an activation inside another layer, or in an Activation layer. "leaky_relu" has
#: Keras' slope there.
ACTIVATIONS: dict[str, Any] = {
    "relu": layers.ReLU,
    "elu": layers.ELU,
    "leaky_relu": lambda: layers.LeakyReLU(0.2),
    "gelu": layers.GELU,
    "silu": layers.SiLU,
    "swish": layers.SiLU,
    "sigmoid": layers.Sigmoid,
    "tanh": layers.Tanh,
    "softplus": layers.Softplus,
    "softmax": layers.Softmax,
}
