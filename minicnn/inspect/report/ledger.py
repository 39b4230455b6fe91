"""The ledger's report of a training: a table after every epoch, a timeline and a picture at the
end.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ...files import StrPath, atomic_write
from ...train.callbacks import Callback
from ..trace import Ledger, Piece
from .timeline import draw_step, ledger_table, write_timeline

#: Ranks of a timeline: more make a file that no viewer opens.
RANKS = 32


class LedgerReport(Callback):
    """Prints the ledger's table after every epoch and keeps the last one in ``ledger.txt``; at the
    end writes ``timeline.json`` and ``step.png``, of at most RANKS ranks, evenly spread. All go to
    ``folder``, which it makes.

    A report that cannot be written, because the disk is full, say, is named on stderr; the training
    and its History are not lost over it.
    """

    def __init__(self, ledger: Ledger, folder: StrPath, file: IO[str] | None = None) -> None:
        if not ledger.detail:
            raise ValueError("a LedgerReport needs a Ledger(detail=True)")
        self.ledger, self.folder, self.file = ledger, Path(folder), file

    def __repr__(self) -> str:
        return f"LedgerReport({self.ledger!r}, {str(self.folder)!r})"

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if self.rank == 0:
            title = f"where the time went in epoch {epoch + 1}"
            table = ledger_table(self.ledger.summaries[-1], title)
            print(f"\n{table}\n", file=self.file, flush=True)
            self._guarded(lambda: self._write_table(table))

    def on_train_end(self) -> None:
        """Gather the timelines of the ranks, which all call this together, and write them."""
        ranks = self.ledger.gather(self.comm, RANKS)
        if self.rank or not any(pieces for _, _, pieces in ranks):
            return  # without pieces no step was made, as by a run that was complete already
        self._guarded(lambda: self._write(ranks))

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as problem:
            print(
                f"the ledger's report in {self.folder} could not be written: {problem}",
                file=sys.stderr,
                flush=True,
            )

    def _write_table(self, table: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.folder / "ledger.txt", table + "\n")

    def _write(self, ranks: list[tuple[int, str, list[Piece]]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_timeline(self.folder / "timeline.json", ranks)
        draw_step(self.folder / "step.png", ranks)
        size = self.comm.size if self.comm else 1
        of_all = f" of {size}" if len(ranks) < size else ""
        print(
            f"timeline of {len(ranks)}{of_all} rank{'s' * (size > 1)} in "
            f"{self.folder}/timeline.json (open it at https://ui.perfetto.dev), a typical step in "
            f"{self.folder}/step.png",
            file=self.file,
            flush=True,
        )
