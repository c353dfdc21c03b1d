"""YAML with the line of every entry, so that what is said of an entry can name it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_tune.errors import ExperimentError


@dataclass(frozen=True)
class Entry:
    """A part of a YAML file.

    Attributes:
        place: "file:line", counted from 1; what stands under a key has the line of the key.
        value: dict[str, Entry], list[Entry] or a scalar.
    """

    place: str
    value: Any

    def get(self, key: str) -> "Entry | None":
        """Return what stands under `key`; None when nothing does, or this is no mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def plain(self, key: str) -> Any:
        """Return the scalar under `key`, or its list of scalars; None when there is none."""
        entry = self.get(key)
        if entry is None or isinstance(entry.value, dict):
            return None
        return [item.value for item in entry.value] if isinstance(entry.value, list) else entry.value

    def named(self, key: str) -> Iterator[tuple[str, "Entry"]]:
        """Yield each name and its entry under `key`.

        Raises:
            ExperimentError: There is something under `key`, but it has no names.
        """
        entry = self.get(key)
        if entry is None or entry.value is None:
            return
        if not isinstance(entry.value, dict):
            raise ExperimentError(
                f"{entry.place}: {key} must name its entries, as in `name: {{...}}`, but got "
                f"{'a list' if isinstance(entry.value, list) else repr(entry.value)}; give each a name."
            )
        yield from entry.value.items()


def read_yaml(path: Path) -> Entry:
    """Return a file's outermost mapping.

    Raises:
        ExperimentError: The file is missing, is not YAML, or holds no mapping.
    """
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
        root = None if node is None else _entry(node, loader, path.name)
    except OSError as error:
        raise ExperimentError(
            f"{path}: must be a YAML file, but it cannot be read: {error.strerror}; check the path."
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ExperimentError(f"{path}: must be YAML, but got {' '.join(str(error).split())}; mend it.") from error
    if root is None or not isinstance(root.value, dict):
        raise ExperimentError(f"{path}: must hold YAML keys and values, but got none; check the path.")
    return root


def number(value: object) -> float | None:
    """Return a YAML scalar as a finite number: YAML 1.1 takes 1e-4 for text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """Return a YAML scalar as a whole number."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def _entry(node: yaml.Node, loader: yaml.SafeLoader, file: str, line: int | None = None) -> Entry:
    place = f"{file}:{(node.start_mark.line if line is None else line) + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Entry(place, [_entry(item, loader, file) for item in node.value])
    if not isinstance(node, yaml.MappingNode):
        return Entry(place, loader.construct_object(node))
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line, name = key.start_mark.line + 1, str(key.value)
        if name in lines:
            raise ExperimentError(
                f"{file}:{line}: a key must be given once, but got {name!r} here and in line {lines[name]}; "
                f"rename or remove one."
            )
        lines[name] = line
    loader.flatten_mapping(node)  # merges (<<) come first, so what is given here replaces them
    node.value = list({str(key.value): (key, value) for key, value in node.value}.values())
    return Entry(place, {str(key.value): _entry(value, loader, file, key.start_mark.line) for key, value in node.value})
