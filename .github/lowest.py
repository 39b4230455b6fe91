"""Prints the lowest version of every dependency that setup.py allows: numpy>=2 as numpy==2.0.*."""

import re
from pathlib import Path

text = (Path(__file__).parents[1] / "setup.py").read_text()
listed = re.search(r"install_requires=\[(.*?)\]", text, re.S)[1]
for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', listed):
    print(f"{name}=={version}.*" if "." in version else f"{name}=={version}.0.*")
