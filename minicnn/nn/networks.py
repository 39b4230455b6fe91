"""Networks by name."""

from __future__ import annotations

from typing import Any

from ..engine.model import Model, Sequential
from .graph import Input, Node
from .layers import (
    ELU,
    Add,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Flatten,
    GlobalAveragePooling2D,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    ReLU,
)
from .losses import PixelCrossEntropy


def microboone(size: int = 3600, channels: int = 1, classes: int = 5, **options: Any) -> Sequential:
    """Return the talk's five-class LArTPC network; for size 3600 and one plane it has 1,245,705
    parameters.

    Four blocks of Conv2D 5 x 5 "same" (10, 64, 128, 256 filters), ELU, MaxPooling2D 5; Flatten;
    Dense 32, ELU; Dense ``classes``. ``size`` is the side of the image in pixels (at least 625),
    ``channels`` the number of wire planes; ``options`` go to Sequential. Smaller images get as many
    blocks as leave at least one pixel. Source: Bhattacharya et al., "Scaling studies for deep
    learning in LArTPC event classification" (PNNL).
    """
    layers: list[Layer] = []
    side = size
    for i, filters in enumerate((10, 64, 128, 256), 1):
        if side < 5:
            break
        layers += [
            Conv2D(filters, 5, padding="same", name=f"block{i}_conv1"),
            ELU(),
            MaxPooling2D(5, name=f"block{i}_pool"),
        ]
        side //= 5
    if not layers:
        raise ValueError(f"size must be at least 5 pixels, got {size}")
    layers += [
        Flatten(name="flatten"),
        Dense(32, name="fc1"),
        ELU(),
        Dense(classes, name="predictions"),
    ]
    return Sequential(layers, input_shape=(size, size, channels), **options)


def residual_block(x: Node, filters: int, normalization: type[Layer] | None) -> Node:
    """Return x + two 3 x 3 convolutions of it, each behind a normalisation and ReLU (He et al.
    2016); a 1 x 1 convolution gives x the channels of the sum where it has others.
    """
    y = x
    for _ in range(2):
        y = ReLU()(normalization()(y) if normalization else y)
        y = Conv2D(filters, 3, padding="same")(y)
    return Add()([y, x if x.shape[2] == filters else Conv2D(filters, 1)(x)])


def resnet(
    size: int = 512,
    channels: int = 1,
    classes: int = 5,
    filters: tuple[int, ...] = (16, 32, 64),
    normalization: type[Layer] | None = LayerNormalization,
    **options: Any,
) -> Model:
    """Return a residual network: a 5 x 5 convolution, then for each of ``filters`` a residual block
    and a maximum over 2 x 2, then the average over the image and Dense ``classes``.

    normalization: a class, LayerNormalization (per pixel) or BatchNormalization, or None.
    ``options`` go to Model.
    """
    inputs = Input((size, size, channels))
    x = Conv2D(filters[0], 5, padding="same")(inputs)
    for count in filters:
        x = MaxPooling2D(2)(residual_block(x, count, normalization))
    outputs = Dense(classes, name="predictions")(GlobalAveragePooling2D()(x))
    return Model(inputs, outputs, **options)


def unet(
    size: int = 256,
    channels: int = 1,
    classes: int = 2,
    filters: tuple[int, ...] = (8, 16, 32),
    **options: Any,
) -> Model:
    """Return a small U-Net (Ronneberger et al. 2015), which says a class for every pixel: going
    down, two 3 x 3 convolutions and a maximum over 2 x 2 for each of ``filters``; going up, a
    transposed convolution, joined with what went down at that size. Its loss by default is
    PixelCrossEntropy. ``size`` must be divisible by 2^len(filters). ``options`` go to Model.
    """
    if size % 2 ** len(filters):
        raise ValueError(f"size must be divisible by {2 ** len(filters)}, got {size}")

    def two(x: Node, count: int) -> Node:
        for _ in range(2):
            x = ReLU()(Conv2D(count, 3, padding="same")(x))
        return x

    inputs = Input((size, size, channels))
    x, kept = inputs, []
    for count in filters:
        kept.append(two(x, count))
        x = MaxPooling2D(2)(kept[-1])
    x = two(x, 2 * filters[-1])
    for count, skip in zip(filters[::-1], kept[::-1]):
        x = Concatenate()([Conv2DTranspose(count, 2, strides=2, padding="same")(x), skip])
        x = two(x, count)
    outputs = Conv2D(classes, 1, name="predictions")(x)
    return Model(inputs, outputs, **{"loss": PixelCrossEntropy(), **options})


__all__ = ["microboone", "residual_block", "resnet", "unet"]
