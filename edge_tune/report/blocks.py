"""What a section consists of: words, tables, plots, and why something is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import plotly.graph_objects as go

DASH = "\N{EN DASH}"


def prose(text: str) -> str:
    """Return text as HTML in which no line begins with a percent sign."""
    return escape(text).replace(" %", "\N{NO-BREAK SPACE}%")


@dataclass(frozen=True)
class Plot:
    """A figure with what it shows and how to read it; narrower windows than `min_width` scroll it."""

    figure: go.Figure
    kind: str
    title: str
    caption: str
    min_width: int = 0


@dataclass(frozen=True)
class Note:
    """Why something is left out."""

    text: str


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]

    def html(self) -> str:
        """Return them as HTML."""
        return "\n".join(f"<p>{prose(text)}</p>" for text in self.paragraphs)


@dataclass(frozen=True)
class Table:
    """Rows of cells, which are HTML already; the first cell of each names the row.

    Attributes:
        chosen_column: Which column is the chosen network's.
        shades: (row, column) -> how strong a cell is shaded, from 0 to 1.
    """

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen_column: int | None = None
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)

    def html(self) -> str:
        """Return it as HTML."""
        head = "".join(f'<th scope="col"{self._class(column)}>{cell}</th>' for column, cell in enumerate(self.head))
        body = "\n".join(
            "<tr>" + "".join(self._cell(row, column, cell) for column, cell in enumerate(cells)) + "</tr>"
            for row, cells in enumerate(self.rows)
        )
        return (
            f'<figure class="table"><figcaption><b>{escape(self.title)}.</b> {prose(self.caption)}</figcaption>'
            f'<div class="scroll"><table aria-label="{escape(self.title)}"><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div></figure>"
        )

    def _cell(self, row: int, column: int, cell: str) -> str:
        if column == 0:
            return f'<th scope="row">{cell}</th>'
        if (strength := self.shades.get((row, column))) is not None:
            return f'<td class="shade" style="--strength:{strength:.2f}"><span>{cell}</span></td>'
        return f"<td{self._class(column)}>{cell}</td>"

    def _class(self, column: int) -> str:
        return ' class="chosen"' if column == self.chosen_column else ""


@dataclass(frozen=True)
class Html:
    """HTML as it is."""

    text: str

    def html(self) -> str:
        """Return it."""
        return self.text


Block = Plot | Note | Text | Table | Html


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    key: str
    title: str
    blocks: Sequence[Block]
    level: Literal[2, 3] = 2
    kind: str = ""
