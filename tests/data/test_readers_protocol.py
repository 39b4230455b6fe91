"""What holds for every reader."""

import subprocess
import sys

import pytest

from minicnn.data.readers import READERS
from minicnn.data.readers.reader import Reader


def test_readers_keep_the_protocol():
    import minicnn.data.readers as readers

    for _, name in READERS:
        reader = getattr(readers, name)
        assert reader.name != "?" and callable(reader.recognizes) and issubclass(reader, Reader)
    with pytest.raises(AttributeError):
        _ = readers.nothing


def test_importing_readers_loads_no_h5py():
    code = (
        "import sys, minicnn.data.readers; "
        "sys.exit('h5py' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
