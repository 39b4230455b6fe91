"""Where the time goes: at every moment the main thread is in exactly one named part, so the parts
of a step add up to the step.

    with Ledger(detail=True) as ledger:          # fit(ledger=...) does this for every epoch
        with ledger.span("update"):              # a span of the step
            ...
        ledger.step()                            # ends the step; what no span named is "other"

``span``, ``collective`` and ``hidden`` of this module go to the ledger that is open, if it keeps
details; else they cost a function call and read no clock (but for ``collective``, which tells the
watchdog). A span inside another takes its time out
of the outer one. Spans of other threads are hidden work: they have an account of their own. Ranks
wait in a collective for the last to arrive: ``close`` compares the arrivals on aligned clocks and
books that time under WAIT, what is left is the reduction itself.
"""

import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from ..watch import waiting
from .exchanges import Exchange, Exchanges, Traffic
from .parts import COMMUNICATION, OTHER, WAIT, Books, Epoch, Summary, summarize

_NOTHING = nullcontext()
PIECES = 20_000  # of a rank's timeline: viewers choke on millions
_open: "Ledger | None" = None  # the ledger that inner spans go to


def span(name: str, layer: str = "") -> AbstractContextManager[Any]:
    """``with span("forward", "block1_conv1"): ...`` books the block under the part ``name`` of the
    open ledger, and there under ``layer``.
    """
    return _NOTHING if _open is None else _Span(_open, (name, layer))


def collective(
    name: str = "allreduce", layer: str = "", exchange: Exchange | None = None
) -> AbstractContextManager[Any]:
    """A span in which this rank waits for the others: its start is this rank's arrival. All ranks
    open the same ones in the same order. exchange: what it moves, for its bandwidth. name, layer:
    as of ``span``.

    Name it "allreduce" where the main thread does the whole exchange, "exposed communication" where
    it waits for what is left of one that ran beside the computation.
    """
    if _open is None:
        return waiting(name)
    return _Span(_open, (name, layer), arrival=True, exchange=exchange)


def hidden(
    name: str,
    start: float,
    end: float,
    layer: str = "",
    lane: str = "communication",
    exchange: Exchange | None = None,
) -> None:
    """Book work from ``start`` to ``end`` (``now``) that ran beside the main thread without a
    Python thread of its own; the pieces of one lane of the timeline must not overlap. name, layer:
    as of ``span``. exchange: a collective that was under way, at least as fast as that says."""
    if _open is not None:
        _open.book_hidden((name, layer), start, end, lane)
        if exchange:
            _open.epoch.add(f"{name}, hidden", exchange, end - start)


def now() -> float:
    """Return the open ledger's clock in seconds, 0.0 without one: for ``hidden``."""
    return 0.0 if _open is None else _open.clock()


class _Span:
    """An open span: what it takes, less what the spans inside it take (``inner``), goes to its
    part. Written for speed.
    """

    __slots__ = (
        "account",
        "arrival",
        "exchange",
        "inner",
        "ledger",
        "outer",
        "part",
        "start",
        "wait",
    )

    def __init__(
        self,
        ledger: "Ledger",
        part: tuple[str, str],
        arrival: bool = False,
        exchange: Exchange | None = None,
    ) -> None:
        self.ledger, self.part, self.arrival, self.inner = ledger, part, arrival, 0.0
        self.exchange = exchange

    def __enter__(self):
        ledger = self.ledger
        if self.arrival:
            self.wait = waiting(self.part[0])
            self.wait.__enter__()
        self.account = account = ledger.accounts.get(get_ident()) or ledger.join()
        self.outer, account.top = account.top, self
        if account.synchronize:
            account.synchronize()
        self.start = ledger.clock()

    def __exit__(self, *_):
        account = self.account
        if account.synchronize:
            account.synchronize()
        end = self.ledger.clock()
        spent, books, part = end - self.start, account.books, self.part
        account.top = self.outer
        account.top.inner += spent
        books[part] = books.get(part, 0.0) + spent - self.inner
        piece = (part, account.lane, self.ledger.steps, self.start, end)
        if self.ledger.recording:
            self.ledger.epoch.pieces.append(piece)
        if self.arrival:
            self.wait.__exit__(None, None, None)
            self.ledger.epoch.collectives.append((piece, self.exchange))


class _Account:
    """The books of one thread.

    top: the innermost open span, the account itself where none is open. inner: seconds spent in
    spans that have been closed, since the step began.
    """

    def __init__(
        self, lane: str, books: Books, synchronize: Callable[[], None] | None = None
    ) -> None:
        self.lane, self.books, self.synchronize = lane, books, synchronize
        self.top: _Account | _Span = self
        self.inner = 0.0


@dataclass(frozen=True)
class Piece:
    """One span of the timeline: the part ``name`` of ``layer`` in step number ``step``, from
    ``start`` to ``end`` in seconds on rank 0's clock; ``lane`` is a thread.
    """

    name: str
    layer: str
    lane: str
    step: int
    start: float
    end: float

    @property
    def label(self) -> str:
        """Name and layer in one."""
        return f"{self.name} {self.layer}".strip()


