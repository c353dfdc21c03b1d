"""What was found out once is found again: in a file of the cache, written after each finding."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from edge_tune.errors import ExperimentError
from edge_tune.files import write_atomically
from edge_tune.records.jsonfiles import DamageError, converted, decoded, to_json

Part = TypeVar("Part")


class Kept(Generic[Part]):
    """Findings of one kind by their names, in one file; a file that is damaged is one in which nothing is found.

    Args:
        kind: A dataclass, or another type that JSON can hold.
    """

    def __init__(self, file: Path, kind: type[Part]) -> None:
        self.file = file
        try:
            self.known: dict[str, Part] = converted(decoded(file.read_bytes()), dict[str, kind])  # type: ignore[valid-type]
        except (FileNotFoundError, DamageError):
            self.known = {}

    def __contains__(self, name: str) -> bool:
        """Tell whether something of this name was found."""
        return name in self.known

    def __call__(self, name: str, find: Callable[[], Part]) -> Part:
        """Return what is known under a name, or find it out and keep it.

        Raises:
            ExperimentError: It cannot be kept.
        """
        if name not in self.known:
            self.known[name] = find()
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.file, to_json(self.known, indent=1).encode())
            except OSError as error:
                raise ExperimentError(
                    f"{self.file.parent}: what is found out about the network must be kept there, but got "
                    f"{error.strerror}; name another folder by the variable EDGE_TUNE_CACHE."
                ) from error
        return self.known[name]
