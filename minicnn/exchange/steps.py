"""A trained network as a list of steps, each with its arrays: what every format is written from.

Before the layers stands what happens to a pixel, behind them what ``Model.predict`` does to the
outputs, so that an exported model takes the pixels that minicnn takes and gives its predictions.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.types import Shape
from ..nn import losses
from ..nn.layers import Softmax
from ..nn.layers.base import label

if TYPE_CHECKING:
    from ..engine.model import Model


class ExchangeError(ValueError):
    """What cannot be written in another format, or read from it; the message says why."""


@dataclass(frozen=True)
class PixelMap:
    """v -> scale v, or with a knee scale * knee * log(1 + |v| / knee), of the sign of v: what the
    options input_scale and input_knee of a model say.
    """

    scale: float
    knee: float | None


@dataclass(frozen=True)
class Times:
    """y = factor x: a regression in units of its own."""

    factor: float


@dataclass(frozen=True)
class Step:
    """What ``layer`` (or a PixelMap, Times) makes of the results of the steps ``sources``.

    name: of the layer; several steps of a shared layer have the same. arrays: {"w": float32 array,
    ...}, its states among them. inputs, shape: shapes without the batch axis, channels last.
    """

    name: str
    layer: Any
    sources: tuple[int, ...] = ()
    arrays: Mapping[str, np.ndarray] | None = None
    inputs: tuple[Shape, ...] = ()
    shape: Shape = ()

    @property
    def is_image(self) -> bool:
        """Whether the result is (H, W, C)."""
        return len(self.shape) == 3


#: What ``Loss.predict`` does to an output, by loss; a loss that leaves outputs alone needs no row.
PREDICTIONS: dict[type, Callable[[Any], Any]] = {
    losses.SoftmaxCrossEntropy: lambda loss: Softmax(),
    losses.PixelCrossEntropy: lambda loss: Softmax(),
    losses.MeanSquaredError: lambda loss: Times(loss.scale) if loss.scale != 1 else None,
    losses.Huber: lambda loss: Times(loss.scale) if loss.scale != 1 else None,
}


def steps_of(model: Model) -> tuple[list[Step], list[int]]:
    """Return (steps in an order in which they can be computed, numbers of those that are outputs).

    ExchangeError where a loss of one's own changes what is predicted.
    """
    graph, options = model.graph, model.options
    arrays = {name: np.asarray(array, np.float32) for name, array in model.get_weights().items()}
    is_mapped = options.input_scale != 1 or options.input_knee is not None
    steps: list[Step] = []
    result: dict[int, int] = {}  # number of a node -> number of the step that has its result
    for number, (node, sources) in enumerate(zip(graph.nodes, graph.sources)):
        name, start = graph.names[node.layer], graph.names[node.layer] + "/"
        own = {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}
        inputs = tuple(source.shape for source in node.inputs)
        places = tuple(result[source] for source in sources)
        steps.append(Step(name, node.layer, places, own, inputs, node.shape))
        if not node.inputs and is_mapped:
            pixels = PixelMap(options.input_scale, options.input_knee)
            source = (len(steps) - 1,)
            steps.append(Step(f"{name}_pixels", pixels, source, {}, (node.shape,), node.shape))
        result[number] = len(steps) - 1
    outputs = []
    for number, loss in zip(graph.output_numbers, model.targets.losses):
        last = _prediction(loss)
        if last is not None:
            node = graph.nodes[number]
            name, source = f"{graph.node_name(node)}_predictions", (result[number],)
            steps.append(Step(name, last, source, {}, (node.shape,), node.shape))
        outputs.append(len(steps) - 1 if last is not None else result[number])
    return steps, outputs


def _prediction(loss: losses.Loss) -> Any:
    """Return the layer that stands for ``loss.predict``, None where it leaves outputs alone."""
    if type(loss) in PREDICTIONS:
        return PREDICTIONS[type(loss)](loss)
    if type(loss).predict is losses.Loss.predict:
        return None
    raise ExchangeError(
        f"{type(loss).__name__} has a predict of its own, which no other format knows: enter the "
        "layer that does it in minicnn.exchange.PREDICTIONS"
    )


def rule_for(rules: Mapping[type, Any], step: Step, table: str) -> Any:
    """Return the rule of a step's layer; ExchangeError naming layer and table where there is none.
    A class derived from one with a rule computes something else and needs its own.
    """
    rule = rules.get(type(step.layer))
    if rule is None:
        kind = label(step.layer) if hasattr(step.layer, "prefix") else repr(step.layer)
        raise ExchangeError(f"{step.name}: there is no rule for {kind}; enter one in {table}")
    return rule


def identifiers(steps: Sequence[Step], reserved: Container[str] = ()) -> dict[str, str]:
    """Return {name of a layer: a Python identifier}: names elsewhere have no blanks and dots."""
    found: dict[str, str] = {}
    for step in steps:
        name = re.sub(r"\W", "_", step.name, flags=re.ASCII)
        if not name.isidentifier() or keyword.iskeyword(name) or name in reserved:
            name = f"layer_{name}"
        while name in found.values() and step.name not in found:
            name += "_"
        found.setdefault(step.name, name)
    return found


def description(model: Model) -> dict[str, Any]:
    """Return what travels along with a network, JSON-ready: names of the classes, what happens to
    pixels, who wrote it.
    """
    from .. import __version__

    return {
        "made_by": f"minicnn {__version__}",
        "class_names": model.options.saved()["class_names"],
        "input_scale": model.options.input_scale,
        "input_knee": model.options.input_knee,
        "inputs": {model.graph.names[node.layer]: list(node.shape) for node in model.graph.inputs},
        "updates": model.updates,
    }


def optional(module: str, extra: str) -> Any:
    """Return an imported library; ExchangeError saying what brings it where it is missing."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as problem:
        raise ExchangeError(
            f'{module} cannot be imported ({problem}): pip install "minicnn[{extra}]"'
        ) from problem


def sample_events(model: Model, count: int = 2) -> list[np.ndarray]:
    """Return for each input of the model ``count`` images (count, H, W, C) like events, float32:
    one pixel in twenty is lit, by an amount that the network takes for about 1.
    """
    rng = np.random.default_rng(0)
    size = 1 / model.options.input_scale

    def events(shape: Shape) -> np.ndarray:
        lit = rng.random((count, *shape)) < 0.05
        return (lit * rng.exponential(size, lit.shape)).astype(np.float32)

    return [events(node.shape) for node in model.graph.inputs]


def largest_difference(
    model: Model, run: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
) -> float:
    """Return by how much the predictions of ``run`` differ from the model's at most, relative to
    the largest of them. ``run`` takes images and gives predictions as the model does, channels
    last.
    """
    events = sample_events(model)
    wanted = model.predict(events[0] if len(events) == 1 else tuple(events))
    wanted = wanted if len(model.graph.outputs) > 1 else [wanted]
    found = run(events)
    worst = 0.0
    for ours, theirs in zip(wanted, found, strict=True):
        ours, theirs = np.stack(ours).astype(np.float64), np.asarray(theirs, np.float64)
        if ours.shape != theirs.shape:
            raise ExchangeError(f"predictions are {theirs.shape}, the model's are {ours.shape}")
        difference = np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-30)
        worst = max(worst, float(difference) if np.isfinite(difference) else np.inf)
    return worst
