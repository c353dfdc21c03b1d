"""Numbers and lists in sentences, and tables."""

from collections.abc import Sequence


def counted(number: int, thing: str, things: str = "") -> str:
    """Return "1 node", "2 nodes", or "2 classes" where that is said."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or f'{thing}s'}"


def verb(number: int, singular: str, plural: str) -> str:
    """Return the form of a verb that goes with so many."""
    return singular if number == 1 else plural


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def sides(size: Sequence[int]) -> str:
    """Return a height and a width, or another shape, as one word: "24x32"."""
    return "x".join(map(str, size))


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a Markdown table.

    Args:
        words: So many of the first columns hold words; the others numbers, which stand at the right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(shown)} |"

    rule = "|".join("-" * (width + 2) if n < words else "-" * (width + 1) + ":" for n, width in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])
