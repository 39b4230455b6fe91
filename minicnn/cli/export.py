"""``export``: a trained model for ONNX, Keras, PyTorch or C++."""

import argparse
from pathlib import Path

from ..exchange import FORMATS
from ..text import bytes_text
from .common import one_process, output


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an export."""
    add = parser.add_argument
    parser.epilog = (
        "The end of OUT's name says the format: "
        + ", ".join(f"{end} {kind}" for end, kind in FORMATS.items())
        + ". A PyTorch module has its weights beside it, in .safetensors. What is written takes "
        "pixels as they are recorded and gives the model's predictions; docs/exchange.md has the "
        "layouts."
    )
    add("model", type=Path, metavar="MODEL", help="a trained model, model.safetensors of a run")
    add("out", type=Path, metavar="OUT", help="file to write")
    add("--to", choices=FORMATS.values(), help="the format (default: as OUT's name says)")
    add(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run what was written by its own library, and compare the predictions",
    )
    add("--overwrite", action="store_true", help="replace OUT")


def run(args: argparse.Namespace) -> int:
    """Write the file; return the exit status."""
    from ..exchange import export_model, format_of
    from ..train.checkpoint import load_model

    one_process("export")
    kind = format_of(args.out)
    if args.to not in (None, kind):
        end = next(end for end, name in FORMATS.items() if name == args.to)
        raise ValueError(f"{args.out}: a file for {args.to} ends in {end}")
    model = load_model(args.model, "cpu")
    out = args.out
    files = [out] if kind != "torch" else [out, out.with_suffix(".safetensors")]
    for file in files:
        if file.resolve() == args.model.resolve():
            raise ValueError(f"{out}: its weights would replace {file}, the model itself")
        output(file, args.overwrite)
    difference = export_model(model, out, args.check)
    written = ", ".join(f"{file} ({bytes_text(file.stat().st_size)})" for file in files)
    print(f"{args.model} as {kind}: {written}")
    if difference is not None:
        print(f"  its predictions are the model's, to {difference:.0e} of the largest")
    return 0
