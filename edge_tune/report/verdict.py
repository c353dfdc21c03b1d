"""The chosen network against the unpruned one and the known schedules: the rows, the changes, and the words.

Changes of latency come from the ratios alone, each measured in turns with the unpruned network. Of milliseconds and
throughput of two networks no difference is formed: the host may have been busier at one of the two moments.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_tune.benchmark.statistics import is_distinguishable, noise_floor
from edge_tune.display.console import SIMULATED, gate_line, repeats_line
from edge_tune.metrics import RATIOS
from edge_tune.records.accuracy import Difference, in_words
from edge_tune.records.choosing import ranking_line
from edge_tune.records.endings import GATE, ending, ending_text
from edge_tune.records.entries import Ratio
from edge_tune.records.ranking import confirmed_line, epochs_saved, imprecise_line
from edge_tune.records.results import Record
from edge_tune.records.verdict import Row, alternatives_of, row_of, rows_of, with_test_figures
from edge_tune.report.data import StudyData, interval, number
from edge_tune.report.statistics import quotient
from edge_tune.wording import counted, listed, verb

SHOWN = 5
"""How many trials a sentence names before it counts the rest."""


@dataclass(frozen=True)
class Change:
    """A figure of the chosen network against the same figure of another one.

    Attributes:
        points: The difference, for accuracies, which are percent already.
        percent: The change as a share of the other's figure.
        low, high: The 95 % interval of `percent`, where there is one.
        known: `points` with the 95 % interval, of a top1 of which it is known which images were right, or how many.
    """

    value: float
    percent: float
    points: float | None = None
    low: float | None = None
    high: float | None = None
    known: Difference | None = None


def rows(study: StudyData) -> list[Row]:
    """Return the networks of the verdict's table, the chosen one last; without its test figures if it has none."""
    return with_test_figures(rows_of(study.baselines, study.chosen), study.verdict)


def alternatives(study: StudyData) -> list[Row]:
    """Return the fastest networks within some points of the unpruned one, but for the chosen."""
    objective = study.objective or study.target
    return alternatives_of(objective, rows(study), study.baselines, study.trials, study.chosen)


def noise(study: StudyData, metric: str = "latency_ratio") -> float:
    """Return how far the unpruned network was from itself; NaN if it was not measured in turns."""
    itself = interval(study.unpruned, metric) if study.unpruned else None
    return noise_floor(itself) if itself else math.nan


def changes(chosen: Row, other: Row) -> dict[str, Change]:
    """Return metric -> change, for what both networks have figures of. Test accuracies are under `test_top1`, ..."""
    mine, theirs = _figures(chosen), _figures(other)
    known = {"val_top1": chosen.above(other, "validation"), "test_top1": chosen.above(other, "test")}
    found = {}
    for metric, value in mine.items():
        before = theirs.get(metric, math.nan)
        if metric in RATIOS:
            ratio = _ratio_to(chosen, other, metric)
            if ratio:
                percent, low, high = map(_percent, (ratio.ratio, ratio.low, ratio.high))
                found[metric] = Change(value, percent, low=low, high=high)
        elif math.isfinite(value) and math.isfinite(before) and before:
            points = value - before if "top" in metric else None
            found[metric] = Change(value, _percent(value / before), points, known=known.get(metric))
    return found


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


def _figures(row: Row) -> dict[str, float]:
    accuracies = {f"val_{name}": number(row.metrics.get(name)) for name in ("top1", "top5")}
    tested = {f"test_{name}": number(row.test.get(name)) for name in ("top1", "top5")}
    measured = {name: number(row.metrics.get(name)) for name in (*RATIOS, "parameters", "macs")}
    return {**accuracies, **tested, **measured}


def _ratio_to(chosen: Row, other: Row, metric: str) -> Ratio | None:
    """Return the chosen network's time over the other's, both from their ratios to the unpruned network."""
    if metric not in chosen.ratios:
        return None
    mine = chosen.ratios[metric]
    if other.trial == 0:
        return mine
    return quotient(mine, other.ratios[metric]) if metric in other.ratios else None


def sentences(study: StudyData) -> list[str]:
    """Return the conclusion in words."""
    networks = rows(study)
    found = [SIMULATED] if study.simulated else []
    found += [ranking_line(study.ranking)] if study.ranking else []
    chosen = study.chosen
    if chosen is None:
        found.append(_without_choice(study))
    else:
        row = networks[-1]
        found.append(_against_unpruned(study, row, chosen, networks))
        found += _against_retrained(study, row, networks)
        found += _faster_by_ratio(study, chosen)
        found += [
            text
            for record in study.known_schedules
            if (text := _against_schedule(row, _last_row(networks, record), record.name))
        ]
    found += [_better(study, record) for record in study.known_schedules]
    about_all = (study.unsure, study.settled, confirmed_line(study.records), imprecise_line(study.records))
    return [*found, *(line for line in about_all if line)]


def _last_row(networks: Sequence[Row], record: Record) -> Row:
    found = [row for row in networks if row.trial == record.trial]
    return found[-1] if found else row_of(record, record.name)


def _without_choice(study: StudyData) -> str:
    if not study.trials:
        return "No trial has come to an end yet, so there is nothing to choose."
    if study.ranking:
        return "So no network is chosen."
    return f"Of {counted(study.tried, 'trial')}, none finished better than chance, so there is nothing to choose."


