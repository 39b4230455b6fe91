"""The main job at a small size, as a user runs it."""

from . import ROOT, mpi

JOB = ROOT / "examples" / "microboone.py"
SIZE = 144
#: Options of a run of seconds; its events are simulated once into the ``cache``.
SMALL = ("--train", 30, "--validation", 11, "--sample", "isotropic")


def job(*arguments, ranks=2, **options):
    """Run the main job on so many ranks."""
    return mpi(ranks, JOB, "--size", SIZE, "--device", "cpu", *arguments, **options)
