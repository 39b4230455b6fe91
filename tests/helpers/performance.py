"""A calibration of the performance model with figures that are easy to reckon with."""

from minicnn.inspect.performance import Calibration


def calibration(**changed):
    values = dict(
        machine="m",
        cores=8,
        threads=2,
        size=3600,
        batch=4,
        parameters=1000,
        events=[0.01, 0.02, 0.06],
        fixed=0.005,
        backward=0.02,
        load=0.0,
        gamma=1e-10,
        memory_bandwidth=1e10,
        slowdown={1: 1.0, 4: 1.2},
        alpha=1e-6,
        beta=1e-9,
    )
    return Calibration(**values | changed)
