"""Packaging of minicnn. minicnn/kernels is a link to the folder kernels/ at the top level, so that
every tool finds it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "minicnn/__init__.py").read_text(), re.M)[1]

tensorboard = ["tensorboardX>=2.6"]  # mc.callbacks.TensorBoard
root = ["uproot>=5"]  # larcv2 ROOT files
test = [
    "pytest>=8",
    "hypothesis>=6",
    "ruff>=0.6",
    "mypy>=1.11",
    "pytest-timeout>=2",
    "pytest-xdist>=3",
    "build",
    "setuptools>=70.1",
    *tensorboard,  # what is tested with its library wherever that is small
    *root,
]
mpi = ["mpi4py>=4", "mpich>=4"]

setup(
    name="minicnn",
    version=VERSION,
    description="A from-scratch CNN engine for full-resolution LArTPC images, parallel over MPI",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    packages=find_packages(include=["minicnn", "minicnn.*"]),
    # Said, so that an editable install is a path, which Python takes before a clone's folder in the
    # present one: minicnn/ without an __init__.py
    package_dir={"": "."},
    package_data={"minicnn": ["py.typed"], "minicnn.kernels.cuda": ["*.cu", "*.cuh", "*.h"]},
    install_requires=[
        "numpy>=2",
        "numba>=0.61",
        "psutil>=5.9",
        "h5py>=3.11",
        "blosc>=1.11",
        "rich>=13",
        "matplotlib>=3.9",
        "safetensors>=0.4",
        "filelock>=3.12",
        "platformdirs>=4",
    ],
    extras_require={
        "mpi": mpi,  # MPI from wheels: nothing else to install
        "mpi-system": ["mpi4py>=4"],  # a cluster's own MPI library and mpiexec
        "cuda12": ["cupy-cuda12x>=13"],
        "cuda13": ["cupy-cuda13x>=13.6"],
        # NVRTC alone, 150 MB to load: compiles the CUDA kernels where there is no GPU; CUDA 12 for
        # the oldest ones
        "cuda-check": [
            "nvidia-cuda-nvrtc>=13; sys_platform == 'linux'",
            "nvidia-cuda-nvrtc-cu12>=12.4; sys_platform == 'linux'",
            "pyelftools>=0.31",
        ],
        "tensorboard": tensorboard,
        "reference": ["pooch>=1.8"],  # reference files of validate from a server
        "root": root,
        # What networks are exported to, and how the result is checked (docs/exchange.md); Keras
        # runs on the torch of the next line where there is no TensorFlow
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        "keras": ["keras>=3.4", "torch>=2.6"],
        "torch": ["torch>=2.6"],
        "peers": [
            "torch>=2.6",
            "keras>=3.10",
            "tensorflow-cpu>=2.18",
        ],  # what benchmarks/peers.py compares with
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],  # make docs
        "test": test,
        "dev": test + mpi,
    },
)
