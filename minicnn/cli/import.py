"""``import``: a network from Keras, or weights from Keras or PyTorch, as a model of minicnn."""

import argparse
from pathlib import Path

from .common import one_process, output, positive_count


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an import."""
    add = parser.add_argument
    parser.epilog = (
        "FILE is .keras or .h5 of Keras 2 and 3; or, with --into, weights alone: .weights.h5, or "
        "the .safetensors of a module that export made for PyTorch. Nothing in it is run, and "
        "neither Keras nor PyTorch is needed."
    )
    add("file", type=Path, metavar="FILE", help="what to read")
    add("out", type=Path, metavar="OUT", help="model to write, .safetensors")
    add(
        "--into",
        type=Path,
        metavar="MODEL",
        help="a model of minicnn whose network takes the weights (default: FILE's own network)",
    )
    add("--size", type=positive_count, help="edge of the images where FILE leaves it open")
    add("--class-names", nargs="+", metavar="NAME", help="names of the classes, in FILE's order")
    add("--overwrite", action="store_true", help="replace OUT")


def run(args: argparse.Namespace) -> int:
    """Write the model; return the exit status."""
    from ..exchange import import_keras, import_weights
    from ..train.checkpoint import load_model

    one_process("import")
    out = output(args.out, args.overwrite)
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: models of minicnn end in .safetensors")
    options = {} if args.class_names is None else {"class_names": args.class_names}
    if args.into:
        model = load_model(args.into, "cpu", **options)
        import_weights(model, args.file)
    else:
        model = import_keras(args.file, args.size, device="cpu", **options)
    model.save(out)
    model.summary()
    losses = ", ".join(type(loss).__name__ for loss in model.targets.losses)
    print(f"{args.file} as a model of minicnn: {out}")
    print(f"  pixels times {model.options.input_scale:g}, loss {losses}")
    return 0
