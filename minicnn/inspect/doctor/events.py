"""Do the events fit? Facts of a file of events, and the checks that read them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ...data import EventStore
from ...files import StrPath
from ...text import bytes_text
from ..opening import bytes_on_disk, open_reader
from .findings import ERROR, OK, WARNING, Finding, Ranks, by_node

#: Bytes that a rank takes beside its events at 3600 x 3600: interpreter, compiled kernels, buffers
#: (benchmarks/peers.py prints it).
RANK_BYTES = 300e6


def data_facts(
    path: StrPath, options: dict[str, Any] | None = None, sample: int = 16
) -> dict[str, Any]:
    """Return what the events of a file take: {"path", "events", "shape", "classes", "disk", "bytes"
    (compressed, per event), "rate" (events/s of loading), "unlabelled"} from a sample of them;
    raises EventError like the reader."""
    path = Path(path)
    with open_reader(path, options or {}) as events:
        if not len(events):
            raise ValueError(f"{path}: holds no events")
        labelled = np.flatnonzero(events.labels >= 0)
        chosen = (
            labelled[np.linspace(0, len(labelled) - 1, min(sample, len(labelled))).astype(int)]
            if len(labelled)
            else []
        )
        store = EventStore()
        store.load(events, chosen)
        n = max(len(store), 1)
        return {
            "path": str(path),
            "events": len(events),
            "shape": tuple(events.image_shape),
            "bytes": store.nbytes / n,
            "dense": store.dense_bytes / n,
            "rate": n / max(store.seconds, 1e-9),
            "unlabelled": len(events) - len(labelled),
            "disk": bytes_on_disk(path),
            "free_disk": shutil.disk_usage(path.parent if path.is_file() else path).free,
        }


def examine_data(ranks: Ranks, data: dict[str, Any]) -> list[Finding]:
    """Return the Findings for training on a data set (see ``data_facts``) with these ranks: enough
    events, memory and disk.
    """
    findings = []
    each = -(-data["events"] // len(ranks))
    what = (
        f"{data['events']:,} events of {' x '.join(map(str, data['shape']))}, "
        f"{bytes_text(data['disk'])} on disk"
    )
    if data["events"] < len(ranks):
        findings.append(
            Finding(
                ERROR,
                "events",
                f"{data['path']}: {what}, fewer than the {len(ranks)} ranks",
                "fewer ranks, more events",
            )
        )
    elif data["unlabelled"]:
        findings.append(
            Finding(
                WARNING,
                "events",
                f"{data['path']}: {what}; {data['unlabelled']:,} have no label and cannot be "
                "trained on",
                "python -m minicnn convert --select labelled",
            )
        )
    else:
        findings.append(
            Finding(
                OK,
                "events",
                f"{data['path']}: {what}; {each:,} per rank, loaded in about "
                f"{each / data['rate']:.3g} s ({data['rate']:.0f} events/s)",
            )
        )
    for host, local_ranks in by_node(ranks).items():
        events = each * len(local_ranks) * data["bytes"]
        need, free = events + RANK_BYTES * len(local_ranks), local_ranks[0]["free_memory"]
        text = (
            f"{host}: {bytes_text(events)} for its share of the events "
            f"({bytes_text(data['bytes'])} each, compressed) and {bytes_text(RANK_BYTES)} "
            f"per rank = {bytes_text(need)}, of {bytes_text(free)} free"
        )
        dense = each * len(local_ranks) * data["dense"]
        if need > free:
            findings.append(
                Finding(
                    ERROR,
                    "memory",
                    text,
                    "more nodes, fewer ranks per node, --store sparse --codec zstd:9",
                )
            )
        else:
            findings.append(
                Finding(
                    OK if need < 0.8 * free else WARNING,
                    "memory",
                    text + (f" (uncompressed: {bytes_text(dense)})"),
                    "" if need < 0.8 * free else "more nodes, or a higher --codec level",
                )
            )
    few = data["free_disk"] < 1e9
    findings.append(
        Finding(
            WARNING if few else OK,
            "disk",
            f"{bytes_text(data['free_disk'])} free beside {data['path']}",
            "make room: runs, checkpoints and converted files go to a disk too" if few else "",
        )
    )
    return findings
