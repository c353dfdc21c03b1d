"""Records as text for a terminal: a line a trial, a line of progress, the verdict's table."""

from collections.abc import Sequence

from edge_tune.benchmark.statistics import Ratio, noise_floor, ratio_text
from edge_tune.experiment import Experiment
from edge_tune.ranking import Row, Standing, Verdict
from edge_tune.results import Record
from edge_tune.wording import counted, verb

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

RATIOS = (
    "Ratios are to the unpruned network, measured in turns with it; in brackets, 95 % of the resampled rounds. "
    'Noise: how far the unpruned network is from itself; what does not exceed it is "not distinguishable".'
)


SIMULATED = "Simulated: the figures follow from formulas; nothing was trained, classified or measured."


def trial_line(record: Record, experiment: Experiment) -> str:
    """Return one line on a trial that has ended; of its structures, those that are searched."""
    target = experiment.target
    searched = {label for label, group in experiment.pruner_groups.items() if len(group.structures) > 1}
    point = " ".join(
        f"{label} {sparsity:.2f}" + (f" {record.structures[label]}" if label in searched else "")
        for label, sparsity in record.sparsities.items()
    )
    point = f" ({point})" if point else ""
    seconds = sum(record.seconds.values())
    if record.status == "failed":
        return f"{record.name} failed: {record.reason}{point}"
    figures = f"top1 {record.metrics['top1']:.2f}, latency {record.metrics['latency_ms']:.3f} ms"
    if target.metric not in ("top1", "latency_ms"):
        figures += f", {target.metric} {record.metrics[target.metric]:.4g}"
    ending = "stopped, " + str(record.reason) if record.status == "stopped" else "finished"
    return f"{record.name} {ending}: {figures}, {seconds:.1f} s{point}"


def progress_line(standing: Standing, *, total: int, running: int, seconds_left: float | None) -> str:
    """Return one line on how far the study is."""
    best, metric = standing.best, standing.target.metric
    parts = [f"[{standing.ended}/{total} done, {running} running, {standing.hopeless} hopeless"]
    parts.append(f"best {metric} {best.metrics[metric]:.4g} ({best.name})" if best else "no best yet")
    if seconds_left is not None:
        parts.append(f"about {duration(seconds_left)} left")
    return ", ".join(parts) + "]"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def verdict_table(verdict: Verdict) -> str:
    """Return the networks as a Markdown table; ratios are to the first row, measured in turns with it."""
    cells = verdict_cells(verdict)
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["| " + " | ".join(_aligned(line, widths)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (widths[0] + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def verdict_cells(verdict: Verdict) -> list[tuple[str, ...]]:
    """Return the table's cells: the names of the columns, then a network a line."""
    corner = f"{COLUMNS[0]} (simulated)" if verdict.simulated else COLUMNS[0]
    return [(corner, *COLUMNS[1:]), *(_cells(row, verdict.rows[0]) for row in verdict.rows)]


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return what the table does not say, a sentence each."""
    lines = [SIMULATED if verdict.simulated else RATIOS]
    trials = counted(sum(verdict.endings.values()), "trial")
    for name, better in verdict.better_in_both.items():
        if name != "unpruned":
            beat = verb(len(better), "beats", "beat")
            lines.append(f"{len(better)} of {trials} {beat} {name} in both latency and val_top1.")
    counts = verdict.endings
    late = f"{counts['time_limit']} stopped by their time limit, " if counts.get("time_limit") else ""
    lines.append(
        f"Trials: {counts['finished']} finished, {counts['hopeless']} stopped as hopeless, "
        f"{counts['asha']} stopped by ASHA, {late}{counts['failed']} failed."
    )
    if verdict.chosen is None:
        lines.append("No trial finished better than chance, so there is no best network.")
    elif (on_device := verdict.rows[-1].device_test_top1) is not None:
        lines.append(
            f"On the device the exported network has test_top1 {on_device:.2f}; "
            f"in PyTorch {verdict.rows[-1].test['top1']:.2f}."
        )
    return lines


def _cells(row: Row, reference: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.metrics['top1']:.2f}",
        f"{row.test['top1']:.2f}",
        f"{row.test['top5']:.2f}",
        f"{row.metrics['latency_ms']:.3f}",
        _ratio_cell(row, reference, "latency_ratio"),
        f"{row.metrics['total_latency_ms']:.3f}",
        _ratio_cell(row, reference, "total_latency_ratio"),
        f"{row.metrics['throughput_fps']:.0f}",
        f"{row.metrics['parameters']:,.0f}",
    )


def _ratio_cell(row: Row, reference: Row, metric: str) -> str:
    """Return the ratio with its interval, or with its noise floor if it is that of the reference to itself."""
    itself = Ratio(**reference.ratios[metric])
    if row is reference:
        return f"1 ({100 * noise_floor(itself):.1f} % noise)"
    return ratio_text(Ratio(**row.ratios[metric]), noise_floor(itself))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
