"""JSON files that something else may have damaged: what they hold, checked, or a sentence that says where it is wrong.

A file of one object is all or nothing; of a file of lines, those that are whole are used.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from edge_tune.errors import ExperimentError

Part = TypeVar("Part")
Parse = Callable[[Any], Part]


class DamageError(ValueError):
    """A text, or a part of it, is not what it must be; says what is wrong, and where in it."""


@dataclass(frozen=True)
class Lines(Generic[Part]):
    """What a file of JSON lines holds.

    Attributes:
        parts: One for each whole line, in their order.
        problems: A sentence for each line that is left out, with its number.
    """

    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def content(file: Path) -> bytes | None:
    """Return the bytes of a file, or None if there is none.

    Raises:
        ExperimentError: It cannot be read, or is something else, such as a folder or a pipe, which never ends.
    """
    try:
        if not os.path.lexists(file):
            return None
        if not file.is_file():
            raise ExperimentError(f"{file}: must be a file, but is something else; remove it, or restore the file.")
        return file.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{file}: must be a file that can be read, but got {error.strerror}.") from error


def read_object(file: Path, parse: Parse[Part], advice: str) -> Part:
    """Return what the JSON object in a file holds.

    Args:
        parse: Makes it of what was parsed, or raises DamageError.
        advice: What to do if it is damaged, as the end of a sentence.

    Raises:
        FileNotFoundError: There is no such file.
        ExperimentError: It is no such object; the sentence says where it is wrong.
    """
    text = content(file)
    if text is None:
        raise FileNotFoundError(file)
    try:
        return parse(decoded(text))
    except DamageError as error:
        raise ExperimentError(f"{file}: must hold what a study wrote there, but got: {error}; {advice}.") from error


def read_lines(file: Path, parse: Parse[Part]) -> Lines[Part]:
    """Return what the lines of a file hold; there are none if there is no file.

    Args:
        parse: Makes a part of a parsed line, or raises DamageError.
    """
    lines: Lines[Part] = Lines()
    for number, line in _numbered(content(file) or b""):
        try:
            lines.parts.append(parse(decoded(line)))
        except DamageError as error:
            lines.problems.append(f"{file}:{number}: must hold what a study wrote there, but got: {error}; left out.")
    return lines


def decoded(text: bytes) -> Any:
    """Return what a JSON text holds.

    Raises:
        DamageError: It is none, or nested beyond measure.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(_said(error)) from error


def converted(found: Any, kind: type[Part]) -> Part:
    """Return parsed JSON as a dataclass or another type.

    Raises:
        DamageError: It is something else.
    """
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise DamageError(_said(error)) from error


def plain(part: object) -> Any:
    """Return a dataclass, and all that is in it, as plain JSON types; a field that is None is left out."""
    if is_dataclass(part) and not isinstance(part, type):
        found = {one.name: getattr(part, one.name) for one in fields(part)}
        return {name: plain(value) for name, value in found.items() if value is not None}
    if isinstance(part, Mapping):
        return {key: plain(value) for key, value in part.items()}
    return [plain(value) for value in part] if isinstance(part, list | tuple) else part


def to_json(part: object, indent: int | None = None) -> str:
    """Return JSON; a number that is not finite is refused."""
    return json.dumps(plain(part), indent=indent, allow_nan=False)


def _said(error: Exception) -> str:
    """Return msgspec's words without its sign for the whole: "expected `int`, got `str` in `metrics[...]`"."""
    what, _, place = str(error).partition(" - at `$")
    return what[:1].lower() + what[1:] + (f" in `{place.removeprefix('.')}" if place else "")


def _numbered(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers."""
    return ((number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip())
