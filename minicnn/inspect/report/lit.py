"""Feature maps at rest and lit, layer by layer: the picture of docs/lit.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import StrPath
from .figures import save_figure

if TYPE_CHECKING:
    from ...engine.lit import LitMap
    from ...engine.model import Model

ROWS = "the empty image", "with the event", "what is lit"
MOST = 8  # layers in one picture


def draw_lit(model: Model, image: Any, path: StrPath, names: Sequence[str] = ()) -> list[str]:
    """Draw for each layer, one column each: the map of the empty image, with lines between the
    classes of rows and columns that are alike there; the map of ``image``; and how far its lit
    positions are from rest, everything that rests left white. The first channel is shown.

    image: a SparseImage or an array, for a model of one input. names: the layers to draw, by
    default the input and the first ones that change what is lit. Returns a line for each layer:
    how much is lit, and how many classes there are. ValueError for a name that has no such map.
    """
    from matplotlib.figure import Figure

    from ...engine.explain import lit_maps

    maps = lit_maps(model, image)
    unknown = [name for name in names if name not in maps]
    if unknown:
        raise ValueError(f"no map at rest and lit of {unknown[0]!r}: there are {', '.join(maps)}")
    shown = list(names) or _that_change(maps)
    figure = Figure(figsize=(2.6 * len(shown) + 0.6, 7.6), dpi=110, layout="constrained")
    panels = figure.subplots(3, len(shown), squeeze=False)
    for column, name in zip(panels.T, shown):
        _draw_map(column, maps[name])
        column[0].set_title(name, fontsize=9)
    for row, title in zip(panels, ROWS):
        row[0].set_ylabel(title)
    save_figure(figure, path)
    return [_line(name, maps[name]) for name in shown]


def _that_change(maps: dict[str, LitMap]) -> list[str]:
    """Return the first layers whose lit positions are not those of the layer before."""
    shown: list[str] = []
    for name, x in maps.items():
        if not shown or x.positions is not maps[shown[-1]].positions:
            shown.append(name)
    return shown[:MOST]


def _line(name: str, x: LitMap) -> str:
    rows, columns = x.grid.pairs
    height, width = x.grid.size
    return (
        f"{name}: {len(x.positions)} of {height} x {width} positions lit ({x.lit_fraction:.1%}), "
        f"the others have {rows * columns} values ({rows} x {columns} classes) per channel"
    )


def _draw_map(column: Any, x: LitMap) -> None:
    to_host = x.grid.kernels.to_host
    empty = np.asarray(to_host(x.grid.at_rest(x.rest)))[..., 0]
    event = np.asarray(to_host(x.dense()))[0, ..., 0]
    changes = np.full(x.grid.size, np.nan)
    positions = np.asarray(to_host(x.positions))
    changes[positions[:, 0], positions[:, 1]] = np.asarray(to_host(x.changes()))[:, 0]
    most = float(max(np.abs(empty).max(), np.abs(event).max())) or 1.0
    largest = float(np.nanmax(np.abs(changes))) if len(positions) else 1.0
    for panel, values, limit in zip(column, (empty, event, changes), (most, most, largest or 1.0)):
        panel.imshow(values, cmap="coolwarm", vmin=-limit, vmax=limit, interpolation="nearest")
        panel.set(xticks=[], yticks=[])
    for panel in column[::2]:
        _draw_classes(panel, x.grid.classes)
    column[0].set_xlabel(f"{x.grid.pairs[0]} x {x.grid.pairs[1]} classes", fontsize=8)
    column[2].set_xlabel(f"{len(x.positions)} lit, {x.lit_fraction:.1%}", fontsize=8)


def _draw_classes(panel: Any, classes: tuple[np.ndarray, np.ndarray]) -> None:
    """Draw lines between neighbouring rows and columns of different classes."""
    rows, columns = (np.flatnonzero(np.diff(of_axis)) + 0.5 for of_axis in classes)
    for row in rows:
        panel.axhline(row, color="0.6", linewidth=0.5)
    for column in columns:
        panel.axvline(column, color="0.6", linewidth=0.5)
