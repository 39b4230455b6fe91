"""Masses, lifetimes and branching fractions (Particle Data Group, Review of Particle Physics 2022).
MeV, us.
"""

from __future__ import annotations

ELECTRON, MUON, PION, PION0, KAON, PROTON = (
    0.510999,
    105.6584,
    139.5704,
    134.9768,
    493.677,
    938.2721,
)
NEUTRON, KAON0, LAMBDA, ARGON_BINDING = (
    939.5654,
    497.611,
    1115.683,
    8.6,
)  # binding: MeV per nucleon of argon-40
NUCLEON = 938.92  # where proton or neutron makes no difference

MUON_LIFE, PION_LIFE, KAON_LIFE = 2.19698, 0.026033, 0.012380  # us
KSHORT_CTAU, LAMBDA_CTAU = 2.6844, 7.89  # cm
MUON_CAPTURE = 0.76  # fraction of stopped mu- captured by argon nuclei

SPECIES_OF_PDG = {
    11: 0,
    13: 1,
    211: 2,
    321: 3,
    2212: 4,
}  # by |PDG code|: row of the stopping-power tables
SPECIES_MASS = (ELECTRON, MUON, PION, KAON, PROTON)

#: K+ decays: (fraction, charged or neutral daughters by PDG code). The rest (0.4 %) is counted as
#: the first.
KAON_DECAYS = (
    (0.6356, (-13, 14)),  # mu+ nu
    (0.2067, (211, 111)),  # pi+ pi0
    (0.0558, (211, 211, -211)),
    (0.0507, (111, -11, 12)),
    (0.0335, (111, -13, 14)),
    (0.0176, (211, 111, 111)),
)


def mass_of_pdg(pdg: int) -> float:
    """Return the mass in MeV of a particle that the simulator knows; ValueError otherwise."""
    known = {
        22: 0.0,
        11: ELECTRON,
        13: MUON,
        12: 0.0,
        14: 0.0,
        111: PION0,
        211: PION,
        321: KAON,
        311: KAON0,
        130: KAON0,
        310: KAON0,
        2212: PROTON,
        2112: NEUTRON,
        3122: LAMBDA,
    }
    if abs(pdg) not in known:
        raise ValueError(
            f"the simulator has no particle with the PDG code {pdg}; it knows {sorted(known)}"
        )
    return known[abs(pdg)]
