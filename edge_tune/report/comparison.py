"""Tables that set networks, and studies, beside each other."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from edge_tune.metrics import RATIO_OF, RATIOS
from edge_tune.records.verdict import Row
from edge_tune.report import verdict
from edge_tune.report.blocks import DASH, Table
from edge_tune.report.data import StudyData, interval, number
from edge_tune.report.timeline import time_unit
from edge_tune.report.verdict import Change, signed

ARROW = "\N{GREEK CAPITAL LETTER DELTA}"
FIGURES = {
    "val_top1": ("val top1 (%)", 2),
    "val_top5": ("val top5 (%)", 2),
    "test_top1": ("test top1 (%)", 2),
    "test_top5": ("test top5 (%)", 2),
    "latency_ratio": ("latency_ratio", 3),
    "total_latency_ratio": ("total_latency_ratio", 3),
    "latency_ms": ("latency (ms)", 3),
    "total_latency_ms": ("total latency (ms)", 3),
    "throughput_fps": ("throughput (fps)", 0),
    "parameters": ("parameters", 0),
    "macs": ("MACs (millions)", 1),
}


def networks_table(study: StudyData, networks: Sequence[Row]) -> Table:
    """Set the networks' figures beside each other, and the chosen one's changes from each baseline's last state."""
    metrics = [name for name in FIGURES if any(_figure(row, name) != DASH for row in networks)]
    metrics = [name for name in metrics if study.tells_top5 or not name.endswith("top5")]
    others = list({row.trial: row for row in networks[:-1]}.values()) if study.chosen else []
    found = [verdict.changes(networks[-1], other) for other in others]
    before = [networks[-1]] if study.chosen else []  # where a narrow screen shows it
    networks = [*before, *verdict.alternatives(study), *networks[: len(networks) - len(before)]]
    rows = [
        [
            escape(FIGURES[name][0]),
            *(_marked(row, name) + _below(row, name) for row in networks),
            *(_change(one[name]) if name in one else DASH for one in found),
        ]
        for name in metrics
    ]
    floor = verdict.noise(study)
    noise = f" The unpruned network differed from itself by up to {100 * floor:.1f} %." if floor >= 0 else ""
    whose = ", for the best and the baselines" if any(row.test for row in networks) else ""
    untested = f" The test split is read at the end of a study only{whose}."
    untested = "" if all(row.test for row in networks) else untested
    return Table(
        "The networks, and the change from the baselines to the chosen one",
        "A ratio is to the unpruned network, measured in turns with it, so it does not depend on what else the host "
        "did; below it, its 95 % interval. It is the figure to compare by. Milliseconds and throughput are of "
        "different moments, so that no change of them is formed; below milliseconds, those of the unpruned network in "
        "the same turns. A figure with ~ is imprecise: the time of its measurement was over before its ratios were "
        f"known to 1 %.{_wilson_told(networks)} {_points_told(found)}{noise}{untested}",
        ["", *(escape(row.name) for row in networks), *(f"{ARROW} from {escape(other.name)}" for other in others)],
        rows,
        chosen_column=1 if study.chosen else None,
    )


def _wilson_told(networks: Sequence[Row]) -> str:
    """Return what stands below a top1, after a blank, if anything does."""
    is_known = any(row.top1("validation") or row.top1("test") for row in networks)
    return " Below a top1 stands its 95 % interval (Wilson)." if is_known else ""


def _points_told(found: Sequence[Mapping[str, Change]]) -> str:
    """Return what stands below the points by which accuracies change."""
    known = [change.known for one in found for change in one.values() if change.known]
    if not known:
        return "Accuracies change in points, below that in percent of the baseline's."
    kinds = {one.is_paired for one in known}
    pairs = ["Bonett and Price, image by image"] if True in kinds else []
    others = ["Newcombe, where a record does not say which images were right"] if False in kinds else []
    return (
        f"Accuracies change in points; below that stands the 95 % interval of a top1 ({'; '.join(pairs + others)}), or "
        "the change in percent of the baseline's."
    )


