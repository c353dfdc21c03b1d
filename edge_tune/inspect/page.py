"""What was found as one HTML file, in the style of a study's report."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from edge_tune.inspect.measuring import Measured, Removal, ranked
from edge_tune.inspect.parts import ALL, SHARES, Part
from edge_tune.inspect.proposal import Proposal, left_out_text
from edge_tune.inspect.text import (
    COSTS_HEAD,
    LOSS_NOTE,
    PARTS_HEAD,
    RATIO_NOTE,
    TIME_NOTE,
    cost_cells,
    how,
    must_stay,
    part_cells,
    range_text,
)
from edge_tune.report.blocks import Html, Note, Plot, Section, Table, Text, prose
from edge_tune.report.page import document
from edge_tune.report.style import LIGHT, f4, styled

COLORS = dict(zip(SHARES, ("faint", "soft", "accent"), strict=True))


def page(model: str, data: str, measured: Measured, proposal: Proposal, file: str) -> str:
    """Return the page.

    Args:
        data: Name of the images.
        file: Where the experiment is.
    """
    about = f"{model} on {data}, {measured.device.text}."
    parts = [
        Section("cost", "Accuracy lost against time won", [_plot(measured), _costs(measured)]),
        Section("parts", "What can be removed", [_parts(measured), *(Note(line) for line in must_stay(measured))]),
        Section("proposal", "What to search", _proposed(proposal, file)),
        Section("how", "How it was measured", [Text([*how(measured), LOSS_NOTE])]),
    ]
    return document(f"parts of {model}", f"What can be removed from {model}", about, parts)


def _plot(measured: Measured) -> Plot:
    return Plot(
        figure(measured),
        "parts",
        "Each part alone",
        "Top1 that is lost without a part, against the share of the unpruned latency that is won; a line leads from a "
        "quarter of a set to three quarters. At the bottom right are the parts to remove first; below zero, noise is "
        "larger than what was removed. The bars are 95 % intervals of the latency, of parts that were measured "
        "themselves. Hover over a point for its loss, which tells small differences apart.",
        min_width=560,
    )


def figure(measured: Measured) -> go.Figure:
    """Return what is lost of top1 against what is won of the latency, a point for each removal."""
    found = ranked(measured)
    drawn = go.Figure()
    x: list[float | None] = []
    y: list[float | None] = []
    for part, removals in found:
        if part.kind == "set":
            x += [*(_won(one) for one in removals), None]
            y += [*(_lost(one, measured) for one in removals), None]
    if x:
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"width": 0.7, "color": LIGHT["faint"]},
            hoverinfo="skip",
            showlegend=False,
        )
    for share in (*SHARES, ALL):
        points = [(part, one) for part, removals in found for one in removals if one.share == share]
        if points:
            _add(drawn, points, share, measured)
    drawn.update_xaxes(title="latency won (% of the unpruned)", zeroline=True, zerolinecolor=LIGHT["faint"])
    drawn.update_yaxes(title="val top1 lost (points)", zeroline=True, zerolinecolor=LIGHT["faint"])
    return styled(drawn, 480, legend=True)


def _add(drawn: go.Figure, points: Sequence[tuple[Part, Removal]], share: float, measured: Measured) -> None:
    is_block = share == ALL
    drawn.add_scatter(
        x=f4([_won(one) for _, one in points]),
        y=f4([_lost(one, measured) for _, one in points]),
        text=[_hover(part, one, measured) for part, one in points],
        mode="markers",
        marker={
            "symbol": "diamond" if is_block else "circle",
            "size": 9 if is_block else 8,
            "color": LIGHT["ink" if is_block else COLORS[share]],
        },
        error_x={
            "symmetric": False,
            "array": f4([_reach(one, part, one.cost.ratio.ratio - one.cost.ratio.low) for part, one in points]),
            "arrayminus": f4([_reach(one, part, one.cost.ratio.high - one.cost.ratio.ratio) for part, one in points]),
            "thickness": 0.7,
            "width": 0,
            "color": LIGHT["muted"],
        },
        name="a block" if is_block else f"{100 * share:.0f} % of a set",
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(part: Part, one: Removal, measured: Measured) -> str:
    what, _, loss, top1, ratio = cost_cells(part, one, measured)
    share = "" if one.share == ALL else f"{100 * one.share:.0f} % of "
    return f"{share}{escape(what)}<br>top1 {top1} of {measured.unpruned.top1:.1f}, loss {loss} of " + (
        f"{measured.unpruned.loss:.3f}<br>latency_ratio {ratio}"
    )


def _reach(one: Removal, part: Part, reach: float) -> float:
    """Return how far an interval reaches, in percent; it is drawn once for all parts of the same shapes."""
    return 100 * reach if one.measured_on == part.name else 0.0


def _won(one: Removal) -> float:
    return 100 * (1 - one.cost.ratio.ratio)


def _lost(one: Removal, measured: Measured) -> float:
    return measured.unpruned.top1 - one.effect.top1


def _costs(measured: Measured) -> Table:
    rows = [(part, one) for part, removals in ranked(measured) for one in removals]
    highest = max((measured.lost(one) for _, one in rows), default=0.0)
    return Table(
        "What each removal costs and saves",
        f"Ranked by the loss without half of a set, or without a block. With nothing removed, the loss is "
        f"{measured.unpruned.loss:.3f} and top1 {measured.unpruned.top1:.1f}; the unpruned network in turns with "
        f"itself differs by {100 * measured.floor:.1f} %. {RATIO_NOTE} {LOSS_NOTE}",
        [escape(cell) for cell in COSTS_HEAD],
        [[escape(cell) for cell in cost_cells(part, one, measured)] for part, one in rows],
        shades={(row, 2): max(0.0, measured.lost(one)) / highest for row, (_, one) in enumerate(rows) if highest > 0},
    )


def _parts(measured: Measured) -> Table:
    return Table(
        "All parts",
        f"What must be removed together is one line. Parameters and MACs are the part's own: of the layers that make "
        f"its filters, and what is there for them in others. Behind them, what removing half of a set, or a block, "
        f"saves. {TIME_NOTE}",
        [escape(cell) for cell in PARTS_HEAD],
        [[escape(cell) for cell in part_cells(part, measured)] for part in measured.parts],
    )


def _proposed(proposal: Proposal, file: str) -> list[Html | Text]:
    groups = "".join(
        f"<dt>{escape(label)}<br>{escape(range_text(one.group))}</dt><dd>{prose(one.why)}</dd>"
        for label, one in proposal.groups.items()
    )
    intro = (
        f"The groups as they stand in {file}. Groups interact, and retraining makes up for much: these are ranges to "
        f"search, and the search decides."
        if proposal.groups
        else "No group: whatever could be removed is too sensitive or saves nothing."
    )
    return [Text([intro]), Html(f"<dl>{groups}</dl>"), Text([left_out_text(one) for one in proposal.left_out])]
