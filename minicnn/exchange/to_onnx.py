"""Networks as ONNX files, which onnxruntime, Triton and TensorRT run.

RULES has a row per layer: (builder, step, names of the inputs) -> name of the result. Inside,
images are (N, C, H, W), as ONNX's operators want them; the file's inputs and outputs are channels
last, the arrays that ``Model.predict`` takes and gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_write
from ..kernels import shapes
from ..nn import layers
from ..nn.graph import InputLayer
from .steps import PixelMap, Step, Times, description, optional, rule_for, steps_of

if TYPE_CHECKING:
    from ..engine.model import Model

#: ONNX's set of operators, of 2023 (the first with Gelu), and the version of the file's layout.
OPSET, IR_VERSION = 20, 9
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # permutations to channels first, and last


class Builder:
    """Nodes and constants of an ONNX graph as they come."""

    def __init__(self) -> None:
        self.onnx = optional("onnx", "onnx")
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: Any) -> str:
        """Return the name of a constant of the file; the same name is the same constant."""
        if name not in self.constants:
            array = np.ascontiguousarray(value)
            self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one result, whose name is returned."""
        result = f"/{kind.lower()}_{len(self.nodes)}"  # no layer has a "/" in its name
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [result], **attributes))
        return result

    def number(self, value: float) -> str:
        """Return the name of a float32 constant."""
        return self.constant(f"/number_{value!r}", np.float32(value))


def _weight(b: Builder, step: Step, key: str, axes: Sequence[int] = (), shape: Any = None) -> str:
    """Return the name of a layer's array, its axes put in ONNX's order."""
    array = step.arrays[key]  # type: ignore[index]
    array = array.transpose(axes) if axes else array
    return b.constant(f"{step.name}/{key}", array if shape is None else array.reshape(shape))


def _window(step: Step) -> dict[str, Any]:
    """Return the attributes of a convolution."""
    layer, dilation = step.layer, step.layer.dilation
    (top, bottom), (left, right) = (
        shapes.same_or_valid(size, shapes.effective_kernel(kernel, apart), stride, layer.padding)
        for size, kernel, apart, stride in zip(
            step.inputs[0], layer.kernel_size, dilation, layer.strides
        )
    )
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.strides,
        "dilations": dilation,
        "pads": [top, left, bottom, right],
    }


def _conv(b: Builder, step: Step, x: str) -> str:
    w = _weight(b, step, "w", (3, 2, 0, 1))
    return b.add("Conv", [x, w, _weight(b, step, "b")], **_window(step))


def _depthwise(b: Builder, step: Step, x: str) -> str:
    channels, kernel = step.inputs[0][2], step.layer.kernel_size
    w = _weight(b, step, "w", (2, 3, 0, 1), (step.shape[2], 1, *kernel))
    return b.add("Conv", [x, w, _weight(b, step, "b")], **_window(step), group=channels)


