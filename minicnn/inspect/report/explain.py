"""What a network looks at, on the event display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import display
from .figures import save_figure

if TYPE_CHECKING:
    from ...engine.model import Model


def _strongest(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, region: Any
) -> np.ma.MaskedArray:
    """Return the pixels of a region on at most display.CELLS x CELLS cells, each with the value in
    it that is farthest from 0; cells without a pixel are masked.
    """
    top, bottom, left, right = region
    step = [max(1, -(-n // display.CELLS)) for n in (bottom - top, right - left)]
    cells = [-(-n // s) for n, s in zip((bottom - top, right - left), step)]
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    order = np.argsort(np.abs(values[inside]), kind="stable")
    raster = np.full(cells, np.nan)
    i, j = (rows[inside] - top) // step[0], (columns[inside] - left) // step[1]
    raster[i[order], j[order]] = values[inside][order]  # the last, the strongest, stays
    return np.ma.masked_invalid(raster)


def draw_saliency(
    model: Model,
    event: Any,
    path: str | Path,
    target: int | None = None,
    window: int = 0,
) -> str | Path:
    """Draw, side by side, the lit region of an event, how much the score of ``target`` rises per
    unit of each lit pixel (``model.input_gradient``, before softmax), and how much the prediction
    falls where a window of ``window`` pixels is covered (``model.occlusion_map``).

    event: an Event, a SparseImage or an array, for a model of one input; its first plane is drawn.
    target: by default the class of the highest score. window: by default a 12th of the lit region.
    Returns ``path``.
    """
    from matplotlib.figure import Figure

    image, _, _ = display._parts(event)
    height, width, _ = image.shape
    scores = np.asarray(model.predict([image])[0])
    target = int(scores.argmax()) if target is None else int(target)
    rows, columns, values = display._lit(image, 0)
    region = display._busy_region(rows, columns, values, height, width)
    gradient = model.input_gradient([image], target)[0][rows, columns, 0]
    window = window or max(2, max(region[1] - region[0], region[3] - region[2]) // 12)
    fall = model.occlusion_map(image, target, window)
    axes = display._microboone(image.shape)

    figure = Figure(figsize=(16, 5.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3)
    limits = display._colour_limits(values)
    charge = display._draw_region(
        panels[0], rows, columns, values, region, limits, display.CELLS, axes
    )
    figure.colorbar(charge, ax=panels[0], label="pixel")
    left, right, low, high = display._extent((0, height, 0, width), axes)
    x = left + (rows + 0.5) / height * (right - left)  # half a pixel on: the pixel's middle
    y = low + (columns + 0.5) / width * (high - low)
    # A few pixels have far larger slopes than all others: the colours end before them.
    limit = float(np.percentile(np.abs(gradient), 95)) if len(gradient) else 0.0
    limit = limit or 1.0
    slopes = panels[1].imshow(
        _strongest(rows, columns, gradient, region).T,
        origin="lower",
        aspect="auto",
        cmap="coolwarm",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
        extent=display._extent(region, axes),
    )
    panels[1].set_facecolor("white")
    figure.colorbar(slopes, ax=panels[1], label="score per unit of the pixel", extend="both")
    largest = float(np.abs(fall).max(initial=0)) or 1.0
    last_row, last_column = fall.shape[0] * window, fall.shape[1] * window
    covered = panels[2].imshow(
        fall.T,
        origin="lower",
        aspect="auto",
        cmap="coolwarm",
        vmin=-largest,
        vmax=largest,
        extent=display._extent((0, last_row, 0, last_column), axes),
    )
    panels[2].scatter(x, y, c="0.25", s=1, marker="s", linewidths=0)
    figure.colorbar(covered, ax=panels[2], label="fall of the prediction when covered")
    for panel in panels:
        x0, x1, y0, y1 = display._extent(region, axes)
        panel.set_xlim(x0, x1)
        panel.set_ylim(y0, y1)
        display._label_axes(panel, axes)
    names = model.class_names or tuple(f"output {i}" for i in range(model.classes))
    panels[0].set_title("event")
    panels[1].set_title("gradient of the score")
    panels[2].set_title(f"occlusion, windows of {window} pixels")
    figure.suptitle(f"{names[target]}: predicted {scores[target]:.2f}")
    save_figure(figure, path)
    return path