def _against_unpruned(study: StudyData, row: Row, chosen: Record, networks: Sequence[Row]) -> str:
    """Say how fast and how good the chosen network is."""
    ratio = interval(chosen, "latency_ratio")
    imprecise = "" if row.is_precise else "; imprecise, since the time of its measurement was over"
    if row.is_unpruned:
        text = f"{chosen.name} removes nothing: it is the unpruned network"
    elif ratio is None:
        text = f"{chosen.name} has a latency of {number(row.metrics.get('latency_ms')):.3f} ms"
    elif is_distinguishable(ratio, _or_zero(noise(study))):
        speed = 1 / ratio.ratio
        text = (
            f"{chosen.name} is {speed:.2f} times as fast as the unpruned network "
            f"(latency_ratio {ratio.ratio:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}{imprecise})"
        )
    else:
        text = (
            f"{chosen.name} cannot be told from the unpruned network by its latency "
            f"(latency_ratio {ratio.ratio:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}{imprecise})"
        )
    text += f", at {number(row.metrics.get('top1')):.2f} % top1 on the validation split"
    if row.test:
        text += f" and {number(row.test.get('top1')):.2f} % on the test split"
    if study.unpruned:
        change = changes(row, _last_row(networks, study.unpruned)).get("val_top1")
        if change and change.points is not None:
            text += f", {in_words(change.points, change.known, ' the unpruned network on validation')}"
    return f"{text}."


def _against_retrained(study: StudyData, row: Row, networks: Sequence[Row]) -> Iterator[str]:
    """Say what the pruning cost the chosen network, apart from what the recipe does to any."""
    if study.unpruned_retrained is None:
        return
    found = changes(row, _last_row(networks, study.unpruned_retrained))
    told = [
        in_words(change.points, change.known, f" on the {split} split")
        for metric, split in (("val_top1", "validation"), ("test_top1", "test"))
        if (change := found.get(metric)) and change.points is not None
    ]
    if told:
        epochs = counted(study.unpruned_retrained.epoch, "epoch")
        yield (
            f"The unpruned network was retrained by the same recipe ({epochs}): against that, the chosen network's "
            f"top1 lies {' and '.join(told)}, which is what the pruning itself cost."
        )


def _faster_by_ratio(study: StudyData, chosen: Record) -> Iterator[str]:
    """Say which trial is faster than the one that was chosen by a figure of another moment."""
    if study.ranking or study.target.label not in ("latency_ms", "total_latency_ms", "throughput_fps"):
        return
    fastest = min(study.front, key=lambda record: record.metrics["latency_ratio"], default=chosen)
    ratio = interval(fastest, "latency_ratio")
    if ratio and _is_faster(fastest, chosen):
        yield (
            f"It was chosen by {study.target.label}, which depends on what else the host did. By latency_ratio, "
            f"{fastest.name} is faster: {ratio.ratio:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}, at "
            f"{number(fastest.metrics.get('top1')):.2f} % validation top1."
        )


def _against_schedule(row: Row, other: Row, name: str) -> str | None:
    """Say how the chosen network compares with a known schedule, in its last state."""
    found = changes(row, other)
    ratio, top1 = found.get("latency_ratio"), found.get("val_top1")
    if ratio is None or ratio.low is None or ratio.high is None or top1 is None or top1.points is None:
        return None
    interval_text = f"95 % interval {signed(ratio.low, 1)} to {signed(ratio.high, 1)} %"
    if ratio.low <= 0 <= ratio.high:
        latency = f"its latency cannot be told from that of {name} ({signed(ratio.percent, 1)} %, {interval_text})"
    else:
        word = "lower" if ratio.percent < 0 else "higher"
        latency = f"its latency is {abs(ratio.percent):.1f} % {word} ({interval_text})"
    return f"Against {name}, {latency}, and its validation top1 lies {in_words(top1.points, top1.known, ' it')}."


def _better(study: StudyData, baseline: Record) -> str:
    better = study.better_in_both(baseline)
    sure = [trial for trial in better if _is_faster(trial, baseline)]
    trials = counted(study.tried, "trial")
    beat = verb(len(better), "beats", "beat")
    text = f"{len(better)} of {trials} {beat} {baseline.name} in both latency_ratio and validation top1"
    if better:
        text += f": {listed([record.name for record in better], SHOWN)}"
        how_many = f"; {len(sure)}" if len(sure) < len(better) else "; all" if len(sure) > 1 else ","
        text += f"{how_many} by more than their intervals overlap"
    return f"{text}."


def _is_faster(trial: Record, baseline: Record) -> bool:
    mine, theirs = interval(trial, "latency_ratio"), interval(baseline, "latency_ratio")
    return bool(mine and theirs and mine.high < theirs.low)


def endings_line(study: StudyData) -> str:
    """Return how the trials ended, counted."""
    counts: dict[str, int] = {}
    for record in (record for record in study.trials if record.same_as is None):
        counts[ending(record)] = counts.get(ending(record), 0) + 1
    gated = counts.pop(GATE, 0)
    gate = gate_line(gated, epochs_saved(study.trials, study.settings.retraining.epochs))
    parts = [f"{count} {ending_text(end)}" for end, count in sorted(counts.items(), key=lambda item: -item[1])]
    if not parts and not gated:
        return "No trial has come to an end yet."
    ended = f"{counted(study.tried, 'trial')}: {', '.join(parts) or 'none was trained'}."
    return " ".join([ended, *gate, *repeats_line(study.repeats)])


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, a minus as wide as a plus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")  # + 0.0: never a minus zero


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
