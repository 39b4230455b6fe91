"""Files of events, opened and measured for the tools that look at them."""

from pathlib import Path
from typing import Any

from ..data.event import EventError
from ..files import StrPath


def open_reader(path: StrPath, options: dict[str, Any], sandbox: Any = None) -> Any:
    """Open a file of events, in the child process of a Sandbox if one is given; EventError naming
    the file where its reader refuses an option.
    """
    from ..data.readers import open_events
    from ..data.readers.isolated import IsolatedReader

    try:
        if sandbox:
            return IsolatedReader(Path(path), sandbox, **options)
        return open_events(path, **options)
    except EventError:
        raise
    except (TypeError, ValueError) as problem:
        raise EventError(f"{path}: {problem}") from problem


def bytes_on_disk(path: StrPath) -> int:
    """Return the bytes of a file, or of all files in a folder and the folders below it."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
