"""Records as text for a terminal: one line for each trial, a line of progress, the table of the verdict."""

from edge_tune.benchmark.statistics import noise_floor, ratio_text
from edge_tune.experiment import Experiment
from edge_tune.metrics import WITHOUT_DEVICE
from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED, Objective
from edge_tune.parameters import Point, of_part
from edge_tune.records.accuracy import Split, points_text
from edge_tune.records.endings import GATE, PREDICTED, REPEAT
from edge_tune.records.ranking import Standing, last_measurement
from edge_tune.records.results import Record
from edge_tune.records.verdict import Row, Verdict
from edge_tune.wording import aligned, counted, duration, verb

COLUMNS = (
    "network",
    "val_top1",
    "test_top1",
    "test_top5",
    "latency_ms",
    "latency_ratio",
    "total_latency_ms",
    "total_latency_ratio",
    "fps",
    "parameters",
)

NOT_TESTED = "not read"
"""The test split is read for the best and the baselines alone: who chooses by it, has no figure left to report."""

REASONS = 3
"""So many reasons why trials failed are told."""

SIMULATED = "Simulated: the figures follow from formulas; nothing was trained, classified or measured."

TO_READ = (
    "Ratios are to the unpruned network, measured in turns with it; in brackets, the 95 % interval. Milliseconds stand "
    "beside those of the unpruned network in the same turns. "
    "Noise: how far the ratio of the unpruned network to itself is from 1. A difference from the unpruned network that "
    'is no larger than this noise is called "not distinguishable".'
)


def trial_line(record: Record, experiment: Experiment) -> str:
    """Return one line on a trial that has ended."""
    point = point_text(record.point, experiment)
    if record.status == "failed":
        return f"{record.name} {_ending(record, experiment.objective)}{point}"
    return f"{record.name} {_ending(record, experiment.objective)}, {sum(record.seconds.values()):.1f} s{point}"


def repeat_line(record: Record, original: str, experiment: Experiment) -> str:
    """Return one line on a trial that took over the record of the trial or baseline named `original`."""
    ending, point = _ending(record, experiment.objective), point_text(record.point, experiment)
    return f"{record.name} gives the network of {original} and takes its record over, {ending}{point}"


def wait_line(name: str, original: str, point: Point, experiment: Experiment) -> str:
    """Return one line on a trial that waits for the record of the trial or baseline named `original`."""
    text = point_text(point, experiment)
    return f"{name} gives the network that {original} tries now, and waits for its record{text}"


def point_text(point: Point, experiment: Experiment) -> str:
    """Return a point in brackets, after a blank: the numbers, and the texts that are searched. None for no point."""
    parameters = experiment.parameters
    shown = {}
    for name, value in point.items():
        if not (isinstance(value, str) and parameters[name].is_fixed):
            kind, text = name.rpartition(".")[2], parameters[name].text(value)
            shown[name] = text if name.rpartition(".")[0] in experiment.pruners else f"{kind} {text}"
    parts = dict.fromkeys(name.rpartition(".")[0] for name in shown)
    return (
        f" ({' '.join(' '.join((part, *map(str, of_part(shown, part).values()))) for part in parts)})" if shown else ""
    )


def _ending(record: Record, objective: Objective) -> str:
    """Return how a trial ended, and its figures if it has any."""
    if record.status == "failed":
        return f"failed: {record.reason}"
    evidence = last_measurement(record)
    of = f" of {ms:.3f}" if record.trial and (ms := evidence.reference_ms.get("latency_ms")) else ""
    figures = f"top1 {record.metrics['top1']:.2f}, latency {record.metrics['latency_ms']:.3f}{of} ms"
    for metric in objective.metrics:
        if metric not in ("top1", "latency_ms"):
            figures += f", {metric} {record.metrics[metric]:.4g}"
    if not evidence.is_precise:
        figures += ", imprecise: the time of its measurement was over"
    if record.trial and evidence.is_unpruned:
        figures += ", the unpruned network, since nothing was removed"
    ending = "stopped, " + str(record.reason) if record.status == "stopped" else "finished"
    return f"{ending}: {figures}"


