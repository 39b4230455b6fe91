"""The loop that follows one particle after the other until none is left."""

from typing import Any

from . import cascade, decays, showers, tracks
from ._jit import jit
from .record import World, emit, ends


@jit
def add(rng, world, pdg, px, py, pz, x, y, z, time):
    """Simulate one more primary, from ``time`` in us on, into the same event."""
    emit(world, pdg, -1, px, py, pz, x, y, z, time, 0.0)
    while world.n[2] > 0:
        world.n[2] -= 1
        s = world.stack[world.n[2]]
        code, row, time = int(s[0]), int(s[1]), s[8]
        qx, qy, qz, ax, ay, az = s[2], s[3], s[4], s[5], s[6], s[7]
        kind = abs(code)
        if kind == 22:
            showers.photon(rng, world, row, qx, qy, qz, ax, ay, az, time)
        elif kind == 11:
            showers.electron(rng, world, code, row, qx, qy, qz, ax, ay, az, time)
        elif kind == 2112:
            cascade.neutron(rng, world, row, qx, qy, qz, ax, ay, az, time)
        elif kind == 111 or kind == 311 or kind == 3122:
            ends(world, row, ax, ay, az)
            decays.decay(rng, world, code, row, qx, qy, qz, ax, ay, az, time)
        else:
            tracks.charged(rng, world, code, row, qx, qy, qz, ax, ay, az, time)


def transport(rng: Any, world: World, pdg: int, momentum: Any, position: Any) -> None:
    """Simulate one primary of a momentum (3,) in MeV/c from a position (3,) in cm at time 0, into
    ``world`` (emptied first).
    """
    world.n[:] = 0
    add(rng, world, pdg, *momentum, *position, 0.0)
