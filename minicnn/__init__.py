"""minicnn: a from-scratch CNN engine for LArTPC event images, data-parallel over MPI."""

__version__ = "0.1.0"
