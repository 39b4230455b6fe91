"""What a rank knows of its node."""

import resource
import sys
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
