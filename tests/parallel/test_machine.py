"""What a rank knows of its node."""

import queue
import resource
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from minicnn.parallel import machine


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_every_system(platform, unit, monkeypatch):
    """Where /proc does not tell it, ru_maxrss does: in KiB on Linux, in bytes on macOS."""
    monkeypatch.setattr(machine, "_text", lambda path: "")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3000))
    assert machine.peak_memory_bytes() == 3000 * unit


def test_peak_memory_is_that_of_this_process():
    now = machine.memory_bytes()  # the system's counts are not of the very same moment
    assert 2 * machine.peak_memory_bytes() > now > 1 << 20


class Slow:
    """A rank of two, between which messages take DELAY seconds."""

    DELAY = 0.02

    def __init__(self, rank, inbox, outbox, told):
        self.rank, self.inbox, self.outbox, self.told = rank, inbox, outbox, told

    def Sendrecv(self, out, other, recvbuf, source):
        self.outbox.put((time.perf_counter() + self.DELAY, out.copy()))
        due, data = self.inbox.get()
        time.sleep(max(due - time.perf_counter(), 0))
        recvbuf[...] = data

    def bcast(self, value, root):
        if self.rank == root:
            self.told.put(value)
            return value
        return self.told.get()


@pytest.mark.parametrize("late", (0, 1))
def test_an_exchange_takes_the_delay_of_its_messages_whoever_comes_late(late):
    boxes, told, found = (queue.Queue(), queue.Queue()), queue.Queue(), {}

    def rank(number):
        time.sleep(0.1 * (number == late))
        comm = Slow(number, boxes[number], boxes[1 - number], told)
        found[number] = machine.exchange_seconds(comm, 0, 1, 4, repeats=5)

    threads = [threading.Thread(target=rank, args=(number,)) for number in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert found[0] == found[1] >= 0.9 * Slow.DELAY
