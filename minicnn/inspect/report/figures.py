"""How a picture gets to disk."""

from pathlib import Path
from typing import Any

from ...files import StrPath, atomic_file


def save_figure(figure: Any, path: StrPath) -> StrPath:
    """Write a matplotlib Figure to ``path``, all at once; returns ``path``.

    The ending names the format: .png, .pdf, .svg ... ValueError where there is no such format.
    """
    ending = Path(path).suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path}: there is no picture format {ending or '(no ending)'!r}, only "
            f"{', '.join(known)}"
        )
    for text in (figure.texts, *([axes.title] for axes in figure.axes)):
        for part in text:  # names of files and classes: two dollars are no formula
            part.set_parse_math(False)
            part.set_text(part.get_text().encode(errors="replace").decode())
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format=ending)
    return path
