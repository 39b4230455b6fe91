"""Networks as Keras models: .keras, which has everything, and .weights.h5 for a model that you
have.

Keras itself writes them. Images are channels last on both sides.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn import layers
from ..nn.graph import InputLayer
from .keras_rules import RULES
from .steps import PixelMap, Step, Times, description, identifiers, optional, rule_for, steps_of

if TYPE_CHECKING:
    from ..engine.model import Model

#: The member of a .keras file in which what Keras does not know travels along.
ABOUT = "minicnn.json"


def keras_library() -> Any:
    """Return Keras on the backend that KERAS_BACKEND names, else on the first that is here."""
    if "KERAS_BACKEND" not in os.environ:
        installed = [name for name in ("tensorflow", "torch", "jax") if find_spec(name)]
        if installed:
            os.environ["KERAS_BACKEND"] = installed[0]
    return optional("keras", "keras")


def keras_model(model: Model) -> Any:
    """Return the network as a keras.Model with its weights, its layers by the same names where
    these are identifiers.
    ExchangeError for a layer without a rule, or without Keras.
    """
    keras = keras_library()
    steps, outputs = steps_of(model)
    names = identifiers(steps)
    made: dict[str, Any] = {}
    results: list[Any] = []
    for step in steps:
        if isinstance(step.layer, InputLayer):
            results.append(keras.Input(step.shape, name=names[step.name]))
            continue
        xs = [results[source] for source in step.sources]
        if isinstance(step.layer, PixelMap):
            results.append(_pixels(keras, step.layer, xs[0]))
            continue
        if step.name not in made:
            made[step.name] = _layer(keras, step, names[step.name])
        results.append(made[step.name](xs if len(xs) > 1 else xs[0]))
    for step in steps:
        if step.arrays:
            made[step.name].set_weights(list(step.arrays.values()))
    inputs = [result for step, result in zip(steps, results) if isinstance(step.layer, InputLayer)]
    return keras.Model(inputs, [results[number] for number in outputs])


def _layer(keras: Any, step: Step, name: str) -> Any:
    layer = step.layer
    if isinstance(layer, Times):
        return keras.layers.Rescaling(layer.factor, name=name)
    row = rule_for(RULES, step, "minicnn.exchange.keras_rules.RULES")
    settings = {theirs: getattr(layer, ours) for ours, theirs in row.settings.items()}
    kind = getattr(keras.layers, row.kind)
    made = kind(**settings, **row.fixed, name=name)
    if isinstance(layer, layers.Layer) and not layer.trainable:
        made.trainable = False
    return made


def _pixels(keras: Any, pixels: PixelMap, x: Any) -> Any:
    if pixels.knee is None:
        return keras.layers.Rescaling(pixels.scale)(x)
    bent = keras.ops.log1p(keras.ops.abs(x) / pixels.knee)
    return keras.ops.sign(x) * bent * (pixels.scale * pixels.knee)


def write(model: Model, path: str | Path) -> None:
    """Write the network to ``path``, .keras or .weights.h5 (weights alone)."""
    network = keras_model(model)
    if str(path).endswith(".weights.h5"):
        network.save_weights(path)
        return
    network.save(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(ABOUT, json.dumps(description(model)))


def runner_for(model: Model) -> Callable[[str | Path], Any]:
    """Return a function of a written file that returns a function that runs it by Keras; the model
    gives weights alone a network.
    """
    keras = keras_library()

    def runner(path: str | Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        if str(path).endswith(".weights.h5"):
            network = keras_model(model)
            for weight in network.weights:
                weight.assign(np.zeros(weight.shape, np.float32))
            network.load_weights(path)
        else:
            network = keras.saving.load_model(path, compile=False)

        def run(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            found = network.predict(list(images) if len(images) > 1 else images[0], verbose=0)
            return list(found) if isinstance(found, (list, tuple)) else [found]

        return run

    return runner
