"""Which event and which layer made a step's loss or gradients not finite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.sparse import SparseImage
from ..files import atomic_file

if TYPE_CHECKING:
    from ..engine.engine import Engine


@dataclass
class Suspect:
    """A batch of this rank after which something was not finite.

    where: in words. event: its place in the batch, None where no single one is to blame. update:
    the model's count before the step. images, targets: of the batch, None where the step had
    several.
    """

    where: str
    event: int | None
    update: int
    images: Any = None
    targets: Any = None

    def write(self, path: Path) -> None:
        """Write the batch to ``path`` (.npz): image_I, or coords_I and values_I, and target_I."""
        arrays: dict[str, np.ndarray] = {}
        for i, image in enumerate(self.images if isinstance(self.images, list) else []):
            if isinstance(image, SparseImage):
                arrays |= {f"coords_{i}": image.coords, f"values_{i}": image.values}
            else:
                arrays[f"image_{i}"] = np.asarray(image)
            arrays[f"target_{i}"] = np.asarray(self.targets[i])
        with atomic_file(path, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def find_suspect(model: Engine, batch: Any, rng: Any) -> Suspect:
    """Return what is wrong with the step of this rank's ``batch`` (images, targets), None where it
    had several; gradients and states stay as they are.
    """
    update = model.updates
    for name, w in model.weights.items():
        if not model.kernels.finite(w):
            return Suspect(f"the weights {name}", None, update)
    if batch is None:
        return Suspect("one of the batches of this step", None, update)
    images, targets = batch
    suspect = Suspect("the events of this batch together", None, update, images, targets)
    if isinstance(images, tuple) or isinstance(targets, tuple):
        return suspect
    kept = [
        np.array(model.kernels.to_host(array)) for array in (model.gradients, model.buffers.state)
    ]
    for i in range(len(images)):
        with np.errstate(all="ignore"):
            layer = _not_finite_layer(model, images[i : i + 1], targets[i : i + 1], rng)
        if layer:
            suspect.where, suspect.event = layer, i
            break
    model.gradients[...] = model.kernels.asarray(kept[0])
    if kept[1].size:
        model.buffers.state[...] = model.kernels.asarray(kept[1])
    return suspect


def _not_finite_layer(model: Engine, image: Any, target: Any, rng: Any) -> str | None:
    """Return what is not finite first for one event: an output, the loss, or a gradient."""
    from ..engine.explain import activations

    names = [model.graph.names[layer] for layer in model.graph.layers]
    for name in names:
        output = activations(model, image, [name])  # type: ignore[arg-type]
        if not np.isfinite(output[name]).all():
            return f"the output of layer {name}"
    model.clear_gradients()
    model.accumulate(image, target, rng)
    if not np.isfinite(model.tail()["loss"]):
        return "the loss"
    for name in reversed(list(model.weight_gradients)):
        if not model.kernels.finite(model.weight_gradients[name]):
            return f"the gradient of {name}"
    return None
