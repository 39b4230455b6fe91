"""What messages and the algorithms of an Allreduce take.

Communication is Hockney's: a message of n bytes takes alpha + n * beta, adding n bytes gamma * n
(R. W. Hockney, Parallel Computing 20, 1994). Costs of the Allreduce algorithms: R. Thakur, R.
Rabenseifner, W. Gropp, Int. J. High Perf. Comput. Appl. 19, 2005; R. Rabenseifner, ICCS 2004; ring:
P. Patarasuk, X. Yuan, J. Parallel Distrib. Comput. 69, 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A connection: ``alpha`` seconds of latency per message, ``beta`` seconds per byte, ``gamma``
    seconds to add a byte.
    """

    alpha: float
    beta: float
    gamma: float = 0.0


def log2ceil(p: int) -> int:
    """Return the smallest k with 2^k >= p."""
    return (p - 1).bit_length()


def ring(p: int, n: float, link: Link) -> float:
    """2 (p - 1) messages of n / p bytes: 2 (p-1) alpha + 2 (p-1)/p n beta + (p-1)/p n gamma."""
    return 2 * (p - 1) * link.alpha + (p - 1) / p * n * (2 * link.beta + link.gamma)


def recursive_doubling(
    p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """ceil(log2 p) exchanges of all n bytes; the ranks beyond a power of two first add theirs to a
    neighbour's and get the result last.

    inner, per_node: ranks that sit on one node exchange over ``inner``; of exchanges between nodes,
    all of a node's ranks make one at the same time and share its link.
    """
    steps = [n] * (p.bit_length() - 1)
    return _exchanges(steps, steps, link, inner, per_node) + _fold(p, n, link)


def rabenseifner(
    p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """Recursive halving (a reduce-scatter), then doubling (an allgather): 2 log2 p alpha + 2
    (p-1)/p n beta + (p-1)/p n gamma.
    """
    # With the nearest rank first, half the buffer: the far exchanges are the small ones.
    halves = [n / 2 ** (k + 1) for k in range(p.bit_length() - 1)]
    return (
        _exchanges(halves, halves, link, inner, per_node)
        + _exchanges(halves, [0.0] * len(halves), link, inner, per_node)
        + _fold(p, n, link)
    )


def hierarchical(p: int, n: float, link: Link, inner: Link, per_node: int) -> float:
    """Reduce to one leader per node, Allreduce between leaders by the better of ring and
    Rabenseifner, broadcast within the node.
    """
    q = min(per_node, p)
    nodes = -(-p // q)
    within = log2ceil(q) * (2 * (inner.alpha + n * inner.beta) + n * inner.gamma)
    return within + (min(ring(nodes, n, link), rabenseifner(nodes, n, link)) if nodes > 1 else 0.0)


def _exchanges(
    sizes: Sequence[float],
    added: Sequence[float],
    link: Link,
    inner: Link | None,
    per_node: int,
) -> float:
    """Return the time of a chain of pairwise exchanges; the log2(per_node) nearest ones stay on the
    node.
    """
    near = min(log2ceil(per_node), len(sizes)) if inner else 0
    total = 0.0
    for k, (n, plus) in enumerate(zip(sizes, added)):
        path, share = link, per_node if inner else 1
        if k < near and inner:
            path, share = inner, 1
        total += path.alpha + n * path.beta * share + plus * path.gamma
    return total


def _fold(p, n, link):
    """Ranks beyond the last power of two: one message before, with a sum, and one after."""
    return 0.0 if p & (p - 1) == 0 else 2 * (link.alpha + n * link.beta) + n * link.gamma


ALGORITHMS = ("ring", "recursive doubling", "rabenseifner", "hierarchical")


def allreduce(
    algorithm: str, p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """Return the seconds of an Allreduce of n bytes over p ranks, ``per_node`` on each node and
    connected there by ``inner``.

    algorithm: one of ALGORITHMS, or "best" for the fastest. All of one node: ``inner`` alone
    counts.
    """
    if p == 1:
        return 0.0
    if algorithm == "best":
        return min(allreduce(name, p, n, link, inner, per_node) for name in ALGORITHMS)
    inner, per_node = inner or link, max(per_node, 1)
    if p <= per_node:
        link, per_node = inner, 1
    if algorithm == "ring":
        if per_node > 1:  # the slowest of its links sets the pace of a ring
            link = Link(max(link.alpha, inner.alpha), max(link.beta, inner.beta), link.gamma)
        return ring(p, n, link)
    if algorithm == "recursive doubling":
        return recursive_doubling(p, n, link, inner, per_node)
    if algorithm == "rabenseifner":
        return rabenseifner(p, n, link, inner, per_node)
    if algorithm == "hierarchical":
        return hierarchical(p, n, link, inner, per_node)
    raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)} or best, got {algorithm!r}")


def link_of(points: Sequence[tuple[int, float]], n: int, gamma: float) -> Link:
    """Return the Link through which exchanges take the measured [(bytes, seconds)]: its latency is
    that of the smallest message, its bandwidth that of n bytes, which must be among them.
    """
    seconds = dict(points)
    alpha = min(seconds.values())
    return Link(alpha, max((seconds[n] - alpha) / n, 1e-15), gamma)


__all__ = [
    "ALGORITHMS",
    "Link",
    "allreduce",
    "hierarchical",
    "link_of",
    "rabenseifner",
    "recursive_doubling",
    "ring",
]
