"""Layers: thin descriptions of what an op needs (shapes, parameters, saved state) over the kernels
of a backend.

A layer holds no data. ``forward`` gets the backend ``k``, its input, its parameters and a workspace
and returns the output and what its backward needs; ``backward`` returns the input gradient and
*adds* parameter gradients into ``g``. To add a layer: the op in kernels/reference.py, a class here,
a row in tests/test_layers.py; then the op in kernels/cpu and kernels/cuda.
"""

import math

import numpy as np

from ..kernels import shapes

REGISTRY = {}


class Layer:
    """Base of all layers. ``name`` is given or counted per model (elu_1, elu_2, ...)."""

    prefix = "layer"

    def __init_subclass__(cls):
        REGISTRY[cls.__name__] = cls

    def __init__(self, name=None):
        self.name = name

    def output_shape(self, shape):
        """Return the output shape for an input of ``shape``, both without the batch axis."""
        return shape

    def parameter_shapes(self, shape):
        """Return {"w": shape, "b": shape}, empty for a layer without parameters."""
        return {}

    def initialize(self, p, rng):
        """Fill the parameters p: w Glorot-uniform, U(-a, a) with a = sqrt(6 / (fan_in + fan_out));
        b zero (Glorot, Bengio 2010).
        """
        if p:
            *window, fan_in, fan_out = p["w"].shape
            limit = math.sqrt(6 / ((fan_in + fan_out) * math.prod(window)))
            p["w"][...] = rng.uniform(-limit, limit, p["w"].shape)
            p["b"][...] = 0

    def flops(self, shape):
        """Floating-point operations of one event's forward pass (a multiply-add counts two)."""
        return math.prod(self.output_shape(shape))

    def config(self):
        """Return the constructor's arguments, JSON-ready; ``REGISTRY[type](**config)`` makes the
        same layer again.
        """
        return {"name": self.name}

    def forward(self, k, x, p, work=None, rng=None):
        """Return (y, saved). ``rng`` is a NumPy generator while training and None otherwise."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        """Return dx (or None) for dy and add the parameter gradients into the arrays of ``g``."""
        raise NotImplementedError(f"{type(self).__name__}.backward")

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{a}={b!r}' for a, b in self.config().items())})"


def _image(layer, shape):
    """Return ``shape`` if it is (H, W, C), else raise ValueError naming the layer."""
    if len(shape) != 3:
        raise ValueError(
            f"{type(layer).__name__} ({layer.name}) needs an image (H, W, C), got shape {shape}"
        )
    return shape


class Conv2D(Layer):
    """2-D convolution (cross-correlation, as Keras): ``filters`` outputs, window ``kernel_size``,
    "same" or "valid" padding.
    """

    prefix = "conv2d"

    def __init__(self, filters, kernel_size, strides=1, padding="valid", name=None):
        super().__init__(name)
        if int(filters) != filters or filters < 1:
            raise ValueError(f"filters must be a positive integer, got {filters!r}")
        self.filters, self.padding = int(filters), padding
        self.kernel_size = shapes.pair(kernel_size, "kernel_size")
        self.strides = shapes.pair(strides, "strides")
        shapes.same_or_valid(1, 1, 1, padding)

    def config(self):
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "name": self.name,
        }

    def parameter_shapes(self, shape):
        return {
            "w": (*self.kernel_size, _image(self, shape)[2], self.filters),
            "b": (self.filters,),
        }

    def output_shape(self, shape):
        return shapes.conv_output(
            (1, *shape), self.parameter_shapes(shape)["w"], self.strides, self.padding
        )[1:]

    def flops(self, shape):
        return 2 * math.prod(self.output_shape(shape)) * math.prod(self.kernel_size) * shape[2]

    def forward(self, k, x, p, work=None, rng=None):
        return k.conv2d(x, p["w"], p["b"], self.strides, self.padding, work=work), x

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return k.conv2d_backward(
            dy, saved, p["w"], self.strides, self.padding, need_dx, g["w"], g["b"], work=work
        )[0]


class ELU(Layer):
    """y = x where x > 0, else alpha (e^x - 1)."""

    prefix = "elu"

    def __init__(self, alpha=1.0, name=None):
        super().__init__(name)
        self.alpha = float(alpha)

    def config(self):
        return {"alpha": self.alpha, "name": self.name}

    def forward(self, k, x, p, work=None, rng=None):
        y = k.elu(x, self.alpha)
        return y, y

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return k.elu_backward(dy, saved, self.alpha)


class ReLU(Layer):
    """y = max(x, 0)."""

    prefix = "relu"
    alpha = 0.0  # in a fused block: an ELU without its negative branch

    def forward(self, k, x, p, work=None, rng=None):
        y = k.relu(x)
        return y, y

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return k.relu_backward(dy, saved)


class MaxPooling2D(Layer):
    """Maximum over windows of ``pool_size``, one every ``strides`` (default: pool_size); windows
    that do not fit are dropped.
    """

    prefix = "max_pooling2d"

    def __init__(self, pool_size=2, strides=None, name=None):
        super().__init__(name)
        self.pool_size = shapes.pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else shapes.pair(strides, "strides")

    def config(self):
        return {"pool_size": self.pool_size, "strides": self.strides, "name": self.name}

    def output_shape(self, shape):
        return shapes.pool_output((1, *_image(self, shape)), self.pool_size, self.strides)[1:]

    def forward(self, k, x, p, work=None, rng=None):
        y, argmax = k.maxpool2d(x, self.pool_size, self.strides)
        return y, (argmax, x.shape)

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return k.maxpool2d_backward(dy, *saved, self.pool_size, self.strides)


class Flatten(Layer):
    """(H, W, C) -> (H * W * C,), row-major."""

    prefix = "flatten"

    def output_shape(self, shape):
        return (math.prod(shape),)

    def flops(self, shape):
        return 0

    def forward(self, k, x, p, work=None, rng=None):
        return x.reshape(len(x), -1), x.shape

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return dy.reshape(saved)


class Dense(Layer):
    """y = x w + b with ``units`` outputs; the input must be flat (put a Flatten before it)."""

    prefix = "dense"

    def __init__(self, units, name=None):
        super().__init__(name)
        if int(units) != units or units < 1:
            raise ValueError(f"units must be a positive integer, got {units!r}")
        self.units = int(units)

    def config(self):
        return {"units": self.units, "name": self.name}

    def parameter_shapes(self, shape):
        if len(shape) != 1:
            raise ValueError(
                f"Dense ({self.name}) needs a flat input, got shape {shape}: put a Flatten() before it"
            )
        return {"w": (shape[0], self.units), "b": (self.units,)}

    def output_shape(self, shape):
        return self.parameter_shapes(shape)["b"]

    def flops(self, shape):
        return 2 * shape[0] * self.units

    def forward(self, k, x, p, work=None, rng=None):
        return k.dense(x, p["w"], p["b"], work=work), x

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return k.dense_backward(dy, saved, p["w"], need_dx, g["w"], g["b"], work=work)[0]


class Dropout(Layer):
    """While training each value is dropped with probability ``rate`` and the others are divided by
    1 - rate (Srivastava et al. 2014).
    """

    prefix = "dropout"

    def __init__(self, rate, name=None):
        super().__init__(name)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1), got {rate}")
        self.rate = float(rate)

    def config(self):
        return {"rate": self.rate, "name": self.name}

    def forward(self, k, x, p, work=None, rng=None):
        if rng is None or self.rate == 0:
            return x, None
        keep = k.asarray((rng.random(x.shape) >= self.rate).astype(np.uint8))
        return k.dropout(x, keep, self.rate), keep

    def backward(self, k, dy, saved, p, g, need_dx=True, work=None):
        return dy if saved is None else k.dropout(dy, saved, self.rate)
