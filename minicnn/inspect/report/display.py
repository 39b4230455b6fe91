"""Event displays: wire against tick, as a physicist looks at an event."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...data.axes import MICROBOONE, Axis
from ...data.detector import DETECTOR_SIZE
from ...data.event import CLASSES, Event
from ...data.sparse import SparseImage
from ...files import StrPath
from .figures import save_figure

#: Cells along an axis of a panel: fewer than its pixels, or lit cells would vanish between them;
#: thin tracks get wider.
CELLS, GRID_CELLS = 300, 180


@dataclass(frozen=True)
class View:
    """How an event is drawn. channel: which plane. zoom: with the lit region enlarged. axes: of
    rows and columns, as a reader has them; None: the image is taken for a MicroBooNE-like one of
    3600 x 3600, or what was summed from it. unit: of the pixels.
    """

    class_names: Sequence[str] = CLASSES
    channel: int = 0
    zoom: bool = True
    axes: tuple[Axis, Axis] | None = None
    unit: str = "ADC"


MICROBOONE_VIEW = View()


def draw_event(
    event: Any,
    path: StrPath,
    title: str | None = None,
    scores: ArrayLike | None = None,
    view: View = MICROBOONE_VIEW,
) -> StrPath:
    """Draw an event to ``path`` (.png, .pdf ...): the whole image, the lit region enlarged, and the
    scores; returns ``path``.

    event: an Event, a SparseImage or a dense (H, W) or (H, W, C) array. scores (classes,) are
    softmax scores, as from ``predict``. Rows of other channels than the first are counted, not
    named: their wires are others. Every lit pixel shows: a cell of the drawing has the largest
    pixel in it. The colour scale ends at the 99.5th percentile of the lit pixels.
    """
    from matplotlib.figure import Figure

    image, label, particles = _parts(event)
    _check(scores, view.class_names)
    rows, columns, values = _lit(image, view.channel)
    widths = [1] + [1] * bool(view.zoom) + [0.42] * (scores is not None)
    figure = Figure(figsize=(1 + 5.6 * sum(widths), 5.6), dpi=120, layout="constrained")
    panels = list(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0])
    h, w, _ = image.shape
    limits = _colour_limits(values)
    axes = view.axes or _microboone(image.shape)
    if view.channel:  # of another plane, whose wires are not those of the first
        axes = (Axis("row", axes[0].step), axes[1])
    picture = _draw_region(panels[0], rows, columns, values, (0, h, 0, w), limits, CELLS, axes)
    _label_axes(panels[0], axes)
    if view.zoom:
        region = _busy_region(rows, columns, values, h, w)
        _draw_region(panels[1], rows, columns, values, region, limits, CELLS, axes)
        _label_axes(panels[1], axes)
        panels[1].set_title("enlarged", fontsize=10)
        from matplotlib.patches import Rectangle

        left, right, low, high = _extent(region, axes)
        panels[0].add_patch(
            Rectangle(
                (left, low),
                right - left,
                high - low,
                fill=False,
                edgecolor="tab:blue",
                linewidth=0.9,
            )
        )
    panels[0].set_title(
        f"{len(values):,} lit pixels of {h} x {w} ({100 * len(values) / (h * w):.2g} %)",
        fontsize=10,
    )
    figure.colorbar(
        picture,
        ax=panels[1 if view.zoom else 0],
        label=view.unit or "value",
        pad=0.02,
        extend="max",
    )
    if scores is not None:
        _draw_scores(panels[-1], np.asarray(scores), view.class_names, label)
    heading = [title] if title else []
    figure.suptitle(
        ", ".join(heading + _truth(label, particles, view.class_names)) or "event", fontsize=12
    )
    return save_figure(figure, path)


def draw_events(
    events: Iterable[Any],
    path: StrPath,
    titles: Sequence[str] | None = None,
    scores: Sequence[ArrayLike] | None = None,
    view: View = MICROBOONE_VIEW,
    columns: int | None = None,
) -> StrPath:
    """Draw several events to ``path`` as a grid with one colour scale; returns ``path``.

    events as for ``draw_event``; scores (N, classes) or None. A panel is the lit region, or without
    view.zoom the whole image; axes and unit are MicroBooNE's. Raises ValueError without events, or
    where titles or scores differ from them in number.
    """
    from matplotlib.figure import Figure

    parts = [_parts(event) for event in events]
    n = len(parts)
    if (
        not n
        or (titles is not None and len(titles) != n)
        or (scores is not None and len(scores) != n)
    ):
        raise ValueError(
            f"{path}: {n} events with {'no' if titles is None else len(titles)} titles "
            f"and {'no' if scores is None else len(scores)} scores cannot be drawn"
        )
    columns = min(n, columns or 3)
    lines = -(-n // columns)
    figure = Figure(figsize=(1.2 + 3.4 * columns, 0.4 + 3.4 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    pixels = [_lit(image, view.channel) for image, _, _ in parts]
    limits = _colour_limits(np.concatenate([values for _, _, values in pixels]))
    for k, (axes, (image, label, particles), (wires, ticks, values)) in enumerate(
        zip(panels, parts, pixels)
    ):
        h, w, _ = image.shape
        region = _busy_region(wires, ticks, values, h, w) if view.zoom else (0, h, 0, w)
        scales = _microboone(image.shape)
        picture = _draw_region(axes, wires, ticks, values, region, limits, GRID_CELLS, scales)
        text = ([titles[k]] if titles is not None else []) + _truth(
            label, particles, view.class_names
        )
        if scores is not None:
            _check(scores[k], view.class_names)
            of_event = np.asarray(scores[k])
            best = int(of_event.argmax())
            text.append(f"taken for {view.class_names[best]} ({of_event[best]:.2f})")
        axes.set_title("\n".join(text), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=5)
        across, up = map(_axis_name, scales)
        if k % columns == 0:
            axes.set_ylabel(up, fontsize=8)
        if k + columns >= n:
            axes.set_xlabel(across, fontsize=8)
    for axes in panels[n:]:
        axes.set_axis_off()
    figure.colorbar(picture, ax=list(panels), label="ADC", pad=0.01, fraction=0.04, extend="max")
    return save_figure(figure, path)


def _parts(event):
    """(image, label, particles) of whatever can be drawn."""
    if isinstance(event, Event):
        return event.image, event.label, event.particles
    image = event if isinstance(event, SparseImage) else SparseImage.from_dense(event)
    return image, -1, ()


def _check(scores, class_names):
    if scores is not None and np.shape(scores) != (len(class_names),):
        raise ValueError(
            f"{len(class_names)} classes ({', '.join(class_names)}) need as many scores, got an "
            f"array of shape {np.shape(scores)}"
        )


def _lit(image, channel):
    """Rows, columns and values of the pixels that are lit in one channel."""
    if not 0 <= channel < image.shape[2]:
        raise ValueError(f"the image has channels 0 to {image.shape[2] - 1}, asked for {channel}")
    values = image.values[:, channel]
    lit = values != image.background
    return image.coords[lit, 0], image.coords[lit, 1], values[lit]


def _colour_limits(values):
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    low = min(0.0, float(low))
    return low, max(float(high), low + 1e-6)


def _microboone(shape):
    return tuple(axis.summed(DETECTOR_SIZE / n) for axis, n in zip(MICROBOONE, shape))


def _extent(region, axes):
    """(left, right, low, high) on the drawing of the pixels (first row, end, first column, end)."""
    return tuple(
        axis.start + axis.step * pixel
        for axis, limits in zip(axes, (region[:2], region[2:]))
        for pixel in limits
    )


def _draw_region(panel, rows, columns, values, region, limits, most_cells, axes):
    """Draw pixels of (first row, end, first column, end) on at most ``most_cells`` x ``most_cells``
    cells, each with the largest pixel in it.
    """
    top, bottom, left, right = region
    cells, block = [], []
    for extent in (bottom - top, right - left):
        block.append(-(-extent // most_cells))
        cells.append(-(-extent // block[-1]))
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    raster = np.full(cells, -np.inf)
    np.maximum.at(
        raster,
        ((rows[inside] - top) // block[0], (columns[inside] - left) // block[1]),
        values[inside],
    )
    picture = panel.imshow(
        np.ma.masked_equal(raster.T, -np.inf),
        origin="lower",
        aspect="auto",
        cmap=_colours(),
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        extent=_extent((top, top + cells[0] * block[0], left, left + cells[1] * block[1]), axes),
    )
    x0, x1, y0, y1 = _extent(region, axes)
    for limit, low, high in ((panel.set_xlim, x0, x1), (panel.set_ylim, y0, y1)):
        margin = 0.008 * (high - low)  # or the frame hides pixels at the edge
        limit(low - margin, high + margin)
    return picture


def _colours():
    """Dark for little charge to orange for much: even the smallest stands out from white, and in
    grey.
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "charge", matplotlib.colormaps["inferno"](np.linspace(0.12, 0.82, 256))
    )


