"""How a picture gets to disk."""

from pathlib import Path
from typing import Any

from ...files import StrPath, atomic_file


def save_figure(figure: Any, path: StrPath) -> StrPath:
    """Write a matplotlib Figure to ``path``, all at once, in the format that its ending names (.png,
    .pdf, .svg ...); returns ``path``. ValueError naming the file where there is no such format.
    """
    ending = Path(path).suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path}: there is no picture format {ending or '(no ending)'!r}, only {', '.join(known)}"
        )
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format=ending)
    return path
