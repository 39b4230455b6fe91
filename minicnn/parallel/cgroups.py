"""What the control groups of Linux allow this process: those that it is in, one within the other,
of version 2 (one tree) or 1 (a tree per controller).
"""

from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_quota() -> float | None:
    """Return how many cores' worth of time this process may use, None without a limit."""
    quotas = []
    for group in groups("cpu"):
        words = [
            *text(group / "cpu.max").split(),
            text(group / "cpu.cfs_quota_us"),
            text(group / "cpu.cfs_period_us"),
        ]
        numbers = [int(word) for word in words if word.isdigit()]
        if len(numbers) == 2 and numbers[1]:  # "max", or -1, is no number
            quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


def memory_limit() -> tuple[int, int] | None:
    """Return (bytes that this process's groups may have, bytes of them that are free); None without
    a limit. What the system keeps of files it gives back when it is asked for.
    """
    found = []
    for group in groups("memory"):
        limit = number(group / "memory.max") or number(group / "memory.limit_in_bytes")
        if limit is None or limit > 1 << 60:
            continue
        used = number(group / "memory.current") or number(group / "memory.usage_in_bytes") or 0
        stat = dict(line.partition(" ")[::2] for line in text(group / "memory.stat").splitlines())
        total = "total_" if "total_active_file" in stat else ""  # version 1: with groups within
        kept = [stat.get(f"{total}{kind}_file", "0") for kind in ("active", "inactive")]
        cached = sum(int(word) for word in kept if word.isdigit())
        found.append((limit, max(0, limit - max(0, used - cached))))
    if not found:
        return None
    return min(limit for limit, _ in found), min(free for _, free in found)


def groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups, from the root on, that ``controller`` rules."""
    places = [("", "/")]
    for line in text(OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            places.append((controllers and controller, path))
    for tree, path in dict.fromkeys([*places, (controller, "/")]):
        folder = ROOT / tree if tree else ROOT
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            group = folder.joinpath(*parts[:depth])
            if group.is_dir():
                yield group


def number(path: Path) -> int | None:
    """Return the number that a file holds, None where it is absent or holds a word."""
    word = text(path)
    return int(word) if word.isdigit() else None


def text(path: Path) -> str:
    """Return what a file holds, "" where it is absent."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