@dataclass
class _Epoch:
    """What one rank has on its books since the epoch began."""

    seconds: dict = field(default_factory=dict)
    hidden: dict = field(default_factory=dict)
    collectives: list = field(default_factory=list)  # (piece, Exchange or None)
    exchanges: Exchanges = field(default_factory=dict)
    last: int = 0  # collectives at which this rank came last, of
    arrivals: int = 0  # so many
    walls: list = field(default_factory=list)  # seconds of each step
    pieces: list = field(
        default_factory=list
    )  # (part, lane, step, start, end), of the steps that are kept

    def add(self, place: str, exchange: Exchange, seconds: float) -> None:
        """Book a collective that took so long once all ranks were there."""
        before = self.exchanges.get((place, exchange.kind), Traffic())
        self.exchanges[place, exchange.kind] = before.plus(exchange.bytes, seconds)


class Ledger:
    """The account of a rank's training steps.

    detail: False keeps the few spans of ``train_step``; True also layers, hidden work, waiting
    apart from reducing, and a timeline of the first ``keep`` steps of every epoch, until it holds
    PIECES. clock: seconds, monotonic. ``synchronize`` (the backend's) is called before every clock
    read of the main thread, so that work on a device is booked where it was asked for.
    """

    def __init__(
        self, detail: bool = False, keep: int = 8, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.detail, self.keep, self.clock = detail, keep, clock
        self.synchronize: Callable[[], None] | None = None
        self.accounts: dict[int, _Account] = {}
        self.epoch = _Epoch()
        self.steps, self.begun, self.recording = 0, 0.0, False
        self.offsets: list[tuple[float, float]] = []  # (own clock, seconds to rank 0's clock)
        self.uncertainty = 0.0
        self.timeline: list[Piece] = []
        self.summaries: list[Summary] = []

    def __repr__(self):
        kind = "every part" if self.detail else "the parts of train_step"
        return (
            f"Ledger of {kind}: {self.steps:,} steps, {len(self.summaries)} epochs, "
            f"{len(self.timeline):,} pieces of the timeline"
        )

    # -------------------------------------------------------------------------------------- booking
    def span(self, name: str, layer: str = "") -> _Span:
        """``with ledger.span("update"): ...`` books the time until the end of the block, less the
        spans inside it, under the part ``name``, and there under ``layer``.
        """
        return _Span(self, (name, layer))

    def __enter__(self):
        global _open
        self.main = _Account("main", self.epoch.seconds, self.synchronize)
        self.accounts = {get_ident(): self.main}  # the thread that opens the ledger is the main one
        self._record()
        _open = self if self.detail else None
        self.begun = self.clock()
        return self

    def __exit__(self, *_):
        global _open
        _open = None

    def join(self) -> _Account:
        """Open an account for a thread that has spans without having opened the ledger."""
        account = _Account(threading.current_thread().name, self.epoch.hidden)
        self.accounts[get_ident()] = account
        return account

    def book_hidden(self, part: tuple[str, str], start: float, end: float, lane: str) -> None:
        """Book ``part`` (name, layer), from ``start`` to ``end``, in a lane; see ``hidden``."""
        self.epoch.hidden[part] = self.epoch.hidden.get(part, 0.0) + end - start
        if self.recording:
            self.epoch.pieces.append((part, lane, self.steps, start, end))

    def step(self) -> None:
        """End the step: the next one begins at this very moment."""
        if self.synchronize:
            self.synchronize()
        now, seconds = self.clock(), self.epoch.seconds
        seconds[OTHER, ""] = seconds.get((OTHER, ""), 0.0) + now - self.begun - self.main.inner
        self.main.inner = 0.0
        self.epoch.walls.append(now - self.begun)
        if self.recording:
            self.epoch.pieces.append((("step", ""), "main", self.steps, self.begun, now))
        self.begun = now
        self.steps += 1
        self._record()

    def _record(self):
        """Decide whether the step that begins is kept."""
        pieces = len(self.timeline) + len(self.epoch.pieces)
        self.recording = self.detail and len(self.epoch.walls) < self.keep and pieces < PIECES

    def line(self) -> str:
        """Return where this rank's time went since the epoch began, in a few words."""
        seconds = self.epoch.seconds
        share = {
            "data": ("wait for data", "read", "decompress", "augment"),
            "other ranks": (*COMMUNICATION, "pack", WAIT),
            "other": (OTHER, "callbacks"),
        }
        spent = {
            word: sum(s for (name, _), s in seconds.items() if name in names)
            for word, names in share.items()
        }
        spent = {"computing": sum(seconds.values()) - sum(spent.values()), **spent}
        whole = max(sum(spent.values()), 1e-12)
        return f"{1e3 * whole / max(len(self.epoch.walls), 1):.1f} ms/step: " + ", ".join(
            f"{word} {100 * s / whole:.0f} %" for word, s in spent.items()
        )

    # -------------------------------------------------------------------------------- between ranks
    def align(self, comm: Any) -> None:
        """Measure how far this rank's clock is from rank 0's; all ranks of ``comm`` together,
        before and after an epoch.
        """
        if self.detail:
            from ..parallel.clock import clock_offset

            offset, self.uncertainty = clock_offset(comm, self.clock)
            self.offsets.append((self.clock(), offset))

    def aligned(self, moment: float) -> float:
        """Return the time ``moment`` of this rank's clock on rank 0's; between two measurements the
        offset is interpolated.
        """
        if not self.offsets:
            return moment
        times = [clock for clock, _ in self.offsets]
        i = min(max(bisect_right(times, moment), 1), len(times) - 1)
        (t0, o0), (t1, o1) = self.offsets[i - 1 if len(times) > 1 else 0], self.offsets[i]
        share = 0.0 if t1 == t0 else min(max((moment - t0) / (t1 - t0), 0.0), 1.0)
        return moment + o0 + (o1 - o0) * share

    def books(self, comm: Any) -> dict[str, Any]:
        """Return what this rank has booked since the epoch began, JSON-ready, for ``reopen``. With
        details all ranks of ``comm`` call it together, and waiting is told from reducing up to
        here.
        """
        epoch = self.epoch
        if self.detail:
            self.align(comm)
            self._split_waiting(comm, epoch)
            epoch.collectives.clear()
        return {
            "seconds": [[*part, seconds] for part, seconds in epoch.seconds.items()],
            "hidden": [[*part, seconds] for part, seconds in epoch.hidden.items()],
            "walls": [len(epoch.walls), sum(epoch.walls)],
            "exchanges": [[*key, *traffic] for key, traffic in epoch.exchanges.items()],
            "arrivals": [epoch.last, epoch.arrivals],
        }

    def reopen(self, books: dict[str, Any]) -> None:
        """Begin an epoch with what ``books`` returned; the timeline has only what comes now."""
        for name in ("seconds", "hidden"):
            kept = {(part, layer): seconds for part, layer, seconds in books[name]}
            getattr(self.epoch, name).update(kept)
        for place, kind, *traffic in books.get("exchanges", ()):
            self.epoch.exchanges[place, kind] = Traffic(*traffic)
        self.epoch.last, self.epoch.arrivals = books.get("arrivals", (0, 0))
        steps, seconds = books["walls"]
        self.epoch.walls[:] = [seconds / max(steps, 1)] * steps
        self.steps += steps

    def close(self, comm: Any) -> dict[str, float]:
        """End an epoch and return its figures for the history: with details those of its Summary
        over all ranks of ``comm`` (which call this together); the Summary joins ``summaries``;
        without, this rank's.
        """
        epoch, self.epoch = self.epoch, _Epoch()
        if not self.detail:
            return {
                f"seconds: {name}": s for (name, _), s in epoch.seconds.items() if name != OTHER
            }
        self.align(comm)
        self._split_waiting(comm, epoch)
        self.timeline += [
            Piece(name, layer, lane, step, self.aligned(start), self.aligned(end))
            for (name, layer), lane, step, start, end in epoch.pieces
        ]
        own = Epoch(
            len(epoch.walls),
            sum(epoch.walls),
            epoch.seconds,
            epoch.hidden,
            epoch.exchanges,
            socket.gethostname(),
            (epoch.last, epoch.arrivals),
        )
        self.summaries.append(summarize(comm, own))
        return self.summaries[-1].logs()

    def _split_waiting(self, comm, epoch):
        """Divide every collective into waiting, until the last rank has arrived, and the rest."""
        from ..parallel.clock import latest

        arrivals = latest(comm, [self.aligned(start) for (*_, start, _), _ in epoch.collectives])
        place = {id(piece): i for i, piece in enumerate(epoch.pieces)}
        epoch.arrivals += len(arrivals)
        for (piece, exchange), last in zip(epoch.collectives, arrivals):
            part, lane, step, start, end = piece
            waited = last - self.aligned(start)  # until the last rank arrived, on rank 0's clock
            until = min(max(start + waited, start), end)
            epoch.last += waited == 0
            if exchange:
                epoch.add(part[0], exchange, end - until)
            if until == start:
                continue
            epoch.seconds[part] -= until - start
            epoch.seconds[WAIT, ""] = epoch.seconds.get((WAIT, ""), 0.0) + until - start
            if id(piece) in place:
                epoch.pieces[place[id(piece)]] = (part, lane, step, until, end)
                epoch.pieces.append(((WAIT, ""), lane, step, start, until))

    def gather(self, comm: Any, ranks: int = 32) -> list[tuple[int, str, list[Piece]]]:
        """Return [(rank, host, Pieces)] of at most so many ranks of ``comm``; [] but on rank 0."""
        from ..parallel.comm import as_comm

        comm = as_comm(comm)
        count = min(ranks, comm.size)
        chosen = {i * comm.size // count for i in range(count)}
        own = (comm.rank, socket.gethostname(), self.timeline) if comm.rank in chosen else None
        return [timeline for timeline in comm.gather(own) or [] if timeline]
