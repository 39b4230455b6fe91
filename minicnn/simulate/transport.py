"""The loop that follows one particle after the other until none is left."""

from typing import Any

from . import cascade, decays, showers, tracks
from ._jit import jit
from .kinematics import Point, Vector
from .record import World, emit, ends, take


@jit
def add(rng, world, pdg, momentum, point):
    """Simulate one more primary, a Vector of momentum from a Point on, into the same event."""
    emit(world, pdg, -1, momentum, point, 0.0)
    while world.n[2] > 0:
        particle = take(world)
        kind = abs(particle.pdg)
        if kind == 22:
            showers.photon(rng, world, particle)
        elif kind == 11:
            showers.electron(rng, world, particle)
        elif kind == 2112:
            cascade.neutron(rng, world, particle)
        elif kind == 111 or kind == 311 or kind == 3122:
            ends(world, particle.row, particle.point)
            decays.decay(rng, world, particle)
        else:
            tracks.charged(rng, world, particle)


def transport(rng: Any, world: World, pdg: int, momentum: Any, position: Any) -> None:
    """Simulate one primary of a momentum (3,) in MeV/c from a position (3,) in cm at time 0, into
    ``world`` (emptied first).
    """
    world.n[:] = 0
    x, y, z = position
    add(rng, world, pdg, Vector(*momentum), Point(x, y, z, 0.0))
