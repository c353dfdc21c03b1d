"""YAML with the line of every entry, so that what is said of an entry can name it."""

import codecs
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_tune.errors import ExperimentError

MAX_BYTES = 250_000
MAX_ENTRIES = 20_000
MAX_LETTERS = 10_000
"""Of one value. The largest of Distiller's schedules has 18,000 bytes and a few hundred entries."""

SEQUENCE, MAPPING, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("seq", "map", "merge"))


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


def read_text(path: Path) -> str:
    """Return the text of a YAML file, in the encodings that YAML has.

    Raises:
        ExperimentError: It is no file that can be read, larger than `MAX_BYTES`, or no text.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ExperimentError(f"{path}: must be a YAML file, but got a folder or a device; check the path.")
        if status.st_size > MAX_BYTES:
            raise ExperimentError(
                f"{path}: must be a schedule or a sweep of at most {MAX_BYTES} bytes, but got {status.st_size}; "
                f"check the path."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ExperimentError(
            f"{path}: must be a YAML file, but it cannot be read: {reason}; check the path."
        ) from error
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExperimentError(
            f"{path}: must be YAML, but got bytes that are no text ({error}); check the path."
        ) from error


def read_yaml(path: Path) -> Entry:
    """Return a file's outermost mapping.

    Raises:
        ExperimentError: The file is missing, is not YAML, holds no mapping, or more than the limits of this module.
    """
    return parse(read_text(path), path)


def parse(text: str, path: Path) -> Entry:
    """Return the outermost mapping of the text of a file.

    Raises:
        ExperimentError: As `read_yaml` does.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        root = None if node is None else _Builder(loader, path).entry(node)
    except RecursionError as error:
        raise ExperimentError(
            f"{path}: must be YAML that nests a few levels deep, but got more levels than can be read, or an alias "
            f"inside of what it stands for; write it flat."
        ) from error
    except yaml.YAMLError as error:
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


class _Builder:
    """Turns the nodes of one file into entries, those that an alias stands for again each time.

    So a few lines of aliases to lists of aliases would fill any memory: the entries are counted.
    """

    def __init__(self, loader: yaml.SafeLoader, path: Path) -> None:
        self.loader, self.path = loader, path
        self.entries = 0

    def entry(self, node: yaml.Node, line: int | None = None) -> Entry:
        """Return a node with all that is in it; `line`, from 0, is that of its key."""
        place = self._place(node.start_mark.line if line is None else line)
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise ExperimentError(
                f"{self.path}: must hold at most {MAX_ENTRIES} keys and values, each alias (*) counted with all that "
                f"it stands for, but got more; write out what is needed."
            )
        if isinstance(node, yaml.ScalarNode):
            return Entry(place, self._scalar(node, place))
        if node.tag not in (SEQUENCE, MAPPING):
            raise ExperimentError(f"{place}: must be plain YAML, but got the tag {node.tag!r}; remove it.")
        if isinstance(node, yaml.SequenceNode):
            return Entry(place, [self.entry(item) for item in node.value])
        return Entry(place, self._merged(node) | self._own(node))

    def _scalar(self, node: yaml.ScalarNode, place: str) -> Any:
        if len(node.value) > MAX_LETTERS:
            raise ExperimentError(
                f"{place}: a value must have at most {MAX_LETTERS} letters, but got {len(node.value)}; shorten it."
            )
        try:
            return self.loader.construct_object(node)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:  # what PyYAML lets through
            raise ExperimentError(
                f"{place}: must be YAML, but got {node.value[:60]!r}, which is not what its form or its tag "
                f"{node.tag!r} says; mend it, or put it in quotation marks."
            ) from error

    def _own(self, node: yaml.MappingNode) -> dict[str, Entry]:
        """Return what stands in a mapping itself."""
        found: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise ExperimentError(
                    f"{self._place(key.start_mark.line)}: a key must be a text, but got a list or a mapping; name it."
                )
            name = str(key.value)
            if name in found:
                raise ExperimentError(
                    f"{self._place(key.start_mark.line)}: a key must be given once, but got {name[:60]!r} here and in "
                    f"line {found[name].place.rpartition(':')[2]}; rename or remove one."
                )
            found[name] = self.entry(value, key.start_mark.line)
        return found

    def _merged(self, node: yaml.MappingNode) -> dict[str, Entry]:
        """Return what a mapping takes from others by "<<"; of several, the first that has a key counts."""
        merged: dict[str, Entry] = {}
        for bases in (self.entry(value, key.start_mark.line) for key, value in node.value if key.tag == MERGE):
            for base in bases.value if isinstance(bases.value, list) else [bases]:
                if not isinstance(base.value, dict):
                    raise ExperimentError(
                        f"{base.place}: << must name a mapping, or several, but got neither; mend it."
                    )
                merged = base.value | merged
        return merged

    def _place(self, line: int) -> str:
        return f"{self.path.name}:{line + 1}"
