"""Interpreters that have some of this one's packages and nothing else."""

import sysconfig
import venv
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib")).resolve()


def folders_of(*packages: str) -> list[Path]:
    """Return the folders of these packages, with those of the libraries that come with them."""
    return [folder for package in packages for folder in PACKAGES.glob(f"{package}*") if folder.is_dir()]


def interpreter_with(folder: Path, *packages: str) -> str:
    """Make an environment that has these packages of this one, and return its interpreter."""
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    for package in folders_of(*packages):
        (own / package.name).symlink_to(package)
    return str(folder / "bin/python")
