"""The contract of a layer.

A layer object holds its settings and nothing else: no arrays, no name of its own unless it is
given one, so it may be used several times in a model (its parameters are then shared) and in
several models. It says

    parameters(*shapes)     which arrays it learns           {"w": Parameter((3, 4)), ...}
    state(*shapes)          which arrays it keeps            {"mean": Parameter((4,), "zeros"), ...}
    output_shape(*shapes)   what comes out, without the batch axis
    forward(ctx, *xs)       -> (y, saved)
    backward(ctx, dy, saved) -> dx, or one dx per input; *adds* into ctx.grads["w"]

and gets everything else from the ``Context``. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...kernels.arguments import Wanted
from ...kernels.types import Array, Shape
from ...kernels.workspace import Workspace
from ..initializers import Initializer

if TYPE_CHECKING:
    from ..graph import Node

__all__ = ["Context", "Layer", "Parameter"]

#: Layer classes by name: how a model file finds them.
REGISTRY: dict[str, type[Layer]] = {}


@dataclass(frozen=True)
class Parameter:
    """An array that belongs to a layer: its shape, and its ``initializer``, how it begins (a name
    or a function (rng, shape) -> array, see nn.initializers).

    trainable: an optimizer changes it. decay: weight decay pulls it towards 0; right for weights,
    not for biases, scales and offsets, whose size is no measure of complexity.
    """

    shape: Shape
    initializer: str | Initializer = "glorot_uniform"
    trainable: bool = True
    decay: bool = True


class Context:
    """What a layer works with in one place of a model.

    kernels: the backend. params, grads, state: {"w": array, ...} of this layer; gradients are
    *added to*, they are sums over events and over the places where a shared layer is used.
    workspace: buffers that belong to this place alone; of several ops in one layer each needs its
    own, ``ctx.workspace.part("name")``. training: whether this pass learns (dropout drops, batch
    normalisation takes the statistics of the batch). rng: a NumPy generator while training, else
    None. need_input_gradient: whether anybody asks for dx; a layer may return None for it if not.
    """

    __slots__ = (
        "grads",
        "kernels",
        "need_input_gradient",
        "params",
        "rng",
        "state",
        "training",
        "workspace",
    )

    def __init__(self, kernels: Any, params=None, grads=None, state=None, workspace=None) -> None:
        self.kernels = kernels
        self.params: dict[str, Array] = params or {}
        self.grads: dict[str, Array] = grads or {}
        self.state: dict[str, Array] = state or {}
        self.workspace: Workspace = workspace if workspace is not None else Workspace()
        self.training = False
        self.rng: np.random.Generator | None = None
        self.need_input_gradient = True

    def wanted(self, *names: str) -> Wanted:
        """Return what a backward op is asked for: dx where somebody needs it, and the gradients of
        the op's parameters, which are added to those of ``names``.
        """
        return Wanted(self.need_input_gradient, tuple(self.grads[name] for name in names))

    def random(self, shape: Shape) -> np.ndarray:
        """Return numbers (*shape) from U(0, 1), float64, of this step's generator; only while
        training.
        """
        assert self.rng is not None, "random numbers are for training"
        return self.rng.random(shape)


class Layer:
    """Base of all layers.

    ``trainable`` may be set at any time and counts from the next step on.
    """

    #: What names are counted from; by default the class's name in lower case with underscores.
    prefix = "layer"
    #: True for a layer that needs all events of a batch in one call (statistics of the batch).
    needs_whole_batch = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "prefix" not in cls.__dict__:
            name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", cls.__name__)
            cls.prefix = name.lower().strip("_")
        other = REGISTRY.get(cls.__name__)
        if other is not None and other.__module__ != cls.__module__:
            raise ValueError(
                f"a layer named {cls.__name__} is there already, in {other.__module__}: models are "
                f"saved and loaded by this name, so choose another one for {cls.__module__}"
            )
        REGISTRY[cls.__name__] = cls

    def __init__(
        self,
        name: str | None = None,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        """Options of every layer: ``name``, by default counted in each model (elu_1, elu_2, ...);
        ``trainable``, False freezes the parameters; ``learning_rate_factor``, its parameters learn
        at the optimizer's rate times this. ``**options`` of a layer are these.
        """
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"a layer's name is a text without '/', got {name!r}")
        if not learning_rate_factor >= 0:
            raise ValueError(f"learning_rate_factor must be >= 0, got {learning_rate_factor!r}")
        self.name, self.trainable = name, bool(trainable)
        self.learning_rate_factor = float(learning_rate_factor)

    # -------------------------------------------------------------------------------- the contract
    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output shape for inputs of these shapes, all without the batch axis."""
        return shapes[0]

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """Return {name: Parameter} of the arrays that the layer learns, in the order in which they
        begin, for inputs of these ``shapes`` (a layer of one input: ``shape``), without batch axis.
        """
        return {}

    def state(self, *shapes: Shape) -> dict[str, Parameter]:
        """Return {name: Parameter} of arrays that the layer keeps and changes itself, for inputs of
        these ``shapes`` (of one input: ``shape``): saved with the model, broadcast to all ranks and
        averaged over them, never changed by an optimizer.
        """
        return {}

    def flops(self, *shapes: Shape) -> int:
        """Return the floating-point operations of one event's forward pass (a multiply-add counts
        two) for inputs of these ``shapes`` (of one input: ``shape``).
        """
        return math.prod(self.output_shape(*shapes))

    def forward(self, ctx: Context, *xs: Array) -> tuple[Array, Any]:
        """Return (y, saved) for the input x or several inputs xs, (N, ...) on the device; ``saved``
        is what backward needs. ctx: the Context of this place in the model.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        """Return dx, for several inputs a tuple of them, and add gradients into ctx.grads. dy: the
        gradient (N, ...) with respect to y; ``saved``: what forward returned.
        """
        raise NotImplementedError(f"{type(self).__name__}.backward")

    # ------------------------------------------------------------------------- the same for all
    def __call__(self, inputs: Node | Sequence[Node]) -> Node:
        """Return the node of a graph that applies this layer to a node, or to several; see
        Model.
        """
        from ..graph import connect

        return connect(self, inputs)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-ready: ``type(layer)(**config)`` makes the same
        layer again.

        They are looked up as attributes of the same names. ValueError where one is missing, because
        a saved model would come back with its default value.
        """
        options: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self" or parameter.kind in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                continue
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} keeps no attribute {name!r}, so the layer cannot be "
                    f"saved: set self.{name} in its constructor, or define config()"
                )
            options[name] = getattr(self, name)
        if not self.trainable:
            options["trainable"] = False
        if self.learning_rate_factor != 1:
            options["learning_rate_factor"] = self.learning_rate_factor
        options["name"] = self.name
        return options

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters
        shown = []
        for name, value in self.config().items():
            if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
                value = value[0]  # one number for rows and columns
            default = parameters[name].default if name in parameters else None
            if value is not None and value != default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def label(layer: Layer) -> str:
    """Return the layer's class and its name if it has one, for messages."""
    kind = type(layer).__name__
    return f"{kind} ({layer.name})" if layer.name else kind


def image_shape(layer: Layer, shape: Shape) -> Shape:
    """Return ``shape`` if it is (H, W, C), else raise ValueError naming the layer."""
    if len(shape) != 3:
        raise ValueError(f"{label(layer)} needs an image (H, W, C), got shape {shape}")
    return shape


def positive_integer(value: Any, name: str) -> int:
    """Return ``value`` as an int; ValueError unless it is a positive whole number."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
