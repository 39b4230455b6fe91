"""What README and docs show runs: their Python blocks, one after the other in each page."""

import re
import subprocess
import sys

import pytest

from helpers import ROOT

PAGES = ["README.md", "docs/networks.md", "docs/exchange.md"]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path):
    code = "\n".join(blocks(page))
    # The pages show the talk's sizes; here the same with few and small events.
    code = code.replace("size=3600", "size=50").replace(
        "length=500", "length=40, shape=(50, 50, 1)"
    )
    code = code.replace("range(400)", "range(16)").replace("range(400, 500)", "range(16, 24)")
    code = code.replace("(512, 512, 1)", "(32, 32, 1)")
    code = "import minicnn as mc\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_links_between_the_pages_exist():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
