"""Events that do not fit into memory are refused while the first of them are loaded."""

import numpy as np
import pytest

from helpers import Source
from minicnn.data import Event, EventError, EventStore, SparseImage, memory


def source(events=200, lit=500):
    rng = np.random.default_rng(0)
    shape = (100, 100, 1)
    made = []
    for _ in range(events):
        flat = np.sort(rng.choice(10_000, lit, replace=False))
        coords = np.stack([flat // 100, flat % 100], 1)
        made.append(Event(SparseImage(coords, rng.normal(size=(lit, 1)), shape), 1))
    return Source(made, shape)


def test_what_cannot_fit_is_refused_early(monkeypatch):
    events, seen = source(), []
    store = EventStore().load(events, range(10))
    each = store.nbytes / 10 + memory.OBJECTS
    monkeypatch.setattr(memory, "free_memory", lambda: 100 * each)
    with pytest.raises(EventError, match=r"200 events of .* compressed, do not fit") as caught:
        store.load(events, range(200), progress=lambda done, _: seen.append(done))
    assert max(seen, default=0) < 40 and len(store) == 10
    fits = int(str(caught.value).split(" would fit")[0].split()[-1])
    assert 100 < fits < 140
    store.load(events, range(fits - 10))
    assert len(store) == fits


def test_the_ranks_of_a_node_share_its_memory(monkeypatch):
    events = source()
    each = EventStore().load(events, range(10)).nbytes / 10 + memory.OBJECTS
    monkeypatch.setattr(memory, "free_memory", lambda: 300 * each)
    EventStore().load(events)
    monkeypatch.setenv("MPI_LOCALRANKID", "1")
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    with pytest.raises(EventError, match="on each of 4 ranks of this node do not fit"):
        EventStore().load(events)
