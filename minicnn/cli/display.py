"""``display``: the picture of an event."""

import argparse
from pathlib import Path

from ..inspect.opening import open_reader
from .common import one_process, reader_arguments, reader_options


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="events in any format that minicnn reads")
    add("--event", type=int, default=0, metavar="K", help="number of the event in the file, from 0")
    add(
        "--out",
        metavar="PNG",
        help="picture to write, .png, .pdf or .svg (default: FILE-eventK.png here)",
    )
    add("--channel", type=int, default=0, help="which plane of an image of several")
    add("--no-zoom", action="store_true", help="the whole image only")
    reader_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..inspect.report import draw_event

    one_process("display")
    with open_reader(args.file, reader_options(args)) as events:
        if not 0 <= args.event < len(events):
            raise ValueError(
                f"{args.file} has events 0 to {len(events) - 1}, asked for {args.event}"
            )
        event = events.read(args.event)
        out = args.out or f"{Path(args.file).stem}-event{args.event}.png"
        draw_event(
            event,
            out,
            title=f"{Path(args.file).name}, event {args.event}",
            class_names=events.class_names,
            zoom=not args.no_zoom,
            channel=args.channel,
            axes=events.axes,
            unit=events.unit,
        )
        truth = events.class_names[event.label] if event.label >= 0 else "unknown"
        print(
            f"{args.file}, event {args.event} (run, subrun, event "
            f"{', '.join(map(str, event.id))}): "
            f"{event.image.nnz:,} lit pixels, class {truth}; picture in {out}"
        )
        note = getattr(events, "notes", {}).get(args.event)
        if note:
            print(f"  {note}")
    return 0
