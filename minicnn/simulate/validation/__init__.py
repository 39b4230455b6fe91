"""Every validation of the simulator: computed here once, asserted by the tests, drawn and tabulated
by ``python -m minicnn validate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import decays, fast_hadrons, fast_muons, pions_kaons, pixels, readout, showers, tracks
from .base import Check, Figure, Series, Validation
from .references import reference_file

#: Name -> (function, reference file that it needs or None), in the order of the page.
VALIDATIONS: dict[str, tuple[Any, str | None]] = {
    "csda_range": (tracks.csda_range, None),
    "energy_loss": (tracks.energy_loss, None),
    "geant4_muon": (tracks.geant4_muon, "geant4_muon_100MeV_in_argon.h5"),
    "straggling": (tracks.straggling, None),
    "interaction_length": (tracks.interaction_length, None),
    "pion_ends": (tracks.pion_ends, None),
    "branching": (decays.branching, None),
    "michel_spectrum": (decays.michel_spectrum, None),
    "photon_attenuation": (showers.photon_attenuation, None),
    "conversion_length": (showers.conversion_length, None),
    "radiation_length": (showers.radiation_length, None),
    "shower_profile": (showers.shower_profile, None),
    "shower_start": (showers.shower_start, None),
    "one_plane": (showers.one_plane, None),
    "muon_range": (fast_muons.muon_range, None),
    "muon_radiation": (fast_muons.muon_radiation, None),
    "fast_cross_sections": (fast_hadrons.fast_cross_sections, None),
    "fast_paths": (fast_hadrons.fast_paths, None),
    "nucleon_collisions": (fast_hadrons.nucleon_collisions, None),
    "nuclear_cascade": (fast_hadrons.nuclear_cascade, None),
    "pion_or_kaon": (pions_kaons.pion_or_kaon, None),
    "large_shower": (fast_muons.large_shower, None),
    "recombination": (readout.recombination, None),
    "mip_charge": (readout.mip_charge, None),
    "pulse_shape": (readout.pulse_shape, "microboone_field_response_plane2.npz"),
    "noise": (readout.noise, "microboone_run3493_raw_waveforms.npz"),
    "wire_noise": (readout.wire_noise, None),
    "pulse_length": (
        readout.pulse_length,
        "microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz",
    ),
    "lit_fractions": (readout.lit_fractions, None),
    "pixel_classes": (pixels.pixel_classes, None),
}

__all__ = ["VALIDATIONS", "Check", "Figure", "Series", "Validation", "validate"]


def validate(name: str, simulator: Any, folder: str | Path | None = None) -> Validation:
    """Return the Validation of that name. ``folder``: of the reference files, or the address of a
    server that has them.

    FileNotFoundError where its reference file is not there, ValueError where it is another one.
    """
    function, file = VALIDATIONS[name]
    if file is None:
        return function(simulator)
    if folder is None:
        raise FileNotFoundError(f"{name} is compared with {file}, which is not given")
    try:
        path = reference_file(file, folder)
    except FileNotFoundError as missing:
        raise FileNotFoundError(f"{name} is compared with {missing}") from missing
    result = function(simulator, path)
    result.file = file
    return result
