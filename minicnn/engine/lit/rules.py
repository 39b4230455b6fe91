"""How layers compute on LitMaps: one rule per kind of layer.

A rule gives what the layer gives on the dense arrays, at a cost that follows the lit positions: a
LitMap, or an array where the layer ends the map (Flatten). It has three parts:

    rest    the layer on the table of resting values, one entry per pair of classes
    lit     the positions that a lit input changes, and their values
    back    the gradient of both; what resting outputs ask of resting inputs is a sum over classes

To add a rule: derive from Rule, and enter it with ``@rule_of(TheLayer)``; the tests in
tests/engine/test_lit.py then compare it with the dense layer over random maps. A layer without a
rule gets an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernels.types import Array
from ...nn.layers import Context
from .map import Grid, LitGradient, LitMap

#: Rules by the class of their layer.
RULES: dict[type, type[Rule]] = {}


def rule_of(*layers: type) -> Callable[[type[Rule]], type[Rule]]:
    """Enter the decorated Rule as that of these classes of layers."""

    def enter(rule: type[Rule]) -> type[Rule]:
        RULES.update(dict.fromkeys(layers, rule))
        return rule

    return enter


def rule_for(layer: Any, context: Context) -> Rule | None:
    """Return a new rule for this place of a layer in a model, None where there is none."""
    kind = RULES.get(type(layer))
    return kind(layer, context) if kind else None


class Rule:
    """Base of all rules: ``layer`` in one place of a model.

    always: whether maps are wanted also where arrays would be faster. ends: whether what
    ``forward`` returns is an array. remark: what a plan says of it.
    """

    always = False
    ends = False
    remark = ""

    def __init__(self, layer: Any, context: Context) -> None:
        self.layer, self.context = layer, context
        self._made: dict[tuple[Any, ...], Any] = {}

    def forward(self, *maps: LitMap) -> tuple[LitMap | Array, Any] | None:
        """Return (y, what backward needs), or None where arrays are to be preferred."""
        raise NotImplementedError

    def backward(self, dy: Any, saved: Any) -> tuple[LitGradient | None, ...]:
        """Return the gradient of each map, None where nobody asks for it, and add those of the
        parameters. dy: a LitGradient, or an array if ``forward`` returned one.
        """
        raise NotImplementedError

    def once_per_grid(self, make: Callable[..., Any], *grids: Grid) -> Any:
        """Return ``make(*grids)``, computed once: what follows from the classes alone."""
        key = make.__qualname__, *grids
        if key not in self._made:
            self._made[key] = make(*grids)
        return self._made[key]

    def once_per_update(self, name: str, make: Callable[[], Any], *rests: Array) -> Any:
        """Return ``make()``, computed once between two updates of the weights for the same arrays
        ``rests``: what follows from the weights and the resting values.
        """
        known = self.context.workspace.values.get(name)
        if known is None or any(before is not now for before, now in zip(known[0], rests)):
            with self.context.workspace.timed():
                known = rests, make()
            self.context.workspace.values[name] = known
        return known[1]
