"""A page that stands alone: text, tables and pictures in one HTML file, which asks no network."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light; --line: #d8dde3; --quiet: #5b6670; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2329; background: #fff; margin: 0 auto;
       max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: #1f5fa8; }
p { overflow-wrap: anywhere; }
img { max-width: max(100%, 40rem); height: auto; display: block; }
figure { margin: 1rem 0; }
figcaption, .quiet { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto;  /* a shadow at the side where there is more */
        background: linear-gradient(to right, #fff 2rem, #fff0) 0 0 / 4rem 100% no-repeat local,
                    linear-gradient(to left, #fff 2rem, #fff0) 100% 0 / 4rem 100% no-repeat local,
                    linear-gradient(to right, #0003, #0000) 0 0 / .75rem 100% no-repeat scroll,
                    linear-gradient(to left, #0003, #0000) 100% 0 / .75rem 100% no-repeat scroll; }
pre { font: 13px/1.4 ui-monospace, monospace; margin: .5rem 0; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
.wrapped span { display: inline-block; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left;
         vertical-align: top; }
td { overflow-wrap: anywhere; }
td:first-child, thead ~ tbody td { white-space: nowrap; }
"""


def text_block(text: str) -> str:
    """Return a text as it is, in fixed width; on a narrow screen it scrolls by itself."""
    return f'<div class="wide" tabindex="0"><pre>{html.escape(text.rstrip())}</pre></div>'


def command_block(command: str) -> str:
    """Return a command line, broken between its words where the window ends."""
    words = " ".join(f"<span>{html.escape(word)}</span>" for word in command.split(" "))
    return f'<pre class="wrapped">{words}</pre>'


def table_block(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; ``header`` may be empty."""

    def line(cells: Sequence[Any], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def picture_block(path: Path, caption: str) -> str:
    """Return the PNG picture in ``path``, a part of the page; "" where there is none."""
    if not path.exists():
        return ""
    encoded = base64.b64encode(path.read_bytes()).decode()
    words = html.escape(caption)
    return (
        f'<figure><div class="wide" tabindex="0"><img alt="{words}" '
        f'src="data:image/png;base64,{encoded}"></div><figcaption>{words}</figcaption></figure>'
    )


def folded_block(title: str, block: str) -> str:
    """Return a block that is shown where its title is clicked; "" of no block."""
    if not block:
        return ""
    return f"<details><summary>{html.escape(title)}</summary>{block}</details>"


def page(title: str, summary: str, sections: dict[str, list[str]]) -> str:
    """Return an HTML document. summary: a sentence below the title. sections: {heading: blocks};
    those without any block are left out, the others are named at the top.
    """
    shown = {heading: "".join(blocks) for heading, blocks in sections.items() if any(blocks)}
    names = {heading: f"part-{number}" for number, heading in enumerate(shown)}
    links = "".join(f'<a href="#{name}">{html.escape(h)}</a>' for h, name in names.items())
    body = "".join(
        f'<section id="{names[heading]}"><h2>{html.escape(heading)}</h2>{blocks}</section>'
        for heading, blocks in shown.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p>"
        f"<nav>{links}</nav>\n{body}</body></html>\n"
    )
