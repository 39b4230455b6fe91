"""A LArTPC single-particle event generator: from the physics of one particle to a zero-suppressed
image.

particles, material                          numbers and tables
kinematics, record                           two tool boxes: directions and phase space; what an event writes down
ionisation, tracks, hadrons, decays, showers the physics
transport                                    which process acts on whom
geometry, detector                           from deposits to pixels
simulator                                    the reader that users see

Only the physics modules import numba, and Simulator imports them when the first one is made.
"""

from .simulator import Simulator

__all__ = ["Simulator"]
