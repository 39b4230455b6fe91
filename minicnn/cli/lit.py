"""``lit``: what of every feature map is at rest and what is lit, as a picture."""

import argparse
from typing import Any

import numpy as np

from .common import one_process, reader_arguments, reader_options


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", nargs="?", help="events in any format that minicnn reads (default: a short track)")
    add("--event", type=int, default=0, metavar="K", help="number of the event in the file, from 0")
    add(
        "--weights",
        metavar="MODEL",
        help="the trained model of which to draw the maps (default: a small network of its own)",
    )
    add("--layers", nargs="+", default=(), metavar="NAME", help="which maps (default: the first)")
    add("--out", metavar="PNG", default="lit.png", help="picture to write, .png, .pdf or .svg")
    reader_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..inspect.opening import open_reader
    from ..inspect.report.lit import draw_lit

    one_process("lit")
    if bool(args.file) != bool(args.weights):
        raise ValueError("a model needs a file of events, and events need a model: --weights MODEL")
    if args.file:
        from ..train.checkpoint import load_model

        model, options = load_model(args.weights, "cpu"), reader_options(args)
        rows, columns, _ = model.input_shape
        if rows == columns:  # as predict places events
            options.setdefault("size", rows)
        with open_reader(args.file, options) as events:
            image = events.read(args.event).image
    else:
        model, image = small_example()
    for line in draw_lit(model, image, args.out, args.layers):
        print(line)
    print(f"picture in {args.out}")
    return 0


def small_example() -> tuple[Any, Any]:
    """Return (a model, a SparseImage): layers of several kinds, small enough to see every position,
    and a track that begins at the border.
    """
    from ..data.sparse import SparseImage
    from ..engine.model import Model
    from ..nn import layers as nn
    from ..nn.graph import Input

    inputs = Input((24, 24, 1))
    x = nn.Conv2D(4, 3, padding="same", name="Conv2D 3 x 3")(inputs)
    y = nn.MaxPooling2D(2, name="MaxPooling2D 2")(nn.ReLU(name="ReLU")(x))
    y = nn.Conv2D(4, 3, padding="same", name="Conv2D 3 x 3, again")(y)
    y = nn.Conv2DTranspose(4, 2, strides=2, name="Conv2DTranspose 2")(y)
    y = nn.Concatenate(name="Concatenate")([y, x])
    outputs = nn.Dense(2)(nn.GlobalAveragePooling2D()(y))
    model = Model(inputs, outputs, device="reference", fuse=False, seed=3)
    rng = np.random.default_rng(0)
    biases = {
        name: w if w.ndim > 1 else rng.uniform(0.1, 0.4, w.shape)
        for name, w in model.get_weights().items()
    }
    model.set_weights(biases)
    steps = np.arange(10)
    positions = np.stack([10 + steps // 3, steps], 1)
    values = 1 + 0.5 * np.sin(steps)[:, None]
    return model, SparseImage(positions, values, (24, 24, 1))
