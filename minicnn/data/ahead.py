"""The former name of prefetch.py; minicnn/cli/convert.py still uses it."""

from .prefetch import ordered_map as ahead

__all__ = ["ahead"]
