"""A model as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import Engine

WIDTHS = 34, 28, 10


def summary_rows(model: Engine) -> list[tuple[str, str, str, str]]:
    """Return the header and a row per layer: layer, output shape, parameters and, for a graph that
    is no chain, the nodes that it is connected to.
    """
    graph = model.graph
    chain = graph.is_chain
    nodes = graph.nodes[1:] if chain else graph.nodes
    rows = [("Layer (type)", "Output Shape", "Param #", "" if chain else "Connected to")]
    counted = set()
    for node in nodes:
        name, kind = graph.node_name(node), type(node.layer).__name__
        parameters = node.layer.parameters(*(source.shape for source in node.inputs))
        count = sum(math.prod(p.shape) for p in parameters.values())
        shape = f"(None, {', '.join(map(str, node.shape))})"
        sources = "" if chain else ", ".join(map(graph.node_name, node.inputs))
        if node.layer in counted:
            count = 0
        counted.add(node.layer)
        frozen = "" if node.layer.trainable or not parameters else " frozen"
        rows.append((f"{name} ({kind})", shape, f"{count}{frozen}", sources))
    return rows


def summary(model: Engine) -> str:
    """Return the table of layers, output shapes and parameter counts, as Keras prints it."""
    rows = summary_rows(model)
    widths = [max(least, 2 + max(len(row[i]) for row in rows)) for i, least in enumerate(WIDTHS)]
    lines = [
        "".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0))).rstrip()
        for row in rows
    ]
    total = [f"Total params: {model.parameters.size:,}"]
    learning = sum(group.piece.stop - group.piece.start for group in model.parameter_groups())
    if learning != model.parameters.size:
        total.append(f"Trainable params: {learning:,}")
    return "\n".join([*lines, "", *total])
