"""Random arguments for the rows of the table of ops (ops.py): a function of a generator of numbers
that returns arguments by name. Shapes are small, and of all kinds: one pixel, one channel, more
than a vector of channels, windows that do not divide the image.
"""

from typing import Any

import numpy as np

from .arguments import AdamStep, Moments, SGDStep
from .shapes import Block, Geometry, effective_kernel

Arguments = dict[str, Any]


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _image(rng, smallest=1, largest=15, channels=9):
    n = rng.integers(1, 4)
    size = rng.integers(smallest, largest + 1, 2)
    return tuple(int(i) for i in (n, *size, rng.integers(1, channels + 1)))


def _pair(rng, most):
    """One or two numbers up to ``most``, as a caller may give them."""
    a, b = (int(i) for i in rng.integers(1, most + 1, 2))
    return a if rng.random() < 0.4 else (a, b)


def _two(value):
    return (value, value) if isinstance(value, int) else value


def _any_shape(rng):
    return tuple(int(i) for i in rng.integers(1, 9, rng.integers(1, 5)))


def elementwise(rng: np.random.Generator, **more: Any) -> Arguments:
    return {"x": floats(rng, *_any_shape(rng), scale=rng.choice([1.0, 30.0])), **more}


def dropout(rng: np.random.Generator) -> Arguments:
    x = floats(rng, *_any_shape(rng))
    return {"x": x, "keep": (rng.random(x.shape) < 0.7).astype(np.float32), "rate": 0.3}


def activation(rng: np.random.Generator) -> Arguments:
    from .reference.activations import ACTIVATIONS  # which imports the table of ops

    names = tuple(ACTIVATIONS)
    x = floats(rng, *_any_shape(rng), scale=rng.choice([1.0, 8.0]))
    return {"x": x, "function": names[rng.integers(len(names))], "alpha": 0.2}


def _geometry(rng, dilated=True):
    """Draw x's shape, kernel and Geometry that fit together."""
    shape, kernel = _image(rng), tuple(int(k) for k in rng.integers(1, 6, 2))
    stride, dilation = _pair(rng, 3), _pair(rng, 3) if dilated and rng.random() < 0.5 else 1
    reach = [effective_kernel(k, d) for k, d in zip(kernel, _two(dilation))]
    fits = reach[0] <= shape[1] and reach[1] <= shape[2]
    padding = "valid" if fits and rng.random() < 0.5 else "same"
    return shape, kernel, Geometry(stride, padding, dilation)


def conv2d(rng: np.random.Generator) -> Arguments:
    shape, kernel, geometry = _geometry(rng)
    ci, co = shape[3], int(rng.choice([1, 2, 5, 8, 17, 33, 70]))
    if rng.random() < 0.3:
        ci = co = 16  # weights and turned weights of one size
    return {
        "x": floats(rng, *shape[:3], ci),
        "w": floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        "b": floats(rng, co),
        "geometry": geometry,
    }


def depthwise(rng: np.random.Generator) -> Arguments:
    shape, kernel, geometry = _geometry(rng)
    each = int(rng.choice([1, 1, 2, 3]))
    return {
        "x": floats(rng, *shape),
        "w": floats(rng, *kernel, shape[3], each, scale=(kernel[0] * kernel[1]) ** -0.5),
        "b": floats(rng, shape[3] * each),
        "geometry": geometry,
    }


def transpose(rng: np.random.Generator) -> Arguments:
    shape, kernel, geometry = _geometry(rng, dilated=False)
    co = int(rng.choice([1, 2, 5, 17]))
    return {
        "x": floats(rng, *shape),
        "w": floats(rng, *kernel, co, shape[3], scale=shape[3] ** -0.5),
        "b": floats(rng, co),
        "geometry": Geometry(geometry.stride, str(rng.choice(["same", "valid"]))),
    }


def pool(rng: np.random.Generator) -> Arguments:
    shape = _image(rng, largest=20, channels=20)
    size = tuple(int(rng.integers(1, min(18, s) + 1)) for s in shape[1:3])
    stride = None if rng.random() < 0.5 else _pair(rng, 4)
    return {"x": floats(rng, *shape), "size": size, "stride": stride}


def image_case(rng: np.random.Generator) -> Arguments:
    return {"x": floats(rng, *_image(rng, largest=30, channels=20))}


def many_positions(rng: np.random.Generator) -> Arguments:
    """More of them than a task or a chunk has."""
    if rng.random() < 0.5:
        return image_case(rng)
    return {"x": floats(rng, 1, *(int(i) for i in rng.integers(60, 80, 2)), 3)}


def upsample(rng: np.random.Generator) -> Arguments:
    return {"x": floats(rng, *_image(rng, channels=20)), "size": _pair(rng, 4)}


def rows(rng: np.random.Generator, least: int = 1, mean: float = 0.0) -> np.ndarray:
    axes = rng.integers(least, 5)
    shape = *rng.integers(1, 12, axes - 1), rng.integers(1, 40)
    return floats(rng, *(int(i) for i in shape)) + np.float32(mean)


def moments(arguments: Arguments) -> Arguments:
    """Return the arguments with the moments of x, unless others were given."""
    if "moments" in arguments and not arguments["moments"].of_batch:
        return arguments
    flat = np.asarray(arguments["x"], np.float64).reshape(-1, arguments["x"].shape[-1])
    return {**arguments, "moments": Moments(flat.mean(0), flat.var(0))}


