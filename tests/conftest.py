"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("minicnn", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("minicnn")
