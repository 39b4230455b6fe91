"""Sums over positions, in float64, for what needs the sums of whole images or batches."""

import numpy as np

from ..types import Array, Kernels

SPAN = 256  # positions that a thread adds up, at least
SPANS = 4096  # at most so many spans of an image


def spans_of(positions: int) -> tuple[int, int]:
    """Return (spans, positions of a span): from the shape alone."""
    span = max(SPAN, -(-positions // SPANS))
    return -(-positions // span), span


def image_sums(
    kernels: Kernels, x: Array, mean: Array | None = None, squares: bool = False
) -> Array:
    """Return the sums (N, C) float64 over positions of x (N, P, C), of x - mean, or of its
    square.
    """
    n, positions, c = x.shape
    spans, span = spans_of(positions)
    parts = kernels.empty((n, spans, c), np.float64)
    kernels.each(
        "sums.cu",
        "span_sums",
        parts.size,
        x,
        mean,
        squares,
        np.int64(positions),
        c,
        spans,
        span,
        parts,
    )
    return add_spans(kernels, parts)


def add_spans(kernels: Kernels, parts: Array) -> Array:
    """Return the sums (N, C) over spans of parts (N, spans, C), float64."""
    n, spans, c = parts.shape
    sums = kernels.empty((n, c), np.float64)
    kernels.each("sums.cu", "add_spans", sums.size, parts, spans, c, sums)
    return sums


def channel_sums(
    kernels: Kernels, x: Array, mean: Array | None = None, squares: bool = False
) -> Array:
    """Return the sums (C,) float64 over positions of x (positions, C), of x - mean, or of its
    square.
    """
    return image_sums(kernels, x.reshape(1, *x.shape), mean, squares)[0]
