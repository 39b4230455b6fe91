"""What the checks of the doctor read and give: facts of all ranks, findings with a remedy."""

from dataclasses import dataclass
from typing import Any

OK, WARNING, ERROR = "ok", "warning", "error"
#: The facts of every rank (facts.py), rank 0 first.
Ranks = list[dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``remedy`` says what to do, where there is something to do."""

    level: str
    topic: str
    text: str
    remedy: str = ""


def by_node(ranks: Ranks) -> dict[str, Ranks]:
    """Return {host: [facts of its ranks]}."""
    nodes: dict[str, Ranks] = {}
    for rank in ranks:
        nodes.setdefault(rank["host"], []).append(rank)
    return nodes


def allowed_cores(local_ranks: Ranks) -> int:
    """Return how many cores of a node its ranks may use together."""
    return len(set().union(*(rank["allowed"] for rank in local_ranks)))
