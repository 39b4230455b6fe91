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


def microboone(
    size: int = 3600, channels: int = 1, classes: int = 5, views: bool = False, **options: Any
) -> Model:
    """Return the talk's five-class LArTPC network; for size 3600 and one plane it has 1,245,705
    parameters.

    Four blocks of Conv2D 5 x 5 "same" (10, 64, 128, 256 filters), ELU, MaxPooling2D 5; Flatten;
    Dense 32, ELU; Dense ``classes``. ``size`` is the side of the image in pixels (at least 625),
    ``channels`` the number of wire planes; ``options`` go to Sequential. Smaller images get as many
    blocks as leave at least one pixel. Source: Bhattacharya et al., "Scaling studies for deep
    learning in LArTPC event classification" (PNNL).

    views: the planes are not channels of one image but images of their own, as data.Planes hands
    them out: all go through the same four blocks, and Flatten takes what these make of each, side
    by side. A Model with ``channels`` inputs is returned then.
    """
    blocks: list[Layer] = []
    side = size
    for i, filters in enumerate((10, 64, 128, 256), 1):
        if side < 5:
            break
        blocks += [
            Conv2D(filters, 5, padding="same", name=f"block{i}_conv1"),
            ELU(),
            MaxPooling2D(5, name=f"block{i}_pool"),
        ]
        side //= 5
    if not blocks:
        raise ValueError(f"size must be at least 5 pixels, got {size}")
    head: list[Layer] = [
        Flatten(name="flatten"),
        Dense(32, name="fc1"),
        ELU(),
        Dense(classes, name="predictions"),
    ]
    if not views:
        return Sequential([*blocks, *head], input_shape=(size, size, channels), **options)
    planes = [Input((size, size, 1)) for _ in range(channels)]
    seen = [_chain(blocks, plane) for plane in planes]
    side_by_side = Concatenate(name="planes")(seen) if channels > 1 else seen[0]
    return Model(planes, _chain(head, side_by_side), **options)


def _chain(layers: list[Layer], x: Node) -> Node:
    for layer in layers:
        x = layer(x)
    return x


def residual_block(x: Node, filters: int, normalization: type[Layer] | None) -> Node:
    """Return x + two 3 x 3 convolutions of it to ``filters`` channels, each behind a
    ``normalization`` (a layer's class, or None) and ReLU (He et al. 2016); a 1 x 1 convolution
    gives x the channels of the sum where it has others.
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
    """Return a residual network for images (size, size, channels): a 5 x 5 convolution, then for
    each of ``filters`` a residual block and a maximum over 2 x 2, then the average over the image
    and Dense ``classes``.

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
    """Return a small U-Net (Ronneberger et al. 2015), which says one of ``classes`` for every pixel
    of images (size, size, channels): going down, two 3 x 3 convolutions and a maximum over 2 x 2
    for each of ``filters``; going up, a transposed convolution, joined with what went down at that
    size. Its loss by default is PixelCrossEntropy. ``size`` must be divisible by 2^len(filters).
    ``options`` go to Model.
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
