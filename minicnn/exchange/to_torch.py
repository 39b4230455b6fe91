"""Networks as PyTorch modules in readable Python; torch_files.py writes, reads and runs them.

RULES has a row per layer: a function of the step that returns a Row. As PyTorch has it, images are
(N, C, H, W), those of the caller too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..kernels import shapes
from ..nn import layers
from ..nn.graph import InputLayer
from .steps import PixelMap, Step, Times, description, identifiers, rule_for, steps_of

if TYPE_CHECKING:
    from ..engine.model import Model

#: The attribute of a module beside its weights that PyTorch counts batches in.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Weight:
    """Where an array of PyTorch's module is from: the layer's array ``key`` with its axes in the
    order ``axes``, and then in the shape ``shape``.
    """

    key: str
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def there(self, array: np.ndarray) -> np.ndarray:
        """Return PyTorch's array of the layer's."""
        array = array.transpose(self.axes) if self.axes else array
        return np.ascontiguousarray(array.reshape(self.shape) if self.shape else array)

    def back(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return the layer's array, of this shape, of PyTorch's; ValueError for another size."""
        if not self.axes:
            return array.reshape(shape)
        permuted = array.reshape([shape[axis] for axis in self.axes])
        return permuted.transpose(np.argsort(self.axes))


@dataclass(frozen=True)
class Row:
    """A layer in PyTorch. call: the expression of its result; {x}, in layers of several inputs
    {xs}, are its inputs and {self} is its module. module: the expression that makes that, "" where
    there is none. weights: {name in the module: Weight}.
    """

    call: str
    module: str = ""
    weights: Mapping[str, Weight] = field(default_factory=dict)


BIAS = {"bias": Weight("b")}


def _pads(step: Step, dilation: tuple[int, int]) -> str:
    """Return {x}, within the zeros of padding "same": PyTorch's own are the same on both sides."""
    layer = step.layer
    rows, columns = (
        shapes.same_or_valid(size, shapes.effective_kernel(kernel, apart), stride, layer.padding)
        for size, kernel, apart, stride in zip(
            step.inputs[0], layer.kernel_size, dilation, layer.strides
        )
    )
    return f"F.pad({{x}}, {[*columns, *rows]})" if any((*rows, *columns)) else "{x}"


def _conv(step: Step) -> Row:
    layer, channels = step.layer, step.inputs[0][2]
    options = f"stride={layer.strides}, dilation={layer.dilation}"
    return Row(
        f"{{self}}({_pads(step, layer.dilation)})",
        f"nn.Conv2d({channels}, {layer.filters}, {layer.kernel_size}, {options})",
        {"weight": Weight("w", (3, 2, 0, 1)), **BIAS},
    )


def _depthwise(step: Step) -> Row:
    layer, channels, outputs = step.layer, step.inputs[0][2], step.shape[2]
    options = f"stride={layer.strides}, dilation={layer.dilation}, groups={channels}"
    return Row(
        f"{{self}}({_pads(step, layer.dilation)})",
        f"nn.Conv2d({channels}, {outputs}, {layer.kernel_size}, {options})",
        {"weight": Weight("w", (2, 3, 0, 1), (outputs, 1, *layer.kernel_size)), **BIAS},
    )


