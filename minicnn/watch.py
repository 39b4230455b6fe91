"""The watchdog of a job: a rank that stalls ends all ranks, and says where each of them was.

Every rank's main thread leaves a mark when it has done something (``beat``) and while it waits in a
collective (``waiting``): an assignment each. A thread writes them every few seconds into a file of
a folder that the ranks share, which needs no MPI. When no rank has done anything for the limit,
each that can still be reached prints the stacks of its threads, the first of them says who is
missing, and all end with status STALLED. A rank whose interpreter hangs inside a library is ended
by faulthandler's own thread, and shows as silent to the others. Where all wait in one place it is
the network that is missing: each node then says which devices have lost their cable since the
start, and which of the nodes beside it do not answer.
"""

import faulthandler
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Exit status of all ranks where one has stalled.
STALLED = 76
#: Minutes without any progress before a job counts as stalled, twice as many until the first step,
#: while events are loaded and kernels compiled; outside of jobs MINICNN_STALL_LIMIT, in minutes.
MINUTES = 10.0
_LAST = 8.0  # seconds that ranks give each other to print their stacks
_ANSWER = 2.0  # seconds in which another node has to answer
MPI_INIT = "MPI_Init"  # where ranks wait that have not met yet

#: What launchers write into the environment: variables of the rank and of the number of ranks, a
#: variable that only this one sets ("": none), its name. PMIx tells no number, see ``launched_by``.
LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "MPICH's mpiexec"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "", "Open MPI's mpiexec"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "", "MVAPICH's mpirun"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE", "", "flux run"),
    ("PALS_RANKID", "PMI_SIZE", "", "PALS's mpiexec"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "", "srun"),
    ("PMI_RANK", "PMI_SIZE", "", "a launcher that speaks PMI"),
    ("PMIX_RANK", "", "PMIX_NAMESPACE", "a launcher that speaks PMIx"),
)


class _Marks:
    """What this process's main thread has done last: wall clock seconds, so that ranks compare."""

    beaten, step, where, since = time.time(), 0, "", 0.0
    abort: Any = None
    watches, met = 0, False  # Watches that are open: the innermost decides; whether MPI_Init ended


def end_by(abort: Any) -> None:
    """Let ``abort(status)`` end all ranks: MPI's Abort once it has started, for a launcher waits
    for nodes out of reach until it is told not to. None: each ends itself.
    """
    _Marks.abort = abort


def beat() -> None:
    """Say that this rank has done something."""
    _Marks.beaten = time.time()


def step(number: int) -> None:
    """Say that this rank has completed this step."""
    _Marks.step, _Marks.beaten = number, time.time()


