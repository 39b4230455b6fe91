"""Runs notebooks as a kernel does, cell by cell, and shows what a cell ends in.

python notebook.py FOLDER NAME=VALUE...    # constants that are set to something smaller
"""

import ast
import json
import sys
from pathlib import Path


def show(value):
    """Return the kinds of what a notebook would show of a value."""
    shown = [repr(value)]
    for name in ("_repr_html_", "_repr_png_", "_repr_svg_"):
        if hasattr(value, name):
            shown.append(getattr(value, name)())
    assert all(shown), type(value)
    return [name for name in ("_repr_html_", "_repr_png_") if hasattr(value, name)]


def run(path, constants):
    names, rich = {"__name__": path.stem}, []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], f"{path}: kept with its outputs"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path.name}, cell {number}", "exec"), names)
        names |= {name: value for name, value in constants.items() if name in names}
        if last is not None:
            value = eval(
                compile(ast.Expression(last.value), f"{path.name}, cell {number}", "eval"), names
            )
            rich += show(value) if value is not None else []
    return rich


if __name__ == "__main__":
    given = dict(text.split("=", 1) for text in sys.argv[2:])
    given = {name: ast.literal_eval(value) for name, value in given.items()}
    for notebook in sorted(Path(sys.argv[1]).glob("*.ipynb")):
        print(f"{notebook.name}: {' '.join(run(notebook, given))}", flush=True)