def _transposed(step: Step) -> Row:
    """Without padding PyTorch makes the "valid" result, save for rows that no tap reaches."""
    layer, (h, w, _) = step.layer, step.shape
    kernel, stride = layer.kernel_size, layer.strides
    more = tuple(max(s - k, 0) for k, s in zip(kernel, stride))
    call = "{self}({x})"
    if layer.padding == "same":
        top, left = (max(k - s, 0) // 2 for k, s in zip(kernel, stride))
        call += f"[:, :, {top}:{top + h}, {left}:{left + w}]"
    options = f"stride={stride}, output_padding={more}"
    return Row(
        call,
        f"nn.ConvTranspose2d({step.inputs[0][2]}, {layer.filters}, {kernel}, {options})",
        {"weight": Weight("w", (3, 2, 0, 1)), **BIAS},
    )


def _dense(step: Step) -> Row:
    (inputs,) = step.inputs[0]
    weights = {"weight": Weight("w", (1, 0)), **BIAS}
    return Row("{self}({x})", f"nn.Linear({inputs}, {step.layer.units})", weights)


def _batch_normalization(step: Step) -> Row:
    layer, kind = step.layer, "BatchNorm2d" if step.is_image else "BatchNorm1d"
    settings = f"eps={layer.epsilon}, momentum={round(1 - layer.momentum, 12)}"
    names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    return Row(
        "{self}({x})",
        f"nn.{kind}({step.shape[-1]}, {settings})",
        {name: Weight(key) for name, key in names.items()},
    )


def _layer_normalization(step: Step) -> Row:
    inside = "{self}({x})"
    if step.is_image:
        inside = "{self}({x}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
    module = f"nn.LayerNorm({step.shape[-1]}, eps={step.layer.epsilon})"
    return Row(inside, module, {"weight": Weight("gamma"), "bias": Weight("beta")})


def _pool(function: str) -> Callable[[Step], Row]:
    def rule(step: Step) -> Row:
        layer = step.layer
        return Row(f"F.{function}({{x}}, {layer.pool_size}, {layer.strides})")

    return rule


def _flat(step: Step) -> Row:
    """Flatten in the order of minicnn, in which the channels of a pixel are neighbours."""
    last = ".permute(0, 2, 3, 1)" if len(step.inputs[0]) == 3 else ""
    return Row(f"{{x}}{last}.flatten(1)")


def _enlarged(step: Step) -> Row:
    rows, columns = step.layer.size
    return Row(f"{{x}}.repeat_interleave({rows}, 2).repeat_interleave({columns}, 3)")


def _padded(step: Step) -> Row:
    rows, columns = step.layer.padding
    return Row(f"F.pad({{x}}, {[*columns, *rows]})")


def _cropped(step: Step) -> Row:
    (top, _), (left, _) = step.layer.cropping
    h, w, _ = step.shape
    return Row(f"{{x}}[:, :, {top}:{top + h}, {left}:{left + w}]")


def _pixels(step: Step) -> Row:
    scale, knee = step.layer.scale, step.layer.knee
    if knee is None:
        return Row(f"{{x}} * {scale!r}")
    return Row(f"torch.sign({{x}}) * {scale * knee!r} * torch.log1p({{x}}.abs() / {knee!r})")


def _call(expression: str) -> Callable[[Step], Row]:
    """Return the rule of a layer that is one expression, with ``layer`` for its settings."""
    return lambda step: Row(expression.format(x="{x}", xs="{xs}", self="{self}", layer=step.layer))


def _dropout(kind: str) -> Callable[[Step], Row]:
    return lambda step: Row("{self}({x})", f"nn.{kind}({step.layer.rate})")


RULES: dict[type, Callable[[Step], Row]] = {
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv2DTranspose: _transposed,
    layers.Dense: _dense,
    layers.Flatten: _flat,
    layers.MaxPooling2D: _pool("max_pool2d"),
    layers.AveragePooling2D: _pool("avg_pool2d"),
    layers.GlobalAveragePooling2D: _call("{x}.mean((2, 3))"),
    layers.GlobalMaxPooling2D: _call("{x}.amax((2, 3))"),
    layers.UpSampling2D: _enlarged,
    layers.ZeroPadding2D: _padded,
    layers.Cropping2D: _cropped,
    layers.ELU: _call("F.elu({x}, {layer.alpha})"),
    layers.ReLU: _call("F.relu({x})"),
    layers.LeakyReLU: _call("F.leaky_relu({x}, {layer.alpha})"),
    layers.GELU: _call("F.gelu({x})"),
    layers.SiLU: _call("F.silu({x})"),
    layers.Sigmoid: _call("torch.sigmoid({x})"),
    layers.Tanh: _call("torch.tanh({x})"),
    layers.Softplus: _call("F.softplus({x})"),
    layers.Softmax: _call("F.softmax({x}, 1)"),
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
    layers.Dropout: _dropout("Dropout"),
    layers.SpatialDropout2D: _dropout("Dropout2d"),
    layers.Add: lambda step: Row(" + ".join(f"{{xs[{i}]}}" for i in range(len(step.sources)))),
    layers.Concatenate: _call("torch.cat([{xs}], 1)"),
    PixelMap: _pixels,
    Times: _call("{x} * {layer.factor!r}"),
}

HEADER = '''"""A network that {made_by} trained, as a PyTorch module.

``load()`` returns it with the weights that lie beside this file. It takes pixels as they are
recorded (whatever scaling the network has is a part of it), images (N, C, H, W), and gives
{what}.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

CLASS_NAMES = {class_names!r}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
'''
FOOTER = '''

def load(path=Path(__file__).with_suffix(".safetensors")) -> Network:
    """Return the network with its weights, in evaluation mode."""
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(path), strict=True)
    return network.eval()
'''


#: Names that a module has already, as a method or in the source.
RESERVED = {
    *("training", "forward", "train", "eval", "parameters", "buffers", "modules", "children"),
    *("to", "cpu", "cuda", "half", "float", "double", "type", "apply", "compile", "share_memory"),
    *("state_dict", "load_state_dict", "zero_grad", "extra_repr", "self", "torch", "nn", "F"),
    *("dump_patches", "call_super_init", "bfloat16", "xpu", "ipu", "mtia", "add_module"),
}


def source_and_state(model: Model) -> tuple[str, dict[str, np.ndarray]]:
    """Return (Python source of a module ``Network``, {"conv2d_1.weight": array, ...})."""
    steps, outputs = steps_of(model)
    names = identifiers(steps, RESERVED)
    made: list[str] = []
    lines: list[str] = []
    state: dict[str, np.ndarray] = {}
    results: list[str] = []
    inputs: list[str] = []
    for step in steps:
        name = names[step.name]
        if isinstance(step.layer, InputLayer):
            inputs.append(name)
            results.append(name)
            continue
        row = rule_for(RULES, step, "minicnn.exchange.to_torch.RULES")(step)
        if row.module and f"self.{name} = " not in "".join(made):
            made.append(f"        self.{name} = {row.module}\n")
            state |= _state(step, row, name)
        xs = [results[source] for source in step.sources]
        call = row.call.format(x=xs[0], xs=_Listed(xs), self=f"self.{name}")
        results.append(f"x{len(results)}")
        lines.append(f"        {results[-1]} = {call}  # {_shape(step)}\n")
    shown = ", ".join(results[number] for number in outputs)
    about = {**description(model), "what": _what(model)}
    arguments = "".join(f", {name}: torch.Tensor" for name in inputs)
    kind = (
        "torch.Tensor"
        if len(outputs) == 1
        else f"tuple[{', '.join(['torch.Tensor'] * len(outputs))}]"
    )
    head = f"\n    def forward(self{arguments}) -> {kind}:\n"
    body = "".join([*made, head, *lines, f"        return {shown}\n"])
    return HEADER.format(**about) + body + FOOTER, state


class _Listed(list):
    """Names that print with commas between them."""

    def __format__(self, form: str) -> str:
        return ", ".join(self)


def _shape(step: Step) -> str:
    """Return the shape of a step's result as PyTorch has it."""
    *sides, channels = step.shape
    return " x ".join(map(str, (channels, *sides)))


def _what(model: Model) -> str:
    if model.options.class_names is None:
        return "what ``Model.predict`` gives"
    return "the scores of CLASS_NAMES"


def _state(step: Step, row: Row, name: str) -> dict[str, np.ndarray]:
    assert step.arrays is not None
    state = {f"{name}.{key}": w.there(step.arrays[w.key]) for key, w in row.weights.items()}
    if "running_mean" in row.weights:
        state[f"{name}.{COUNTER}"] = np.zeros((), np.int64)
    return state
