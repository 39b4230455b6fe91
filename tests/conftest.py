"""Settings of all tests."""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("minicnn", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("minicnn")
# Images that are made without checks are checked here, also in the processes that tests start.
os.environ["MINICNN_CHECK_IMAGES"] = "1"
# Processes that tests start, some hundreds, keep the byte code of modules: where this is forbidden
# each of them would compile all sources anew, which takes it 0.2 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def no_gpu(monkeypatch):
    """There is no GPU in this process, where CuPy cannot be imported, nor in those that the test
    starts, which see none.
    """
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
