"""Files that the simulator is compared with: their digests, and how they come from a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...kernels.cache import cache_folder

#: Name -> SHA-256.
REFERENCES = {
    "geant4_muon_100MeV_in_argon.h5": (
        "50a57f0d5736bd524a0e48d0be3216bcd06196fe4e431c532c76b0c382fd9691"
    ),
    "microboone_field_response_plane2.npz": (
        "a76ac1f299c4dc38a411d4ff629c14be847fdfd712074ed4e4f7ddbc2967136c"
    ),
    "microboone_run3493_raw_waveforms.npz": (
        "4d82b96a70c711687365be38984a4678f4fd20179d4aae4377c95b7fde98490e"
    ),
    "microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz": (
        "5454c2c1aeff5626e0b1c6bbfabb1fe4e6ff9926955be4dcf39a7ab1744824cd"
    ),
}


def is_address(source: str | Path | None) -> bool:
    """Return whether ``source`` is the address of a server and not a folder."""
    return str(source).startswith(("https://", "http://"))


def reference_file(name: str, source: str | Path) -> Path:
    """Return the file of that name in a folder; or from an address, by pooch, kept in the cache.

    FileNotFoundError where the folder lacks it; ValueError where it is another file than the one
    that the tolerances are for, or where it cannot be fetched.
    """
    if is_address(source):
        return _fetched(name, str(source).rstrip("/"))
    path = Path(source) / name
    if not path.exists():
        raise FileNotFoundError(f"{name}, which is not in {source}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != REFERENCES[name]:
        raise ValueError(
            f"{path}: another file than the reference: its SHA-256 is {digest}, expected "
            f"{REFERENCES[name]}; copy it again"
        )
    return path


def _fetched(name, address):
    try:
        import pooch
    except ImportError as missing:
        raise ValueError(
            f'{address}: pooch fetches reference files: pip install "minicnn[reference]"'
        ) from missing
    pooch.get_logger().setLevel("WARNING")
    known, folder = f"sha256:{REFERENCES[name]}", cache_folder("reference")
    try:
        return Path(pooch.retrieve(f"{address}/{name}", known, name, folder))
    except (OSError, ValueError) as problem:  # requests' errors are OSErrors
        raise ValueError(f"{address}/{name} cannot be fetched: {problem}") from problem
