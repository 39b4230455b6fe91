"""Checks of a ledger's table and timeline."""

import json
import re
from itertools import pairwise


def check_timeline(path, ranks):
    """Well formed: names for every process and thread, pieces of a thread in order and nested,
    steps one after another.
    """
    document = json.loads(path.read_text())
    events = document["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X"} and {e["pid"] for e in events} == set(
        range(ranks)
    )
    assert {e["pid"] for e in events if e["name"] == "process_name"} == set(range(ranks))
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"
    }
    assert {"main", "prefetch_0"} <= set(threads.values())
    for (pid, tid), lane in threads.items():
        pieces = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == (pid, tid)]
        assert pieces and all(e["dur"] >= 0 and e["ts"] >= 0 for e in pieces)
        assert all(a["ts"] <= b["ts"] for a, b in pairwise(pieces))
        around = []
        for e in pieces:
            while around and around[-1]["ts"] + around[-1]["dur"] <= e["ts"] + 2e-3:
                around.pop()
            assert (
                not around or e["ts"] + e["dur"] <= around[-1]["ts"] + around[-1]["dur"] + 2e-3
            ), (around[-1], e)
            around.append(e)
        steps = [e["args"]["step"] for e in pieces if e["name"].startswith("step")]
        assert steps == sorted(set(steps)) and bool(steps) == (lane == "main")
    return events


def table_adds_up(text):
    """Check every ledger table in a text: the rows that are not indented add up to the sum, and
    this to the step; return their number.
    """
    tables = re.findall(r"where the time went.*?the step by the clock[^\n]*", text, re.S)
    for table in tables:
        rows = [
            re.match(r"  (\S.*?) +([\d.]+) +[\d.]+ %.*?([\d.]+)?$", line)
            for line in table.split("\n")[2:]
        ]
        mean, slowest = ([float(r[column] or 0) for r in rows if r] for column in (2, 3))
        for column in (mean, slowest):
            *parts, total, wall = column
            assert (
                abs(sum(parts) - total) <= 0.001 * len(parts) and abs(total - wall) <= 0.01 * wall
            ), table
        inner = [
            re.match(r"    (\S.*?) +([\d.]+) +[\d.]+ %", line) for line in table.split("\n")[2:]
        ]
        assert sum(bool(r) for r in inner) >= 5, table
    return len(tables)