def _axis_name(axis):
    return axis.name if axis.step == 1 else f"{axis.name} ({axis.step:.4g} per pixel)"


def _label_axes(panel, axes):
    panel.set_xlabel(_axis_name(axes[0]))
    panel.set_ylabel(_axis_name(axes[1]))
    for edge, axis in (("top", axes[0]), ("right", axes[1])):
        if not axis.cm:
            continue
        functions = (partial(_to_cm, axis), partial(_from_cm, axis))
        name = f"{axis.length} (cm)".strip()
        if edge == "top":
            secondary = panel.secondary_xaxis(edge, functions=functions)
            secondary.set_xlabel(name, fontsize=9, color="dimgrey")
        else:
            secondary = panel.secondary_yaxis(edge, functions=functions)
            secondary.set_ylabel(name, fontsize=9, color="dimgrey")
        secondary.tick_params(labelsize=8, colors="dimgrey")


def _to_cm(axis, units):
    """Return the place in cm of a wire or tick number."""
    return axis.origin + axis.cm * (units - axis.start) / axis.step


def _from_cm(axis, cm):
    return axis.start + axis.step * (cm - axis.origin) / axis.cm


def _busy_region(rows, columns, values, height, width):
    """(first row, end, first column, end) around 98 % of the charge or, where that is most of the
    image, around the part of a fifth of its width and height that has the most charge."""
    charge = np.abs(values).astype(np.float64)
    if not len(charge) or not charge.sum():
        return 0, height, 0, width
    region = []
    for positions, size in ((rows, height), (columns, width)):
        order = np.argsort(positions, kind="stable")
        share = np.cumsum(charge[order]) / charge.sum()
        low, high = positions[order][
            np.searchsorted(share, (0.01, 0.99)).clip(0, len(positions) - 1)
        ].tolist()
        edge = max(8, size // 90, int(0.12 * (high - low)))
        region.append((max(0, low - edge), min(size, high + 1 + edge)))
    if all(end - first > 0.6 * size for (first, end), size in zip(region, (height, width))):
        steps, cover = 40, 8
        grid = (
            np.histogram2d(rows, columns, steps, ((0, height), (0, width)), weights=charge)[0]
            .cumsum(0)
            .cumsum(1)
        )
        grid = np.pad(grid, ((1, 0), (1, 0)))
        window = (
            grid[cover:, cover:]
            - grid[:-cover, cover:]
            - grid[cover:, :-cover]
            + grid[:-cover, :-cover]
        )
        first = np.unravel_index(window.argmax(), window.shape)
        region = [
            (f * size // steps, -(-(f + cover) * size // steps))
            for f, size in zip(map(int, first), (height, width))
        ]
    return *region[0], *region[1]


def _draw_scores(axes, scores, class_names, label):
    rows = np.arange(len(scores))
    colours = ["tab:orange" if k == label else "tab:grey" for k in rows]
    axes.barh(rows, scores, color=colours)
    for row, score in zip(rows, scores):
        axes.text(min(max(float(score), 0), 1) + 0.02, row, f"{score:.3f}", va="center", fontsize=9)
    for row, text in zip(rows, axes.set_yticks(rows, class_names)):
        text.label1.set_color(colours[row] if row == label else "black")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("score" + (" (orange: truth)" if label >= 0 else ""))
    axes.set_title(f"taken for {class_names[int(np.argmax(scores))]}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _truth(label, particles, class_names):
    if label < 0:
        return []
    name = class_names[label] if label < len(class_names) else f"class {label}"
    primaries = particles[particles["parent"] < 0] if len(particles) else ()
    momentum = max((float(np.linalg.norm(p["momentum"])) for p in primaries), default=0.0)
    return [f"truth {name}" + (f", {momentum:.0f} MeV/c" if momentum else "")]
