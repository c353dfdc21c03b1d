"""Studies -> one HTML file that needs nothing else: plotly.js, style, script and data are in it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from edge_tune.files import write_atomically
from edge_tune.objective import Objective
from edge_tune.report import sections
from edge_tune.report.blocks import Block, Note, Plot, Section, prose
from edge_tune.report.cards import cards
from edge_tune.report.data import StudyData, read
from edge_tune.report.style import DARK, DARK_STAGE_COLORS, LIGHT, STAGE_COLORS, Axes

HERE = Path(__file__).parent
POLICY = (  # what the browser itself is told: load nothing. WebGL drawing needs eval.
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
)


def write_report(folders: Sequence[Path], output: Path, objective: Objective | None = None) -> list[StudyData]:
    """Write the report of the studies in `folders` and return what was read.

    Raises:
        ExperimentError: A folder holds no study, or the objective does not fit it.
    """
    studies = read(folders, objective)
    write_atomically(output, page(studies).encode())
    return studies


def page(studies: Sequence[StudyData]) -> str:
    """Return the report's HTML."""
    first_rows = list(_first_rows(studies))
    parts = sections.all_sections(studies, Axes.of(studies), first_rows)
    title = studies[0].label if len(studies) == 1 else f"{len(studies)} studies side by side"
    about = sections.about(studies[0]) if len(studies) == 1 else ""
    tab = ", ".join(study.label for study in studies)
    return document(tab, title, about, parts, [cards(study) for study in studies])


def document(tab: str, title: str, about: str, parts: Sequence[Section], studies: Sequence[Any] = ()) -> str:
    """Return sections as HTML that needs nothing else.

    Args:
        tab: What the browser shows above the page.
        about: A line below the title.
        studies: What the cards of trials show, and the points of figures stand for.
    """
    body = _Body(Pool())
    chapters = "\n".join(body.section(part) for part in parts)
    dark = {
        **dict(zip(LIGHT.values(), DARK.values(), strict=True)),
        **{color: DARK_STAGE_COLORS[stage] for stage, color in STAGE_COLORS.items()},
    }
    data = {"pool": body.pool.columns, "figures": body.figures, "dark": dark, "studies": studies}
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>EdgeTune: {escape(tab)}</title>
<link rel="icon" href="data:,">
<style>
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
{_head(title, about, parts)}
{chapters}
<script type="application/json" id="data">{_json(data)}</script>
<script>{get_plotlyjs()}</script>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _first_rows(studies: Sequence[StudyData]) -> Iterator[int]:
    """Yield the row of each study's first trial in the cards of all."""
    row = 0
    for study in studies:
        yield row + len(study.baselines)
        row += len(study.records)


def _head(title: str, about: str, parts: Sequence[Section]) -> str:
    line = f'<p class="about">{escape(about)}</p>' if about else ""
    links = "".join(f'<a href="#{part.key}">{escape(part.title)}</a>' for part in parts if part.level == 2)
    return f"<header><h1>{escape(title)}</h1>{line}<nav>{links}</nav></header>"


class Pool:
    """The columns that the figures share, each once; a figure holds its place in `columns`."""

    def __init__(self) -> None:
        self.columns: list[Mapping[str, str]] = []
        self.places: dict[str, int] = {}

    def pooled(self, part: Any) -> Any:
        """Return a part of a figure with {"$": place} instead of each column."""
        if isinstance(part, dict):
            if "bdata" in part:
                key = f"{part['dtype']} {part['bdata']}"
                if key not in self.places:
                    self.places[key] = len(self.columns)
                    self.columns.append({"dtype": part["dtype"], "bdata": part["bdata"]})
                return {"$": self.places[key]}
            return {name: self.pooled(value) for name, value in part.items()}
        return [self.pooled(item) for item in part] if isinstance(part, list | tuple) else part


class _Body:
    """Writes sections as HTML, and numbers their figures."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.figures: list[Any] = []

    def section(self, section: Section) -> str:
        """Return a section's HTML."""
        blocks = "\n".join(self._block(block) for block in section.blocks)
        heading = f"<h{section.level}>{escape(section.title)}</h{section.level}>"
        return f'<section id="{section.key}" class="about-{section.kind}">\n{heading}\n{blocks}\n</section>'

    def _block(self, block: Block) -> str:
        if isinstance(block, Plot):
            return self._plot(block)
        if isinstance(block, Note):
            return f'<p class="none">{prose(block.text)}</p>'
        return block.html()

    def _plot(self, plot: Plot) -> str:
        number = len(self.figures)
        self.figures.append(self.pool.pooled(_plain(plot.figure)))
        title = escape(plot.title)
        style = f"height:{plot.figure.layout.height}px;min-width:{plot.min_width}px"
        return (
            f'<figure id="figure-{number + 1}"><div class="scroll"><div class="plot" data-figure="{number}" '
            f'data-kind="{plot.kind}" role="img" aria-label="{title}" style="{style}"></div></div>'
            f"<figcaption><b>Figure {number + 1}. {title}.</b> "
            f"{prose(plot.caption)}</figcaption></figure>"
        )


def _plain(figure: go.Figure) -> dict[str, Any]:
    plain: dict[str, Any] = figure.to_plotly_json()
    return {"data": plain["data"], "layout": plain["layout"]}


def _json(content: Any) -> str:
    """Return JSON that may stand in a script element: nothing in it ends the element, NaN is null."""
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, Iterable) and not isinstance(content, str):
        return [_finite(value) for value in content]
    return content
