"""A LArTPC single-particle event generator: from the physics of one particle to a zero-suppressed
image.

samples                                       what is shot, from where: samples by name
particles, material                           numbers and tables
kinematics, record                            vectors, phase space; what an event writes down
ionisation, tracks, decays, showers           the physics
hadrons, collisions, cascade                  slow hadrons; fast ones on a nucleon and in a nucleus
radiation, cosmics                            what fast muons radiate; muons of cosmic rays
transport                                     which process acts on whom
geometry, detector, tiles, pixel_truth        from deposits to pixels and their classes
simulator                                     the reader that users see

Only the physics modules import numba, and Simulator imports them when the first one is made.
"""

from .samples import SAMPLES, Sample
from .simulator import Simulator

__all__ = ["SAMPLES", "Sample", "Simulator"]