def _transposed(b: Builder, step: Step, x: str) -> str:
    layer = step.layer
    kernel, stride = layer.kernel_size, layer.strides
    over = [max(k - s, 0) if layer.padding == "same" else 0 for k, s in zip(kernel, stride)]
    w = _weight(b, step, "w", (3, 2, 0, 1))
    return b.add(
        "ConvTranspose",
        [x, w, _weight(b, step, "b")],
        kernel_shape=kernel,
        strides=stride,
        pads=[over[0] // 2, over[1] // 2, over[0] - over[0] // 2, over[1] - over[1] // 2],
        output_padding=[max(s - k, 0) for k, s in zip(kernel, stride)],
    )


def _dense(b: Builder, step: Step, x: str) -> str:
    return b.add("Gemm", [x, _weight(b, step, "w"), _weight(b, step, "b")])


def _batch_normalization(b: Builder, step: Step, x: str) -> str:
    own = [_weight(b, step, key) for key in ("gamma", "beta", "mean", "variance")]
    return b.add("BatchNormalization", [x, *own], epsilon=step.layer.epsilon)


def _layer_normalization(b: Builder, step: Step, x: str) -> str:
    x = b.add("Transpose", [x], perm=LAST) if step.is_image else x
    own = [_weight(b, step, key) for key in ("gamma", "beta")]
    y = b.add("LayerNormalization", [x, *own], epsilon=step.layer.epsilon, axis=-1)
    return b.add("Transpose", [y], perm=FIRST) if step.is_image else y


def _pool(kind: str) -> Callable[[Builder, Step, str], str]:
    def rule(b: Builder, step: Step, x: str) -> str:
        return b.add(kind, [x], kernel_shape=step.layer.pool_size, strides=step.layer.strides)

    return rule


def _flat(b: Builder, step: Step, x: str) -> str:
    """Flatten in the order of minicnn, in which the channels of a pixel are neighbours."""
    x = b.add("Transpose", [x], perm=LAST) if len(step.inputs[0]) == 3 else x
    return b.add("Flatten", [x])


def _enlarged(b: Builder, step: Step, x: str) -> str:
    scales = b.constant(f"{step.name}/scales", np.array([1, 1, *step.layer.size], np.float32))
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return b.add("Resize", [x, "", scales], mode="nearest", **options)


def _padded(b: Builder, step: Step, x: str) -> str:
    (top, bottom), (left, right) = step.layer.padding
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return b.add("Pad", [x, b.constant(f"{step.name}/pads", pads)])


def _cropped(b: Builder, step: Step, x: str) -> str:
    """Slices are named by their place: a shared layer crops images of several sizes."""
    (top, _), (left, _) = step.layer.cropping
    h, w, _ = step.shape
    limits = {"starts": [top, left], "ends": [top + h, left + w], "axes": [2, 3]}
    name = f"{step.name}/{h}x{w}"
    named = [b.constant(f"{name}/{key}", np.array(v, np.int64)) for key, v in limits.items()]
    return b.add("Slice", [x, *named])


def _pixels(b: Builder, step: Step, x: str) -> str:
    scale, knee = step.layer.scale, step.layer.knee
    if knee is None:
        return b.add("Mul", [x, b.number(scale)])
    size = b.add("Div", [b.add("Abs", [x]), b.number(knee)])
    bent = b.add("Log", [b.add("Add", [size, b.number(1.0)])])
    return b.add("Mul", [b.add("Mul", [b.add("Sign", [x]), bent]), b.number(scale * knee)])


RULES: dict[type, Callable[..., str]] = {
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv2DTranspose: _transposed,
    layers.Dense: _dense,
    layers.Flatten: _flat,
    layers.MaxPooling2D: _pool("MaxPool"),
    layers.AveragePooling2D: _pool("AveragePool"),
    layers.GlobalAveragePooling2D: lambda b, s, x: b.add(
        "Flatten", [b.add("GlobalAveragePool", [x])]
    ),
    layers.GlobalMaxPooling2D: lambda b, s, x: b.add("Flatten", [b.add("GlobalMaxPool", [x])]),
    layers.UpSampling2D: _enlarged,
    layers.ZeroPadding2D: _padded,
    layers.Cropping2D: _cropped,
    layers.ELU: lambda b, s, x: b.add("Elu", [x], alpha=s.layer.alpha),
    layers.ReLU: lambda b, s, x: b.add("Relu", [x]),
    layers.LeakyReLU: lambda b, s, x: b.add("LeakyRelu", [x], alpha=s.layer.alpha),
    layers.GELU: lambda b, s, x: b.add("Gelu", [x]),
    layers.SiLU: lambda b, s, x: b.add("Mul", [x, b.add("Sigmoid", [x])]),
    layers.Sigmoid: lambda b, s, x: b.add("Sigmoid", [x]),
    layers.Tanh: lambda b, s, x: b.add("Tanh", [x]),
    layers.Softplus: lambda b, s, x: b.add("Softplus", [x]),
    layers.Softmax: lambda b, s, x: b.add("Softmax", [x], axis=1),
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
    layers.Dropout: lambda b, s, x: x,
    layers.SpatialDropout2D: lambda b, s, x: x,
    layers.Add: lambda b, s, *xs: b.add("Sum", xs),
    layers.Concatenate: lambda b, s, *xs: b.add("Concat", xs, axis=1),
    PixelMap: _pixels,
    Times: lambda b, s, x: b.add("Mul", [x, b.number(s.layer.factor)]),
}


def write(model: Model, path: str | Path) -> None:
    """Write the network as an ONNX file. ExchangeError for a layer without a rule, or
    without the library onnx.
    """
    b, (steps, outputs) = Builder(), steps_of(model)
    helper, element = b.onnx.helper, b.onnx.TensorProto.FLOAT
    results: list[str] = []
    inputs: list[Any] = []
    for step in steps:
        if isinstance(step.layer, InputLayer):
            shape = ["events", *step.shape]
            inputs.append(helper.make_tensor_value_info(step.name, element, shape))
            results.append(b.add("Transpose", [step.name], perm=FIRST))
        else:
            rule = rule_for(RULES, step, "minicnn.exchange.to_onnx.RULES")
            results.append(rule(b, step, *(results[source] for source in step.sources)))
    named = []
    for output in outputs:
        step, result = steps[output], results[output]
        result = b.add("Transpose", [result], perm=LAST) if step.is_image else result
        name = f"{step.name}_output" if len(outputs) > 1 else "predictions"
        b.nodes.append(helper.make_node("Identity", [result], [name]))
        named.append(helper.make_tensor_value_info(name, element, ["events", *step.shape]))
    graph = helper.make_graph(b.nodes, "network", inputs, named, list(b.constants.values()))
    opset = helper.make_opsetid("", OPSET)
    file = helper.make_model(graph, opset_imports=[opset], producer_name="minicnn")
    file.ir_version = IR_VERSION
    about = {key: json.dumps(value) for key, value in description(model).items()}
    helper.set_model_props(file, about)
    b.onnx.checker.check_model(file, full_check=True)
    atomic_write(path, file.SerializeToString())


def runner(path: str | Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Return a function that runs the file by onnxruntime."""
    onnxruntime = optional("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return session.run(None, {entry.name: x for entry, x in zip(session.get_inputs(), images)})

    return run
