"""Where the time goes: named spans of the main thread, summed up per epoch."""
import time
from contextlib import contextmanager


class Ledger:
    """Seconds per named part: ``with ledger.span("allreduce"): ...``; ``seconds`` is the account so far."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def span(self, name):
        """Add the time until the end of the block to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def take(self):
        """Return the account so far and start a new one."""
        seconds, self.seconds = self.seconds, {}
        return seconds