class waiting:
    """``with waiting("allreduce"): ...`` says that this rank waits there for the others; ``name``:
    at what, for the message of a stalled job. Written for speed.
    """

    __slots__ = ("before", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = _Marks.where, _Marks.since
        _Marks.where, _Marks.since = self.name, time.time()

    def __exit__(self, *_: object) -> None:
        (_Marks.where, _Marks.since), _Marks.beaten = self.before, time.time()


class Watch:
    """``with Watch(folder, rank, ranks, seconds): ...`` watches over the block.

    folder: of all ranks, or of those of one node; empty before (``Watch.clear``). seconds: the
    limit, twice as long until the first step. busy: the block may be any program, which computes
    for as long as it likes: only ranks that wait, or are silent, have stalled.
    """

    def __init__(
        self, folder: Path, rank: int, ranks: int, seconds: float, busy: bool = False
    ) -> None:
        if not seconds > 0:
            raise ValueError(f"the limit of a stall must be above 0, got {seconds} s")
        self.folder, self.rank, self.ranks, self.seconds = folder, rank, ranks, seconds
        self.busy, self.said = busy, ""
        self.tick, self.done = min(1.0, seconds / 10), threading.Event()

    @staticmethod
    def clear(folder: Path) -> None:
        """Take away what an earlier job left in ``folder``."""
        for path in folder.glob("*"):
            path.unlink(missing_ok=True)

    def __enter__(self) -> "Watch":
        self.folder.mkdir(parents=True, exist_ok=True)
        beat()
        self.first_step = _Marks.step
        _Marks.watches += 1
        self.depth = _Marks.watches
        self.devices = _devices()
        self._write()
        self.thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        _Marks.watches -= 1
        faulthandler.cancel_dump_traceback_later()
        self._path(self.rank).unlink(missing_ok=True)

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.json"

    @property
    def limit(self) -> float:
        """Seconds without progress that are too many now."""
        return self.seconds * (2 if _Marks.step == self.first_step else 1)

    def _run(self) -> None:
        before = time.time()
        while not self.done.wait(self.tick):
            now = time.time()
            if now - before > 5 * self.tick + 5:  # the whole process was stopped, and goes on
                beat()
            before = now
            if self.depth == _Marks.watches:
                # Where this thread cannot run, as in a call that keeps the interpreter's lock.
                faulthandler.dump_traceback_later(1.5 * self.limit + _LAST, exit=True)
            try:
                self._look(now)
            except OSError as problem:  # the folder's disk; the next look may succeed
                if self.said != str(problem):
                    print(f"watchdog of rank {self.rank}: {problem}", file=sys.stderr, flush=True)
                self.said = str(problem)

    def _look(self, now: float) -> None:
        self._write()
        for note in self.folder.glob("failed-*.txt"):
            print(f"rank {self.rank} ends: {note.read_text()}", file=sys.stderr, flush=True)
            time.sleep(0.2)
            os._exit(1)
        late = now - _Marks.beaten > self.limit and self.depth == _Marks.watches
        if late and self._stalled(list(self._rows().values()), now):
            (self.folder / "stalled").touch()
        if (self.folder / "stalled").exists():
            self._end()

    def _stalled(self, rows: list[dict[str, Any]], now: float) -> bool:
        """Tell whether no rank has done anything for the limit, by all marks that are there."""
        if not all(now - row["beaten"] > self.limit for row in rows):
            return False
        if not self.busy:
            return True
        silent = [now - row["time"] > self.limit for row in rows]
        waits = [row["where"] and now - row["since"] > self.limit for row in rows]
        # Ranks of other nodes, which have no marks here, may be at work.
        known = len(rows) == self.ranks or any(silent) or _Marks.where == MPI_INIT
        return known and all(a or b for a, b in zip(silent, waits))

    def _write(self, **more: Any) -> None:
        marks = {name: getattr(_Marks, name) for name in ("beaten", "step", "where", "since")}
        row = {**marks, "host": socket.gethostname(), "time": time.time(), **more}
        partial = self.folder / f".rank-{self.rank}.partial"
        partial.write_text(json.dumps(row))
        os.replace(partial, self._path(self.rank))

    def _rows(self) -> dict[int, dict[str, Any]]:
        """Return the marks of all ranks that have left any."""
        rows = {}
        for rank in range(self.ranks):
            with suppress(OSError, ValueError):
                rows[rank] = json.loads(self._path(rank).read_text())
        return rows

    def _end(self) -> None:
        """Print this rank's stacks; the first that can, says who is missing; end."""
        print(f"\nrank {self.rank} of {self.ranks}, all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        self._write(printed=True, lost=sorted(self.devices - _devices()), silent=self._silent())
        began, said = time.time(), self.folder / "said"
        while time.time() - began < _LAST and not said.exists():
            time.sleep(self.tick / 2)
            rows, now = self._rows(), time.time()
            alive = [r for r, row in rows.items() if now - row["time"] < 3 * self.tick + 2]
            if all("printed" in rows[r] for r in alive) and self.rank == min(alive, default=0):
                print(self._report(rows, alive), file=sys.stderr, flush=True)
                said.touch()
        time.sleep(0.3)  # the launcher may end before it has passed the text on
        if _Marks.abort:
            threading.Thread(target=_Marks.abort, args=(STALLED,), daemon=True).start()
            time.sleep(2.0)
        os._exit(STALLED)

    def _silent(self) -> list[str]:
        """Return which of the two nodes beside this one, in the order of ranks, do not answer; the
        first rank of each node asks.
        """
        rows, own = self._rows(), socket.gethostname()
        hosts = list(dict.fromkeys(row["host"] for _, row in sorted(rows.items())))
        if own not in hosts or min(r for r in rows if rows[r]["host"] == own) != self.rank:
            return []
        index = hosts.index(own)
        beside = {hosts[index - 1], hosts[(index + 1) % len(hosts)]} - {own}
        answers: dict[str, bool] = {}
        asking = [threading.Thread(target=_ask, args=(h, answers), daemon=True) for h in beside]
        for thread in asking:
            thread.start()
        end = time.monotonic() + _ANSWER + 0.5
        for thread in asking:
            thread.join(max(0.0, end - time.monotonic()))
        return sorted(host for host in beside if answers.get(host) is False)

    def _report(self, rows: dict[int, dict[str, Any]], alive: list[int]) -> str:
        """Return who is where, and who is missing."""
        now, lines, missing = time.time(), [], []
        names = {rows[r]["where"] for r in alive if rows[r]["where"]}
        for rank in range(self.ranks):
            row = rows.get(rank)
            if row is None:
                lines.append(f"  rank {rank}: never seen")
                missing.append(rank)
                continue
            words = f"  rank {rank} on {row['host']}: {row['step']} steps; "
            if rank not in alive:
                words += f"silent for {now - row['time']:.0f} s (stopped, ended or out of reach)"
                missing.append(rank)
            elif row["where"]:
                words += f"waits in {row['where']} for {now - row['since']:.0f} s"
            else:
                words += f"in none of them, has done nothing for {now - row['beaten']:.0f} s"
                missing.append(rank)
            if row.get("lost"):
                words += f"; no cable in {', '.join(row['lost'])}"
            if row.get("silent"):
                words += f"; no answer from {', '.join(row['silent'])}"
            lines.append(words)
        lost = [row["host"] for row in rows.values() if row.get("lost")]
        cut = lost or ([] if missing else _cut_off(rows))
        who = f"rank {', '.join(map(str, missing))}"
        if cut:
            unreachable = [str(rank) for rank, row in rows.items() if row["host"] in cut]
            hosts = ", ".join(dict.fromkeys(cut))
            who = f"rank {', '.join(unreachable)} (the network of {hosts} is cut)"
        elif not missing:
            who = "rank none: the ranks wait in different places"
            if len(names) == 1:
                who = "rank none: all wait in it, and the nodes reach each other"
        head = (
            f"no rank has done anything for {now - max(r['beaten'] for r in rows.values()):.0f} s"
        )
        where = f"missing in {' and '.join(sorted(names)) or 'everything'}: {who}"
        return "\n".join(["", f"{head}; {where}", *lines, f"all end with status {STALLED}"])


def _cut_off(rows: dict[int, dict[str, Any]]) -> list[str]:
    """Return the nodes that none of those beside them has reached."""
    silent = [host for row in rows.values() for host in row.get("silent", ())]
    asked = min(len({row["host"] for row in rows.values()}) - 1, 2)  # so many nodes asked each
    return sorted(host for host in {*silent} if silent.count(host) >= asked)


def _devices() -> set[str]:
    """Return the network devices that have a cable, or whatever carries their signal."""
    found = set()
    for path in Path("/sys/class/net").glob("*/carrier"):
        with suppress(OSError):  # the device is switched off
            if path.read_text().strip() == "1":
                found.add(path.parent.name)
    return found


def _ask(host: str, answers: dict[str, bool]) -> None:
    """Note whether a node answers, if only by refusing, for nothing listens there; nothing where
    its name is no address here.
    """
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return
    try:
        socket.create_connection((address, 9), _ANSWER).close()
        answers[host] = True
    except OSError as problem:
        answers[host] = isinstance(problem, ConnectionRefusedError)


# -------------------------------------------------------------------------------- before MPI starts
def launched() -> tuple[int, int]:
    """Return (rank, ranks) as the launcher writes them in the environment, (0, 1) without one."""
    return launched_by()[:2]


def launched_by() -> tuple[int, int, str]:
    """Return (rank, ranks, name of the launcher) as the environment says; (0, 1, "") where no
    launcher has started several ranks. Under PMIx a rank k knows of k + 1 ranks only.
    """
    for rank, ranks, mark, name in LAUNCHERS:
        known = [os.environ.get(rank, ""), os.environ.get(ranks, "") if ranks else "0"]
        if all(value.isdigit() for value in known) and (not mark or mark in os.environ):
            number, size = map(int, known)
            if max(size, number + 1) > 1:
                return number, max(size, number + 1), name
    return 0, 1, ""


def start_folder() -> Path:
    """Make and return the folder of the ranks that one launcher has started on this node.

    RuntimeError where something of another user is in its place: ranks end by what it says.
    """
    parent = os.getppid()
    started = "0"
    with suppress(OSError, IndexError):
        started = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[19]
    folder = Path(tempfile.gettempdir()) / f"minicnn-{os.getuid()}-{parent}-{started}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user: set TMPDIR to a folder of your own")
    return folder


def failed(problem: BaseException) -> None:
    """Tell the ranks of this node, which wait in MPI_Init, that this one will not come there."""
    rank, ranks = launched()
    if ranks > 1 and not _Marks.met:
        folder = start_folder()
        text = f"rank {rank} failed before MPI had started: {type(problem).__name__}: {problem}"
        (folder / f"failed-{rank}.txt").write_text(text)


def note_early_failures() -> None:
    """Let an exception that ends a rank before MPI has started, as an import that fails on its
    node, end the others of its node too.
    """
    usual = sys.excepthook

    def note(kind: Any, problem: BaseException, trace: Any) -> None:
        usual(kind, problem, trace)
        failed(problem)

    if launched()[1] > 1:
        sys.excepthook = note


@contextmanager
def watched() -> Iterator[None]:
    """``with watched(): ...`` watches over a program of several ranks, from before MPI_Init to its
    end: over what lies outside of the Watch of a job.
    """
    rank, ranks = launched()
    if ranks == 1:
        yield
        return
    folder = start_folder()
    minutes = float(os.environ.get("MINICNN_STALL_LIMIT") or MINUTES)
    with Watch(folder, rank, ranks, 60 * minutes, busy=True):
        yield
    with suppress(OSError):
        folder.rmdir()  # the last one can


@contextmanager
def starting() -> Iterator[None]:
    """``with starting(): ...`` is MPI_Init: a rank that fails there lets the others of its node
    know.
    """
    try:
        with waiting(MPI_INIT):
            yield
    except BaseException as problem:
        failed(problem)
        raise
    _Marks.met = True


note_early_failures()
