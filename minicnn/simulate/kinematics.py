"""Vectors and points; directions, boosts and phase space."""

import math
from typing import NamedTuple

from ._jit import jit


class Vector(NamedTuple):
    """A momentum in MeV/c, a velocity (c = 1), a direction of length 1, or a way in cm."""

    x: float
    y: float
    z: float


class Point(NamedTuple):
    """A place in the detector in cm, and a time in us."""

    x: float
    y: float
    z: float
    time: float


AT_REST = Vector(0.0, 0.0, 0.0)


@jit
def plus(a, b):
    """Return the sum of two vectors."""
    return Vector(a.x + b.x, a.y + b.y, a.z + b.z)


@jit
def minus(a, b):
    """Return the difference of two vectors."""
    return Vector(a.x - b.x, a.y - b.y, a.z - b.z)


@jit
def scaled(factor, a):
    """Return a vector times a number."""
    return Vector(factor * a.x, factor * a.y, factor * a.z)


@jit
def divided(a, number):
    """Return a vector over a number; :func:`scaled` by its inverse differs in the last bits."""
    return Vector(a.x / number, a.y / number, a.z / number)


@jit
def dot(a, b):
    """Return the scalar product of two vectors."""
    return a.x * b.x + a.y * b.y + a.z * b.z


@jit
def norm(a):
    """Return the length of a vector."""
    return math.sqrt(dot(a, a))


@jit
def moved(point, way):
    """Return the point at the end of a way from ``point``, at the same time."""
    return Point(point.x + way.x, point.y + way.y, point.z + way.z, point.time)


@jit
def later(point, time):
    """Return the same place ``time`` us later."""
    return Point(point.x, point.y, point.z, point.time + time)


@jit
def total_energy(momentum, mass):
    """Return the energy in MeV, mass included, of a particle."""
    return math.sqrt(dot(momentum, momentum) + mass * mass)


@jit
def invariant_mass(energy, momentum):
    """Return the mass in MeV of what has this energy and momentum; 0 where the energy is less."""
    x, y, z = momentum
    return math.sqrt(max(energy * energy - x * x - y * y - z * z, 0.0))


@jit
def isotropic(rng):
    """Return a direction, uniform over the sphere."""
    c = 2.0 * rng.random() - 1.0
    phi = 2.0 * math.pi * rng.random()
    s = math.sqrt(max(0.0, 1.0 - c * c))
    return Vector(s * math.cos(phi), s * math.sin(phi), c)


@jit
def deflect(direction, cos_theta, phi):
    """Return the direction turned by the polar angle theta, at the azimuth phi around itself."""
    x, y, z = direction
    s = math.sqrt(max(0.0, 1.0 - cos_theta * cos_theta))
    a, b = s * math.cos(phi), s * math.sin(phi)
    if abs(z) < 0.9:  # first transverse axis: z cross direction
        t = math.sqrt(x * x + y * y)
        ex, ey, ez = -y / t, x / t, 0.0
    else:  # x cross direction
        t = math.sqrt(y * y + z * z)
        ex, ey, ez = 0.0, -z / t, y / t
    fx, fy, fz = y * ez - z * ey, z * ex - x * ez, x * ey - y * ex
    turned = Vector(
        cos_theta * x + a * ex + b * fx,
        cos_theta * y + a * ey + b * fy,
        cos_theta * z + a * ez + b * fz,
    )
    return scaled(1.0 / norm(turned), turned)  # many small turns: keep the length at 1


@jit
def boost(momentum, energy, velocity):
    """Return the momentum, of ``energy`` MeV, where its frame moves with ``velocity``."""
    b2 = dot(velocity, velocity)
    if b2 < 1e-16:
        return momentum
    gamma = 1.0 / math.sqrt(1.0 - b2)
    along = dot(velocity, momentum)
    return plus(momentum, scaled((gamma - 1.0) * along / b2 + gamma * energy, velocity))


@jit
def two_body(mass, m1, m2):
    """Return either daughter's momentum in the rest frame of ``mass``; 0 below threshold (PDG
    review, Kinematics).
    """
    s = (mass * mass - (m1 + m2) ** 2) * (mass * mass - (m1 - m2) ** 2)
    return math.sqrt(s) / (2.0 * mass) if s > 0.0 and mass > m1 + m2 else 0.0


@jit
def three_body(rng, mass, m1, m2, m3):
    """Return three momenta in the rest frame of ``mass``, uniform in phase space.

    The Dalitz plot is flat in the energies (PDG review, Kinematics): draw two kinetic energies,
    keep what closes a triangle.
    """
    q = mass - m1 - m2 - m3
    while True:
        t1, t2 = q * rng.random(), q * rng.random()
        t3 = q - t1 - t2
        if t3 < 0.0:
            continue
        p1, p2 = math.sqrt(t1 * (t1 + 2.0 * m1)), math.sqrt(t2 * (t2 + 2.0 * m2))
        p3 = math.sqrt(t3 * (t3 + 2.0 * m3))
        if p1 < p2 + p3 and p2 < p1 + p3 and p3 < p1 + p2:
            break
    c = (p3 * p3 - p1 * p1 - p2 * p2) / (2.0 * p1 * p2)
    u = isotropic(rng)
    v = deflect(u, min(1.0, max(-1.0, c)), 2.0 * math.pi * rng.random())
    first, second = scaled(p1, u), scaled(p2, v)
    return first, second, minus(scaled(-p1, u), second)
