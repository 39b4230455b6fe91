"""Random arguments of the ops on maps that are lit in few places, as in cases.py."""

import numpy as np

from .cases import Arguments, floats
from .lit import LitBlock, LitLists, lit_geometry, seen_by_convolution, seen_by_transposed
from .shapes import Geometry, effective_kernel
from .types import Kernels


def lit_channelwise(rng: np.random.Generator) -> Arguments:
    """Lists of random inputs, of which each feeds at most one cell through a tap."""
    kernel, channels = tuple(int(i) for i in rng.integers(1, 4, 2)), int(rng.choice([1, 3, 9, 33]))
    each, n = int(rng.choice([1, 1, 2])), int(rng.choice([0, 5, 700]))
    cells = max(1, n)
    feeds = np.full((kernel[0] * kernel[1], n), -1, np.int32)
    for fed in feeds:
        some = rng.random(n) < 0.6
        fed[some] = rng.permutation(cells)[: some.sum()]
    half = cells // 2
    chunks = np.array([[0, half, 0, n], [half, cells, 0, n]], np.int64)
    positions = np.stack([np.arange(cells, dtype=np.int32)] * 2, 1)
    return {
        "y": floats(rng, cells, channels * each),
        "changes": floats(rng, n, channels),
        "lists": LitLists(positions, feeds, chunks),
        "w": floats(rng, *kernel, channels, each),
    }


def _seen(rng, size):
    """Draw a convolution of images of ``size``, one in four transposed; returns (by axis the input
    under each tap of each output, and {"kernel", "geometry", "transposed"}).
    """
    kernel, stride = (tuple(int(i) for i in rng.integers(1, most + 1, 2)) for most in (5, 3))
    stride = (1, 1) if rng.random() < 0.5 else stride
    dilation = tuple(int(i) for i in rng.integers(1, 4, 2)) if rng.random() < 0.5 else (1, 1)
    if rng.random() < 0.25:
        geometry = Geometry(stride)
        outputs = geometry.transposed_output((1, *size, 1), (*kernel, 1, 1))
        pads = geometry.pads(outputs, (*kernel, 1, 1))
        seen = tuple(
            seen_by_transposed(
                size[axis], kernel[axis], stride[axis], pads[axis][0], outputs[1 + axis]
            )
            for axis in (0, 1)
        )
        return seen, {"kernel": kernel, "geometry": geometry, "transposed": True}
    fits = all(effective_kernel(k, d) <= s for k, d, s in zip(kernel, dilation, size))
    padding = "valid" if fits and rng.random() < 0.4 else "same"
    geometry = Geometry(stride, padding, dilation)
    outputs = geometry.output((1, *size, 1), (*kernel, 1, 1))
    pads = geometry.pads((1, *size, 1), (*kernel, 1, 1))
    seen = tuple(
        seen_by_convolution(
            size[axis], kernel[axis], stride[axis], dilation[axis], pads[axis][0], outputs[1 + axis]
        )
        for axis in (0, 1)
    )
    return seen, {"kernel": kernel, "geometry": geometry, "transposed": False}


def _lit_classes(rng, size):
    """Classes of rows and columns: all alike as in an image, those of a layer before, or any."""
    kind, alike = rng.random(), tuple(np.zeros(n, np.int32) for n in size)
    if kind < 0.3:
        return alike
    if kind < 0.7:
        rows, columns = (seen_by_convolution(n, 5, 1, 1, 2, n) for n in size)
        return lit_geometry(alike, (rows, columns)).cell_classes
    some = (rng.integers(0, 3, n) for n in size)
    return tuple(np.unique(c, return_inverse=True)[1].astype(np.int32) for c in some)


def lit(rng: np.random.Generator) -> Arguments:
    """Events lit in some places, none, or all, and a block on them; ``options`` and ``pool`` say
    which convolution and pooling of the dense images it is.
    """
    from .reference.lit import lit_rest  # whose package imports the table of ops

    size = tuple(int(i) for i in rng.integers(1, 5 if rng.random() < 0.15 else 25, 2))
    events = int(rng.integers(1, 4))
    seen, options = _seen(rng, size)
    ph, pw = (int(rng.integers(1, min(5, len(s)) + 1)) for s in seen)
    pool = (1, 1) if rng.random() < 0.3 else (ph, pw)
    classes = _lit_classes(rng, size)
    geometry = lit_geometry(classes, seen, pool)
    ci, co = int(rng.choice([1, 2, 10, 33, 64, 130])), int(rng.choice([1, 3, 10, 33, 64, 130]))
    kernel = options["kernel"]
    lit = rng.random((events, *size)) < rng.choice([0.0, 0.05, 0.1, 0.3, 0.3, 1.0])
    lit[rng.integers(events)] &= rng.random() < 0.8  # an event without a lit pixel among others
    positions = np.argwhere(lit.reshape(-1, size[1])).astype(np.int32)
    rest = floats(rng, *geometry.input_pairs, ci)
    block = LitBlock(
        floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        floats(rng, co),
        geometry,
        (None, 1.0, 0.5, 0.0)[rng.integers(4)],
    )
    return {
        "positions": positions,
        "events": events,
        "geometry": geometry,
        "changes": floats(rng, len(positions), ci),
        "rest": rest,
        "block": block,
        "resting": lit_rest(rest, block),
        "classes": classes,
        "options": options,
        "size": size,
    }


def with_lists(kernels: Kernels, arguments: Arguments) -> Arguments:
    """Add the lists of the lit inputs, which a backend makes as it likes them."""
    return {
        **arguments,
        "lists": kernels.lit_lists(
            arguments["positions"], arguments["events"], arguments["geometry"]
        ),
    }