def _value(row: Row, name: str) -> float:
    split, _, metric = name.partition("_")
    if split in ("val", "test"):
        return number((row.metrics if split == "val" else row.test).get(metric))
    return number(row.metrics.get(name)) / (1e6 if name == "macs" else 1)


def _figure(row: Row, name: str) -> str:
    value = _value(row, name)
    return DASH if np.isnan(value) else f"{value:,.{FIGURES[name][1]}f}"


def _marked(row: Row, name: str) -> str:
    figure = _figure(row, name)
    return figure if row.is_precise or name not in (*RATIO_OF, *RATIOS) or figure == DASH else f"~{figure}"


def _below(row: Row, name: str) -> str:
    """Return the interval of a ratio or a top1, and the unpruned network's milliseconds in the same turns."""
    if known := {"val_top1": row.top1("validation"), "test_top1": row.top1("test")}.get(name):
        return f"<small>{known.text}</small>"
    if row.is_unpruned or row.trial == 0:
        return ""
    if ratio := row.ratios.get(name):
        return f"<small>[{ratio.low:.3f}, {ratio.high:.3f}]</small>"
    return f"<small>of {row.reference[name]:.3f}</small>" if name in row.reference else ""


def _change(change: Change) -> str:
    if change.points is not None:
        known = change.known
        below = f"[{signed(known.low, 2)}, {signed(known.high, 2)}]" if known else f"{signed(change.percent, 1)} %"
        return f"{signed(change.points, 2)} points<small>{below}</small>"
    text = f"{signed(change.percent, 1)} %"
    if change.low is not None and change.high is not None:
        text += f"<small>[{signed(change.low, 1)}, {signed(change.high, 1)}]</small>"
    return text


def studies_table(studies: Sequence[StudyData]) -> Table:
    """Set the studies' chosen networks beside each other."""
    rows = []
    for study in studies:
        chosen = study.chosen
        ratio = interval(chosen, "latency_ratio") if chosen else None
        row = verdict.rows(study)[-1] if chosen else None
        test, mark = (row.test, "" if row.is_precise else "~") if row else ({}, "")
        hours = study.columns.hours[np.isfinite(study.columns.hours)]
        unit, seconds = time_unit(3600 * max(hours, default=0.0))
        rows.append(
            [
                escape(study.label),
                escape(study.target.text),
                str(study.tried),
                f"{3600 * max(hours) / seconds:.1f} {unit}" if len(hours) else DASH,
                escape(chosen.name) if chosen else "none",
                f"{mark}{ratio.ratio:.3f}<small>[{ratio.low:.3f}, {ratio.high:.3f}]</small>" if ratio else DASH,
                f"{number(chosen.metrics.get('top1')):.2f}{_below(row, 'val_top1')}" if chosen and row else DASH,
                f"{test['top1']:.2f}{_below(row, 'test_top1')}" if row and "top1" in test else DASH,
                *(
                    f"{len(study.better_in_both(record))} of {study.tried}"
                    for record in study.known_schedules[:1] or []
                ),
            ]
        )
    wilson = _wilson_told([verdict.rows(study)[-1] for study in studies if study.chosen])
    width = max(len(row) for row in rows)
    head = ["study", "target", "trials", "time", "chosen", "latency_ratio", "val top1 (%)", "test top1 (%)"]
    head += ["beat the schedule in both"] * (width - len(head))
    return Table(
        "The studies",
        "The chosen network of each, its latency_ratio to the unpruned network with the 95 % interval, and how many "
        "trials have both a lower latency_ratio and a higher validation top1 than the study's first baseline schedule. "
        f"A ratio with ~ is imprecise: the time of its measurement was over.{wilson}",
        head,
        [[*row, *[DASH] * (width - len(row))] for row in rows],
    )
