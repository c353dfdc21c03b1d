"""Types of options on the command lines: an empty text, as that of a variable that is not set, is none.

As a path it would otherwise mean the current folder.
"""

import argparse
from pathlib import Path


def given_text(given: str) -> str:
    """Return the value of an option that names something."""
    if not given:
        raise argparse.ArgumentTypeError("must name something, but got an empty text; is a variable not set?")
    return given


def given_size(given: str) -> int | tuple[int, ...] | str:
    """Return the size of images: one side of a square as a number, others as a pair of them, or a word as it is."""
    sides = given_text(given).split("x")
    if not all(side.isdecimal() and side.isascii() for side in sides):
        return given
    return int(sides[0]) if len(sides) == 1 else tuple(map(int, sides))


def given_path(given: str) -> Path:
    """Return the value of an option that names a file or folder."""
    return Path(given_text(given))
