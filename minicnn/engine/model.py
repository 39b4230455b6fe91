"""Model: a network and the calls that users make; Sequential: a chain of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.dataset import Dataset
from ..kernels.types import Shape
from ..nn.graph import Input
from ..nn.layers import Layer
from ..nn.losses import LossResult
from . import describe
from .engine import Engine
from .options import Options
from .plan import Plan

if TYPE_CHECKING:
    from ..train.callbacks import History


class Model(Engine):
    """A network: the graph between ``inputs`` and ``outputs`` (a Node or a list of them each).

        inputs = mc.Input((3600, 3600, 1))
        x = mc.ELU()(mc.Conv2D(16, 3, padding="same")(inputs))
        model = mc.Model(inputs, mc.Dense(5)(mc.GlobalAveragePooling2D()(x)), seed=1)

    ``options``: see Options. Where a method takes a batch, ``x`` is a list of SparseImage or an
    array (N, H, W, C), of a model of several inputs a tuple of these, and ``y`` what the loss takes
    as targets, for a classifier int (N,), of several outputs a tuple of these; ValueError
    names the first event that does not fit. ``parameters`` (P,) holds every weight in layer order
    and ``gradients`` (P + tail) every gradient, *summed* over events, and behind them the number of
    events, the summed loss, the loss's figures and a not-finite flag. ``weights["<layer>/w"]``,
    ``weight_gradients`` and ``states`` are views.
    """

    # --------------------------------------------------------------------------------- public calls
    def loss_and_gradients(
        self, x: Any, y: Any, sample_weights: Any = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Return (mean loss, ``{"<layer>/w": array, ...}``) for a batch, gradients averaged over
        events; weights stay as they are. The pass evaluates: dropout drops nothing.

        y: targets of the loss, one per event. sample_weights: float (N,), factors of the losses.
        """
        self.clear_gradients()
        self.accumulate(x, y, sample_weights=sample_weights)
        tail = self.tail()
        n = max(tail["events"], 1)
        return tail["loss"] / n, {
            name: self.kernels.to_host(g) / self.dtype.type(n)
            for name, g in self.weight_gradients.items()
        }

    def train_on_batch(self, x: Any, y: Any, sample_weights: Any = None) -> float:
        """Apply one optimizer step on a batch and return its mean loss (before the step).
        sample_weights: float (N,), factors of the losses.
        """
        from ..train.step import train_step

        tail = train_step(self, [(x, y, sample_weights)], self.optimizer)
        assert tail is not None
        return tail["loss"] / max(tail["events"], 1)

    def test_on_batch(self, x: Any, y: Any) -> float:
        """Return the mean loss of a batch without changing anything."""
        results = list(self.loss_results(x, y))
        losses = [loss for _, _, piece in results for loss in self.targets.losses_of(piece)]
        return float(np.sum(losses)) / max(len(losses), 1)

    def loss_results(self, x: Any, y: Any) -> Iterator[tuple[slice, list[Any], list[LossResult]]]:
        """Yield (slice, checked targets, results of each output) piece by piece, without
        gradients.
        """
        targets, _ = self.targets.check(y, None, len(self._per_input(x)[0]))
        for part, events, values in self.pieces(x):
            outputs, _ = self.run_forward(values)
            parts = [t[part] for t in targets]
            yield (
                part,
                parts,
                self.targets.values(self.kernels, outputs, parts, None, events, gradient=False),
            )

    def predict(self, x: Any, batch_size: int = 32) -> Any:
        """Return what the loss says for a batch of images: softmax scores (N, classes) of a
        classifier, numbers of a regression; for several outputs a list. Of a data set, as an
        EventStore, ``batch_size`` events at a time, in its order.
        """
        predictions: list[list[Any]] = [[] for _ in self.graph.outputs]
        for images in _batches(x, batch_size) if isinstance(x, Dataset) else [x]:
            for _, events, values in self.pieces(images):
                outputs, _ = self.run_forward(values)
                for each, loss, output in zip(predictions, self.targets.losses, outputs):
                    each.append(loss.predict(self.kernels, output, events[0]))
        joined = self.targets.join(predictions)
        return joined[0] if len(joined) == 1 else joined

    def evaluate(self, data: Any, batch_size: int = 1, comm: Any = None) -> Any:
        """Return the evaluation of a data set or (x, y) (of a classifier: loss, accuracy,
        confusion, scores per class), ``batch_size`` events at a time, summed over the ranks of the
        communicator ``comm``; see train.evaluate.
        """
        from ..train.evaluate import evaluate

        return evaluate(self, data, batch_size, comm)

    def fit(self, train: Any, targets: Any = None, **options: Any) -> History:
        """Train on this rank's events, or on arrays ``fit(x, y)``, where ``train`` is x and
        ``targets`` y; returns the History.
        ``options``: batch_size, epochs, validation_data, callbacks and others, see ``mc.fit``.
        """
        from ..train.fit import fit

        return fit(self, train if targets is None else (train, targets), **options)

    def activations(self, x: Any, names: str | Sequence[str]) -> dict[str, np.ndarray]:
        """Return {layer name: its output (N, ...)} of the layer or layers ``names`` for a batch;
        ValueError for a name that is not there. See engine.explain.
        """
        from .explain import activations

        return activations(self, x, names)

    def input_gradient(self, x: Any, target: int | Sequence[int]) -> Any:
        """Return the gradient of output ``target`` (a class, or one for each event) with respect to
        every pixel, (N, H, W, C); see engine.explain.
        """
        from .explain import input_gradient

        return input_gradient(self, x, target)

    def occlusion_map(self, image: Any, target: int, size: int = 32, stride: int = 0) -> Any:
        """Return by how much the score of class ``target`` for one ``image`` falls when a window of
        ``size`` pixels, one every ``stride`` (0: size), is covered; see engine.explain.
        """
        from .explain import occlusion_map

        return occlusion_map(self, image, target, size, stride)

    # ------------------------------------------------------------------------- weights, description
    def get_weights(self) -> dict[str, np.ndarray]:
        """Return ``{"<layer>/w": copy, ...}`` as NumPy arrays, the states of layers among them."""
        return {
            name: np.array(self.kernels.to_host(w))
            for name, w in (self.weights | self.states).items()
        }

    def set_weights(self, weights: dict[str, Any], transfer: bool = False) -> list[str]:
        """Set all weights from a dictionary; raises ValueError for a name or shape that does not
        fit, and changes nothing then.

        transfer: take what fits in name and shape and leave the rest as it is, as for another
        number of classes. Returns the names that were left.
        """
        own = self.weights | self.states
        fits = {n for n in own if n in weights and np.shape(weights[n]) == own[n].shape}
        if not transfer:
            missing, extra = own.keys() - weights.keys(), weights.keys() - own.keys()
            if missing or extra:
                raise ValueError(
                    f"weights do not fit this network: missing {sorted(missing)}, unknown "
                    f"{sorted(extra)}"
                )
            for name in sorted(own.keys() - fits):
                raise ValueError(
                    f"{name} must have the shape {own[name].shape}, got {np.shape(weights[name])}"
                )
        elif not fits:
            raise ValueError("none of these weights fits this network in name and shape")
        for name in fits:
            own[name][...] = self.kernels.asarray(np.asarray(weights[name], self.dtype))
        self.weights_changed()
        return sorted(own.keys() - fits)

    def save(self, path: str | Path) -> None:
        """Write architecture, weights and optimizer to ``path`` (safetensors); see checkpoint."""
        from ..train.checkpoint import save

        save(self, path)

    def config(self) -> dict[str, Any]:
        """Return architecture and options as a JSON-ready dictionary."""
        return {
            **self.options.saved(),
            **self.graph.config(),
            "losses": self.targets.config(),
        }

    def plan(self) -> Plan:
        """Return what will run: fused blocks, backend, work and memory; print it."""
        return self._plan

    def summary(self) -> None:
        """Print the table of layers, output shapes and parameter counts."""
        print(self.summary_text())

    def summary_text(self) -> str:
        """Return what ``summary`` prints."""
        return describe.summary(self)

    def draw(self, path: str | Path) -> None:
        """Write a picture of the graph to ``path`` (.png, .pdf, .svg)."""
        from ..inspect.report.graph import draw_graph

        draw_graph(self, path)

    def __repr__(self) -> str:
        inputs = ", ".join(" x ".join(map(str, node.shape)) for node in self.graph.inputs)
        return (
            f"<{type(self).__name__} of {len(self.layers)} layers: {inputs} -> "
            f"{' x '.join(map(str, self.output_shape))}, {self.parameters.size:,} parameters, "
            f"{self._plan.device}>"
        )

    def _repr_html_(self) -> str:
        from ..inspect.report.notebook import model_html

        return model_html(self)

    # --------------------------------------------------------------------------- copies and pickles
    def __getstate__(self) -> dict[str, Any]:
        arrays = {n: np.array(self.kernels.to_host(v)) for n, v in self.optimizer.state.items()}
        return {
            "config": self.config(),
            "weights": self.get_weights(),
            "updates": self.updates,
            "device": self.options.device,
            "optimizer": (self.optimizer.config(), self.optimizer.steps, arrays),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        from ..train.checkpoint import model_from_config
        from ..train.optim import optimizer_from_config

        config, steps, arrays = state["optimizer"]
        optimizer = optimizer_from_config(config)
        other = model_from_config(state["config"], state["device"], optimizer)
        self.__dict__.update(other.__dict__)
        self.set_weights(state["weights"])
        self.updates, optimizer.steps = state["updates"], steps
        optimizer.state = {name: self.kernels.asarray(array) for name, array in arrays.items()}


def _batches(dataset: Dataset, batch_size: int) -> Iterator[Any]:
    """Yield the images of a data set, ``batch_size`` events at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, len(dataset), batch_size):
        yield dataset.batch(range(start, min(start + batch_size, len(dataset))))[0]


class Sequential(Model):
    """A network whose layers run one after the other, from images ``input_shape`` (H, W, C) on.

    Raises ValueError where layers do not fit each other. ``options``: see Options.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Shape, **options: Any) -> None:
        layers = list(layers)
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            wrong = [layer for layer in layers if not isinstance(layer, Layer)]
            what = (
                f"; {wrong[0]!r} is none: did you mean {wrong[0].__name__}()?"
                if wrong and (isinstance(wrong[0], type))
                else ""
            )
            raise ValueError(f"Sequential needs a list of at least one layer{what}")
        node = first = Input(input_shape)
        for layer in layers:
            node = layer(node)
        super().__init__(first, node, **options)


__all__ = ["Model", "Options", "Sequential"]
