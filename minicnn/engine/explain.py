"""What a network looks at: activations, gradients with respect to pixels, occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.sparse import SparseImage
from ..kernels.types import Array
from .lit import LitMap

if TYPE_CHECKING:
    from .model import Model


def activations(model: Model, x: Any, names: str | Sequence[str]) -> dict[str, np.ndarray]:
    """Return {name: output (N, ...)} of the layers of these names for a batch, at the second and
    later places of a shared layer under "name#2", ...

    Runs dense and unfused, because a fused block never makes what its inner layers give. ValueError
    for a name that is not there.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    graph = model.graph
    numbers = {graph.node_name(node): i for i, node in enumerate(graph.nodes)}
    for name in wanted:
        if name not in numbers:
            raise ValueError(f"no layer {name!r}: there are {', '.join(numbers)}")
    plan = model.dense_plan(fuse=False)
    found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for _, _, values in model.pieces(x, plan):
        nodes: list[Any] = [*values, *[None] * (len(graph.nodes) - len(values))]
        for stage in plan.stages:
            stage.context.training, stage.context.rng = False, None
            nodes[stage.output], _ = stage.forward(*(nodes[source] for source in stage.sources))
            for name in wanted:
                if numbers[name] == stage.output:
                    found[name].append(np.array(model.kernels.to_host(nodes[stage.output])))
            for number in stage.last_use_of:
                nodes[number] = None
        for name in wanted:
            if numbers[name] < len(values):
                found[name].append(np.array(model.kernels.to_host(values[numbers[name]])))
    return {
        name: np.concatenate(pieces)
        if pieces
        else np.zeros((0, *graph.nodes[numbers[name]].shape), model.dtype)
        for name, pieces in found.items()
    }


def lit_maps(model: Model, image: Any) -> dict[str, LitMap]:
    """Return {layer name: LitMap} of all that is at rest and lit in the network for one image, in
    the order of computation, the input first (engine/lit/map.py); a fused block has the name of its
    convolution. Valid until the model runs again.

    ValueError for a model of several inputs, or where the image runs on arrays from the start.
    """
    if len(model.graph.inputs) > 1:
        raise ValueError("lit_maps is for models of one input")
    ((_, _, (first,)),) = model.pieces([image])
    if not isinstance(first, LitMap):
        raise ValueError(
            "this image runs dense: too much of it is lit, or the model has zero_suppression "
            f"{model.options.zero_suppression!r}"
        )
    nodes: dict[int, Any] = {0: first}
    found = {model.graph.node_name(model.graph.nodes[0]): first}
    for stage in model.plan().stages:
        stage.context.training, stage.context.rng = False, None
        nodes[stage.output], _ = stage.forward(*(nodes[source] for source in stage.sources))
        if isinstance(nodes[stage.output], LitMap):
            found[stage.name] = nodes[stage.output]
    return found


def input_gradient(model: Model, x: Any, target: int | Sequence[int]) -> Any:
    """Return d output[target] / d pixel, (N, H, W, C), for a batch: which pixels the score of a
    class hangs on (Simonyan et al. 2014). Of a classifier the output is the score before softmax.

    target: a class, or one for each event. For a model of several inputs a list, one per input. The
    factor by which pixels are mapped as they enter is part of it. Weights and their gradients stay
    as they are.
    """
    count = len(model._per_input(x)[0])
    classes = np.broadcast_to(np.asarray(target, np.int64), (count,))
    bad = (classes < 0) | (classes >= model.classes)
    if bad.any():
        raise ValueError(
            f"target {classes[bad][0]}: the model has the outputs 0 to {model.classes - 1}"
        )
    plan, kernels = model.dense_plan(), model.kernels
    kept = kernels.to_host(model.gradients).copy()
    found: list[list[np.ndarray]] = [[] for _ in model.graph.inputs]
    try:
        for part, events, values in model.pieces(x, plan):
            outputs, run = model.run_forward(values, None, plan)
            slopes: list[Array] = [np.zeros(output.shape, model.dtype) for output in outputs]
            rows = np.arange(part.stop - part.start)
            slopes[0][rows, ..., classes[part]] = 1
            slopes = [kernels.asarray(slope) for slope in slopes]
            for i, dx in enumerate(model.run_backward(slopes, run, inputs=True)):
                images = [e.to_dense() if isinstance(e, SparseImage) else e for e in events[i]]
                pixels = np.asarray(images, model.dtype)
                host = np.zeros_like(pixels) if dx is None else np.asarray(kernels.to_host(dx))
                found[i].append(host * model.input_map.derivative(pixels))
    finally:
        model.gradients[...] = kernels.asarray(kept)
    joined = [
        np.concatenate(pieces) if pieces else np.zeros((0, *node.shape), model.dtype)
        for node, pieces in zip(model.graph.inputs, found)
    ]
    return joined[0] if len(joined) == 1 else joined


def occlusion_map(
    model: Model, image: Any, target: int, size: int = 32, stride: int = 0
) -> np.ndarray:
    """Return by how much the prediction of ``target`` falls where a window of ``size`` pixels is
    set to the background, (rows, columns), one window every ``stride`` pixels (default: size)
    (Zeiler, Fergus 2014). Windows without a lit pixel change nothing and are not computed.

    image: one SparseImage, or an array (H, W, C), whose background is 0.
    """
    if len(model.graph.inputs) > 1:
        raise ValueError("occlusion_map is for models of one input")
    sparse = image if isinstance(image, SparseImage) else SparseImage.from_dense(image)
    stride = stride or size
    if size < 1 or stride < 1:
        raise ValueError(f"size and stride must be at least 1, got {size} and {stride}")
    height, width, _ = sparse.shape
    result = np.zeros((-(-height // stride), -(-width // stride)))
    whole = float(model.predict([sparse])[0][target])
    rows, columns = sparse.coords[:, 0], sparse.coords[:, 1]
    for i in range(result.shape[0]):
        in_rows = (rows >= i * stride) & (rows < i * stride + size)
        first = np.unique(columns[in_rows] // stride)
        near = {int(j) - back for j in first for back in range(-(-size // stride))}
        for j in sorted(n for n in near if 0 <= n < result.shape[1]):
            inside = in_rows & (columns >= j * stride) & (columns < j * stride + size)
            if inside.any():
                covered = SparseImage(
                    sparse.coords[~inside], sparse.values[~inside], sparse.shape, sparse.background
                )
                result[i, j] = whole - float(model.predict([covered])[0][target])
    return result