def channel_moments(rng: np.random.Generator) -> Arguments:
    return {"x": rows(rng, least=2, mean=rng.choice([0.0, 1000.0]))}


def normalize(rng: np.random.Generator) -> Arguments:
    x = rows(rng, least=2, mean=rng.choice([0.0, 10.0]))
    batch = bool(rng.random() < 0.6)
    arguments = {
        "x": x,
        "gamma": floats(rng, x.shape[-1]),
        "beta": floats(rng, x.shape[-1]),
        "epsilon": 1e-2,
    }
    if batch:
        return moments(arguments)
    c = x.shape[-1]
    return {
        **arguments,
        "moments": Moments(rng.standard_normal(c), rng.random(c) + 0.1, of_batch=False),
    }


def layer_norm(rng: np.random.Generator) -> Arguments:
    x = rows(rng)
    c = x.shape[-1]
    return {"x": x, "gamma": floats(rng, c), "beta": floats(rng, c), "epsilon": 1e-2}


def block(rng: np.random.Generator) -> Arguments:
    shape, kernel, geometry = _geometry(rng, dilated=False)
    ci, co = shape[3], int(rng.choice([1, 3, 10, 33, 64]))
    padding = geometry.padding
    size = Geometry(1, padding).output(shape, (*kernel, ci, co))[1:3]
    return {
        "x": floats(rng, *shape),
        "w": floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        "b": floats(rng, co),
        "block": Block(
            (int(rng.integers(1, min(5, size[0]) + 1)), int(rng.integers(1, min(5, size[1]) + 1))),
            float(rng.choice([1.0, 0.5, 0.0])),
            padding,
        ),
    }


def dense(rng: np.random.Generator) -> Arguments:
    n, inputs, outputs = (int(rng.integers(1, most)) for most in (5, 700, 40))
    return {
        "x": floats(rng, n, inputs),
        "w": floats(rng, inputs, outputs, scale=inputs**-0.5),
        "b": floats(rng, outputs),
    }


def cross_entropy(rng: np.random.Generator) -> Arguments:
    n, classes = int(rng.integers(1, 40)), int(rng.integers(2, 9))
    return {
        "logits": floats(rng, n, classes, scale=9),
        "labels": rng.integers(0, classes, n),
    }


def sgd(rng: np.random.Generator) -> Arguments:
    size = int(rng.integers(1, 20_000))
    return {
        **{name: floats(rng, size) for name in ("w", "dw", "velocity")},
        "step": SGDStep(0.1, 0.9, bool(rng.random() < 0.5), float(rng.choice([0.0, 0.1])), 0.25),
    }


def adam(rng: np.random.Generator) -> Arguments:
    size = int(rng.integers(1, 20_000))
    return {
        **{name: floats(rng, size) for name in ("w", "dw", "mean")},
        "square": floats(rng, size) ** 2,
        "step": AdamStep(
            int(rng.choice([1, 2, 1000])), 0.01, epsilon=1e-3, weight_decay=0.1, scale=0.25
        ),
    }


def finite(rng: np.random.Generator) -> Arguments:
    array = floats(rng, int(rng.integers(1, 30_000)))
    if rng.random() < 0.6:
        array[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return {"array": array}


def _lit(rng):
    """An image of one event: background but for some pixels."""
    shape = (1, *(int(i) for i in rng.integers(6, 40, 2)), int(rng.integers(1, 4)))
    lit = rng.random((*shape[:3], 1)) < rng.choice([0.0, 0.02, 0.3])
    return (floats(rng, *shape) * lit).astype(np.float32)


def _positions(rng):
    x = _lit(rng)
    positions = np.argwhere(rng.random(x.shape[1:3]) < 0.2).astype(np.int32)
    classes = tuple(
        rng.integers(0, class_count, size) for class_count, size in zip((3, 2), x.shape[1:3])
    )
    return {
        "x": x,
        "positions": positions,
        "values": floats(rng, len(positions), x.shape[3]),
    }, classes


def lit_pixels(rng: np.random.Generator) -> Arguments:
    return {"x": _lit(rng)}


def take_pixels(rng: np.random.Generator) -> Arguments:
    arguments, _ = _positions(rng)
    return {"x": arguments["x"], "positions": arguments["positions"]}


def put_pixels(rng: np.random.Generator) -> Arguments:
    return _positions(rng)[0]


def class_sums(rng: np.random.Generator) -> Arguments:
    arguments, classes = _positions(rng)
    return {
        "values": arguments["values"],
        "positions": arguments["positions"],
        "classes": classes,
        "pairs": (3, 2),
    }


def class_values(rng: np.random.Generator) -> Arguments:
    arguments, classes = _positions(rng)
    return {"table": floats(rng, 3, 2, 4), "positions": arguments["positions"], "classes": classes}


def merge_positions(rng: np.random.Generator) -> Arguments:
    masks = rng.random((2, *rng.integers(1, 40, 2))) < rng.choice([0.0, 0.1, 0.5])
    if rng.random() < 0.3:
        masks[1] |= masks[0]
    first, second = (np.argwhere(mask).astype(np.int32) for mask in masks)
    return {"first": first, "second": second}