def progress_line(
    standing: Standing,
    *,
    total: int | None,
    running: int,
    seconds_left: float | None,
    epochs_left: tuple[int, int] | None = None,
) -> str:
    """Return one line on how far the study is.

    Args:
        total: Trials in all, if that is known.
        epochs_left: Of the study's budget, and that budget.
    """
    done = f"{standing.ended}" if total is None else f"{standing.ended}/{total}"
    parts = [f"[{done} done, {running} running, {standing.hopeless} hopeless"]
    if standing.gated:
        parts.append(f"{standing.gated} not trained")
    if standing.repeats:
        parts.append(f"{standing.repeats} repeated")
    parts.append(_best_so_far(standing))
    if epochs_left is not None:
        left, budget = epochs_left
        parts.append(f"{left:,} of {budget:,} epochs left")
    if seconds_left is not None:
        parts.append(f"about {duration(seconds_left)} left")
    return ", ".join(parts) + "]"


def _best_so_far(standing: Standing) -> str:
    best, label = standing.best, standing.scorer.objective.label
    if best is None:
        nearest = f", nearest came {standing.nearest.name}" if standing.nearest else ""
        return "no best yet" + nearest
    if standing.front:
        return f"{counted(len(standing.front), 'network')} on the front, its knee {best.name}"
    about = "" if label in WITHOUT_DEVICE or last_measurement(best).is_precise else "about "
    return f"best {label} {about}{standing.scorer.shown(best.metrics):.4g} ({best.name})"


def verdict_table(verdict: Verdict) -> str:
    """Return the networks as a Markdown table; ratios are to the first row, measured in turns with it."""
    head, *rows = verdict_cells(verdict)
    return aligned(head, rows)


def verdict_cells(verdict: Verdict) -> list[tuple[str, ...]]:
    """Return the table's cells: the names of the columns, then one line for each network."""
    corner = f"{COLUMNS[0]} (simulated)" if verdict.simulated else COLUMNS[0]
    rows = [*verdict.rows, *verdict.alternatives]
    return [(corner, *COLUMNS[1:]), *(_cells(row, verdict.rows[0]) for row in rows)]


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return what the table does not say, a sentence each."""
    lines = [SIMULATED if verdict.simulated else TO_READ]
    lines += validation_line(verdict)
    lines += [line for line in (verdict.confirmed, verdict.imprecise) if line]
    trials = counted(verdict.trials, "trial")
    for name, better in verdict.better_in_both.items():
        if name not in (UNPRUNED, UNPRUNED_RETRAINED):
            beat = verb(len(better), "beats", "beat")
            lines.append(f"{len(better)} of {trials} {beat} {name} in both latency and val_top1.")
    lines += cost_line(verdict)
    counts = verdict.endings
    paused = f"{counts[PREDICTED]} paused by the prediction, " if counts.get(PREDICTED) else ""
    late = f"{counts['time_limit']} stopped by their time limit, " if counts.get("time_limit") else ""
    lines.append(
        f"Trials: {counts['finished']} finished, {counts['hopeless']} stopped as hopeless, "
        f"{counts['asha']} stopped by ASHA, {paused}{late}{counts['failed']} failed."
    )
    lines += [account.text for account in verdict.accounts if account.rule != GATE]
    lines += gate_line(counts.get(GATE, 0), verdict.epochs_saved)
    lines += repeats_line(counts.get(REPEAT, 0))
    lines += failure_lines(verdict)
    lines += [line for line in (verdict.objective, verdict.unsure, verdict.settled, verdict.remaining) if line]
    if verdict.chosen is None and not verdict.objective:
        lines.append("No trial finished better than chance, so there is no best network.")
    elif verdict.chosen is not None and (on_device := verdict.rows[-1].device_test_top1) is not None:
        lines.append(
            f"On the device the exported network has test_top1 {on_device:.2f}; "
            f"in PyTorch {verdict.rows[-1].test['top1']:.2f}."
        )
    return lines


def validation_line(verdict: Verdict) -> list[str]:
    """Return how the validation top1 of the best compares with the baselines', each as it ended, with the intervals."""
    if verdict.chosen is None:
        return []
    best, ends = verdict.rows[-1], {row.trial: row for row in verdict.rows[:-1]}
    found = {row.name: difference for row in ends.values() if (difference := best.above(row, "validation"))}
    if not found:
        return []
    told = [f"{points_text(one.points)} {name} [{one.low:+.2f}, {one.high:+.2f}]" for name, one in found.items()]
    over = " and ".join(dict.fromkeys(one.over for one in found.values()))
    return [f"val_top1 of the best: {'; '.join(told)}; in brackets, the 95 % interval, over {over}."]


