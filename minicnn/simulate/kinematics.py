"""Directions, boosts and phase space."""

import math

from ._jit import jit


@jit
def isotropic(rng):
    """Return a unit vector (x, y, z), uniform over the sphere."""
    c = 2.0 * rng.random() - 1.0
    phi = 2.0 * math.pi * rng.random()
    s = math.sqrt(max(0.0, 1.0 - c * c))
    return s * math.cos(phi), s * math.sin(phi), c


@jit
def deflect(x, y, z, cos_theta, phi):
    """Return the unit vector (x, y, z) turned by the polar angle theta, at the azimuth phi around
    itself.
    """
    s = math.sqrt(max(0.0, 1.0 - cos_theta * cos_theta))
    a, b = s * math.cos(phi), s * math.sin(phi)
    if abs(z) < 0.9:  # first transverse axis: z cross direction
        t = math.sqrt(x * x + y * y)
        ex, ey, ez = -y / t, x / t, 0.0
    else:  # x cross direction
        t = math.sqrt(y * y + z * z)
        ex, ey, ez = 0.0, -z / t, y / t
    fx, fy, fz = y * ez - z * ey, z * ex - x * ez, x * ey - y * ex
    ox, oy, oz = (
        cos_theta * x + a * ex + b * fx,
        cos_theta * y + a * ey + b * fy,
        cos_theta * z + a * ez + b * fz,
    )
    n = 1.0 / math.sqrt(ox * ox + oy * oy + oz * oz)  # many small turns: keep the length at 1
    return ox * n, oy * n, oz * n


@jit
def boost(px, py, pz, e, bx, by, bz):
    """Return the momentum (px, py, pz) of energy ``e`` where its frame moves with velocity (bx, by,
    bz), c = 1.
    """
    b2 = bx * bx + by * by + bz * bz
    if b2 < 1e-16:
        return px, py, pz
    gamma = 1.0 / math.sqrt(1.0 - b2)
    along = bx * px + by * py + bz * pz
    k = (gamma - 1.0) * along / b2 + gamma * e
    return px + k * bx, py + k * by, pz + k * bz


@jit
def two_body(mass, m1, m2):
    """Return either daughter's momentum in the rest frame of ``mass``; 0 below threshold (PDG
    review, Kinematics).
    """
    s = (mass * mass - (m1 + m2) ** 2) * (mass * mass - (m1 - m2) ** 2)
    return math.sqrt(s) / (2.0 * mass) if s > 0.0 and mass > m1 + m2 else 0.0


@jit
def three_body(rng, mass, m1, m2, m3):
    """Return three momenta (nine numbers) in the rest frame of ``mass``, uniform in phase space.

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
    ux, uy, uz = isotropic(rng)
    vx, vy, vz = deflect(ux, uy, uz, min(1.0, max(-1.0, c)), 2.0 * math.pi * rng.random())
    return (
        p1 * ux,
        p1 * uy,
        p1 * uz,
        p2 * vx,
        p2 * vy,
        p2 * vz,
        -p1 * ux - p2 * vx,
        -p1 * uy - p2 * vy,
        -p1 * uz - p2 * vz,
    )
