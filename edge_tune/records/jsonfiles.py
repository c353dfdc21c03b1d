"""JSON files that something else may have damaged: what they hold, checked, or a sentence that says where it is wrong.

A file of one object is all or nothing; of a file of lines, those that are whole are used.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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


def read_object(file: Path, kind: type[Part], advice: str) -> dict[str, Any]:
    """Return the JSON object in a file, as it stands there.

    Args:
        kind: What it must be, as msgspec reads types; of keys that it does not name, anything may stand there.
        advice: What to do if it is damaged, as the end of a sentence.

    Raises:
        FileNotFoundError: There is no such file.
        ExperimentError: It is no object of that kind; the sentence says where it is wrong.
    """
    text = content(file)
    if text is None:
        raise FileNotFoundError(file)
    try:
        found = decoded(text)
        converted(found, kind)
    except DamageError as error:
        raise ExperimentError(f"{file}: must hold what a study wrote there, but got: {error}; {advice}.") from error
    return dict(found)


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


def _said(error: Exception) -> str:
    """Return msgspec's words without its sign for the whole: "expected `int`, got `str` in `metrics[...]`"."""
    what, _, place = str(error).partition(" - at `$")
    return what[:1].lower() + what[1:] + (f" in `{place.removeprefix('.')}" if place else "")


def _numbered(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers."""
    return ((number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip())
