"""Prints the notes of a release, the section of CHANGELOG.md: python .github/release.py v0.1.0

An error where the tag is not minicnn's version, or where the section is missing or still says
"unreleased".
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag, version, changelog):
    """Return the section of ``changelog`` about a tag; SystemExit where it is no release."""
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, minicnn.__version__ is {version}: expected v{version}")
    sections = re.split(r"^## ", changelog, flags=re.M)[1:]
    found = [text for text in sections if re.match(rf"{re.escape(version)}\b", text)]
    if len(found) != 1 or "unreleased" in found[0].split("\n")[0]:
        raise SystemExit(f"CHANGELOG.md needs one section '## {version}', no longer 'unreleased'")
    return found[0].partition("\n")[2].strip()


if __name__ == "__main__":
    text = (ROOT / "minicnn/__init__.py").read_text()
    version = re.search(r'^__version__ = "(.+)"', text, re.M)[1]
    print(notes(sys.argv[1], version, (ROOT / "CHANGELOG.md").read_text()))
