"""Energy loss by collisions with electrons, its fluctuation, and multiple scattering of charged
particles.
"""

import math
from typing import NamedTuple

from ._jit import jit
from .kinematics import Point, Vector, deflect, scaled
from .material import RADIATION_LENGTH, XI
from .particles import ELECTRON
from .record import MIN_RECORDED_ENERGY_MEV, emit

DELTA_CUT = 0.5  # MeV: harder knock-on electrons are followed (1 mm of range)
HARD = 12.0  # mean number of collisions per step that are drawn one by one


class Track(NamedTuple):
    """A charged particle on its way: its row in the truth table (see record.Particle), kinetic
    energy in MeV, direction, and where it is.
    """

    row: int
    kinetic: float
    direction: Vector
    point: Point


class Step(NamedTuple):
    """A piece of a track: its length in cm, beta^2 on it, the mean loss of energy, and the largest
    that one electron can take, in MeV.
    """

    length: float
    beta2: float
    mean: float
    t_max: float


@jit
def collisions(rng, world, track, step):
    """Draw the energy lost in one step; return (left here, carried away by delta rays) in MeV.

    The step's mean loss is the unrestricted one. The hardest dozen collisions are drawn from the
    cross section dN/dT = xi / T^2 (1 - beta^2 T / T_max), xi = XI length / beta^2 (PDG review, eq.
    34.8), from T_max downwards; the many soft ones below T = xi / 12 make a Gaussian of the mean
    that is left and variance xi T. The sum has the straggling of Landau and Vavilov (J. Phys. USSR
    8 (1944) 201; Sov. Phys. JETP 5 (1957) 749) at any step length.
    """
    length, beta2, mean, t_max = step
    budget = track.kinetic
    xi = XI * length / beta2
    soft_limit = xi / HARD
    if soft_limit >= t_max:  # slow and heavy: every collision is soft
        left = max(0.0, mean + math.sqrt(xi * t_max * (1.0 - 0.5 * beta2)) * rng.standard_normal())
        return min(left, budget), 0.0
    soft = mean - xi * (math.log(t_max / soft_limit) - beta2 * (1.0 - soft_limit / t_max))
    left = min(max(0.0, soft + math.sqrt(xi * soft_limit) * rng.standard_normal()), budget)
    carried = 0.0
    inverse, last = 1.0 / t_max, 1.0 / soft_limit
    while True:  # collisions are uniform in 1 / T, xi of them per unit
        inverse += rng.standard_exponential() / xi
        if inverse >= last:
            return left, carried
        t = 1.0 / inverse
        if rng.random() < beta2 * t / t_max or left + carried + t > budget:
            continue
        if t < DELTA_CUT:
            left += t
            continue
        carried += t
        p = math.sqrt(t * (t + 2.0 * ELECTRON))
        p_max = math.sqrt(t_max * (t_max + 2.0 * ELECTRON))
        c = min(1.0, t * p_max / (p * t_max))  # two-body kinematics (PDG review, section 34.2.6)
        direction = deflect(track.direction, c, 2.0 * math.pi * rng.random())
        emit(world, 11, track.row, scaled(p, direction), track.point, MIN_RECORDED_ENERGY_MEV)


@jit
def scatter(rng, step, p, beta, direction):
    """Return the direction after multiple scattering in ``step`` cm.

    Highland's width 13.6 MeV / (beta c p) sqrt(step / X0) per projected angle (PDG review, eq.
    34.16), without its logarithm: that belongs to the whole thickness, and is 1 for the sum of many
    steps over one radiation length.
    """
    theta = (
        13.6 / (beta * p) * math.sqrt(2.0 * step / RADIATION_LENGTH * rng.standard_exponential())
    )
    return deflect(direction, math.cos(min(theta, math.pi)), 2.0 * math.pi * rng.random())