def cost_line(verdict: Verdict) -> list[str]:
    """Return what the pruning cost the chosen network, where the unpruned one was retrained by the same recipe too."""
    unpruned = [row for row in verdict.rows if row.name.partition(", ")[0] == UNPRUNED]
    if verdict.chosen is None or len(unpruned) < 2:
        return []
    best = verdict.rows[-1]
    before, alike = (f"{best.test['top1'] - row.test['top1']:+.2f}" for row in unpruned)
    of_before, of_alike = (_in_brackets(best, row) for row in unpruned)
    known = best.above(unpruned[1], "test")
    over = f" In brackets, the 95 % interval, over {known.over}." if known else ""
    epochs = counted(unpruned[1].epoch, "epoch")
    return [
        f"What it cost: test_top1 {before} points{of_before} to the unpruned network, {alike}{of_alike} to the same "
        f"after {epochs} by the same recipe, which is the cost of the pruning itself.{over}"
    ]


def _in_brackets(best: Row, other: Row) -> str:
    known = best.above(other, "test")
    return f" [{known.low:+.2f}, {known.high:+.2f}]" if known else ""


def gate_line(gated: int, epochs_saved: int) -> list[str]:
    """Return a sentence on the trials that the gate ended, if there are any."""
    if not gated:
        return []
    were = verb(gated, "was not trained, or no further, since it", "were not trained, or no further, since they")
    return [
        f"Another {gated} {were} could not become the best, whatever training did: "
        f"{counted(epochs_saved, 'epoch')} of retraining saved."
    ]


def repeats_line(repeats: int) -> list[str]:
    """Return a sentence on the trials that took a record over, if there are any."""
    what = verb(
        repeats,
        "a network that had been tried, and took its record",
        "networks that had been tried, and took their records",
    )
    return [f"Another {repeats} gave {what} over."] if repeats else []


def failure_lines(verdict: Verdict) -> list[str]:
    """Return why trials failed, a line for each of the most frequent reasons."""
    reasons = list(verdict.failures.items())
    lines = [f"{count} failed: {reason}" for reason, count in reasons[:REASONS]]
    if rest := sum(count for _, count in reasons[REASONS:]):
        lines.append(f"{rest} failed for other reasons, which stand in trials.jsonl.")
    return lines


def all_failed(verdict: Verdict) -> str:
    """Return what to say of a study whose trials all failed, after the reasons."""
    return (
        f"All trials of the search failed ({verdict.trials}), so that there is no network to choose. --resume does not "
        f"run them again: mend what the reasons name, and begin another study."
    )


def _cells(row: Row, reference: Row) -> tuple[str, ...]:
    return (
        row.name,
        _top1_cell(row, "validation"),
        _top1_cell(row, "test") if row.test else NOT_TESTED,
        f"{row.test['top5']:.2f}" if row.test else NOT_TESTED,
        _ms_cell(row, "latency_ms"),
        _ratio_cell(row, reference, "latency_ratio"),
        _ms_cell(row, "total_latency_ms"),
        _ratio_cell(row, reference, "total_latency_ratio"),
        f"{row.metrics['throughput_fps']:.0f}",
        f"{row.metrics['parameters']:,.0f}",
    )


def _top1_cell(row: Row, split: Split) -> str:
    """Return a top1 with its interval, as far as it is known how many images it is of."""
    known = row.top1(split)
    text = f"{(row.metrics if split == 'validation' else row.test)['top1']:.2f}"
    return f"{text} {known.text}" if known else text


def mark(row: Row) -> str:
    """Return what stands before the latencies of an imprecise measurement."""
    return "" if row.is_precise else "~"


def _ms_cell(row: Row, metric: str) -> str:
    """Return the milliseconds, beside those of the unpruned network in the same turns."""
    text = f"{mark(row)}{row.metrics[metric]:.3f}"
    return (
        f"{text} of {row.reference[metric]:.3f}"
        if metric in row.reference and row.trial and not row.is_unpruned
        else text
    )


def _ratio_cell(row: Row, reference: Row, metric: str) -> str:
    """Return the ratio with its interval, or with its noise floor if it is that of the reference to itself."""
    itself = reference.ratios[metric]
    if row is reference:
        return f"1 ({mark(row)}{100 * noise_floor(itself):.1f} % noise)"
    if row.is_unpruned:
        return "1 (the unpruned network)"
    return mark(row) + ratio_text(row.ratios[metric], noise_floor(itself))
