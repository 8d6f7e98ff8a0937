"""Profiles in files: those that come with the program, copies of them, and those that a calibration made."""

import tempfile
from pathlib import Path

from nas.latency.prediction.calibrated_profile import FORMAT, CalibratedProfile
from nas.latency.prediction.profile import Profile
from nas.machine.files import disk_errors
from nas.machine.reading import read_foreign_json, reading
from nas.terminal.errors import UserError

_ADVICE = "make one with python -m nas.latency calibrate"


def is_profile_file(device: str) -> bool:
    """Whether the name of a device is that of a profile's file."""
    return Path(device).suffix.lower() == ".json"


def read_profile(path: Path) -> Profile | CalibratedProfile:
    """The profile in a file, of either format; UserError if there is none or it is something else."""
    with reading(path, _ADVICE):
        if not path.exists():
            raise UserError(f"there is no device profile {path}: {_ADVICE}")
    data = read_foreign_json(path, _ADVICE, "a device profile")
    calibrated = isinstance(data, dict) and data.get("format") == FORMAT
    if not calibrated and not (isinstance(data, dict) and "machine" in data and "format" not in data):
        raise UserError(f"{path} is not a device profile of this version: {_ADVICE}")
    try:
        return CalibratedProfile.from_dict(data) if calibrated else Profile.from_dict(data)
    except ValueError as error:
        raise UserError(f"{path} is a damaged device profile ({error}): {_ADVICE}") from error


def check_new_profile(path: Path) -> None:
    """See before anything is measured that a profile can be written there and opened with `--device` afterwards.

    Raises:
        UserError: another ending, a folder, a name that is too long, or a place that cannot be written.
    """
    if not is_profile_file(str(path)):
        raise UserError(f"--out {path}: expected a name that ends in .json, which --device knows a profile by")
    with reading(path, "choose another --out"), disk_errors("cannot write the profile"):
        if path.is_dir():
            raise UserError(f"--out {path} is a folder: expected a file to write the profile to")
        place = next(folder for folder in path.absolute().parents if folder.exists())
        # As it will be written: beside its place, under a longer name.
        with tempfile.NamedTemporaryFile(dir=place, prefix=f".{path.name}."):
            pass
