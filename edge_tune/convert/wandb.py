"""A W&B sweep configuration: what it searches, how, and what it looks for."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from edge_tune.convert.command import Setting, from_words
from edge_tune.convert.parameters import Range, letters, read_parameters
from edge_tune.convert.reading import Entry, whole
from edge_tune.experiment import Asha
from edge_tune.metrics import LARGER_IS_BETTER, METRICS
from edge_tune.objective import Goal, Maximise, Minimise
from edge_tune.parameters import Choice, Uniform

METHODS = {"grid": "grid", "random": "random", "bayes": "hyperopt"}
USUAL_TARGET = Minimise("latency_ms")

METRIC_WORDS = {
    **{metric.replace("_", ""): metric for metric in METRICS},
    **dict.fromkeys(("acc", "accuracy", "acc1", "prec1", "top1acc", "top1accuracy"), "top1"),
    **dict.fromkeys(("acc5", "prec5", "top5acc", "top5accuracy"), "top5"),
    **dict.fromkeys(("objectiveloss", "overallloss"), "loss"),
    **dict.fromkeys(("latency", "inferencetime"), "latency_ms"),
    **dict.fromkeys(("totallatency",), "total_latency_ms"),
    **dict.fromkeys(("throughput", "fps"), "throughput_fps"),
    **dict.fromkeys(("params",), "parameters"),
}
"""What others call the metrics, without capitals and punctuation."""

TRIALS = 256
"""As the shipped experiments have, where a sweep would go on until it is stopped."""


WITHOUT_COUNTERPART = {
    "program": "python -m edge_tune.run takes its place",
    "command": "python -m edge_tune.run takes its place; only Distiller's options in it are taken",
    "name": "a study is named after its file",
    "description": "say it in the experiment file",
    "project": "results are plain files in results/",
    "entity": "results are plain files in results/",
}


@dataclass(frozen=True)
class Sweep:
    """What a sweep says of an experiment.

    Attributes:
        ranges: Label -> what to search; groups that no parameter names are missing.
        trials: Its `run_cap`.
    """

    method: str = "hyperopt"
    target: Goal = USUAL_TARGET
    ranges: Mapping[str, Range] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    trials: int = TRIALS
    stopping: tuple[Asha, ...] = ()


def read_sweep(sweep: Entry, labels: Collection[str], notes: list[str]) -> Sweep:
    """Return what a sweep says of the pruner groups `labels`; note what is not carried over, and why.

    Raises:
        ExperimentError: No parameter names a pruner group.
    """
    given = sweep.plain("method")
    method = METHODS.get(str(given), "hyperopt")
    if str(given) not in METHODS:
        notes.append(
            f"{_place(sweep, 'method')}: method must be one of {list(METHODS)}, but got {given!r}; {method!r}."
        )
    ranges, settings = read_parameters(sweep, labels, method, notes)
    if method == "grid" and any(isinstance(found, Uniform) for found in ranges.values()):
        notes.append(
            f"{_place(sweep, 'method')}: a grid needs values, but some parameters have a range without steps; "
            f"'random' is taken, list `values` to get a grid."
        )
        method = "random"
    for key, entry in sweep.value.items():
        if key not in ("method", "metric", "parameters", "run_cap", "early_terminate"):
            reason = WITHOUT_COUNTERPART.get(key, "EdgeTune has no counterpart")
            notes.append(f"{entry.place}: {key} is not carried over: {reason}.")
    return Sweep(
        method=method,
        target=_read_target(sweep, notes),
        ranges=ranges,
        settings=_read_command(sweep, notes) | settings,
        trials=_read_trials(sweep, method, ranges, notes),
        stopping=tuple(_read_early_terminate(sweep, notes)),
    )


def _place(sweep: Entry, key: str) -> str:
    return (sweep.get(key) or sweep).place


def _read_command(sweep: Entry, notes: list[str]) -> dict[str, Setting]:
    words = sweep.plain("command")
    return from_words([str(word) for word in words], _place(sweep, "command"), notes) if isinstance(words, list) else {}


def _read_target(sweep: Entry, notes: list[str]) -> Goal:
    """Return the metric and its direction; where it is none of EdgeTune's, the default, and a note."""
    metric = sweep.get("metric")
    if metric is None:
        notes.append(f"{sweep.place}: the sweep has no metric; Minimise('latency_ms') is taken.")
        return USUAL_TARGET
    given, direction = str(metric.plain("name")), metric.plain("goal") or "minimize"  # W&B's default
    word = re.sub(r"^(validation|valid|val|test|best|mean)*(?=.)", "", letters(given.rpartition("/")[2]))
    known = METRIC_WORDS.get(word)
    if known is None:
        notes.append(
            f"{metric.place}: metric {given!r} is not carried over: EdgeTune records {list(METRICS)}; "
            f"Minimise('latency_ms') is taken, choose another as target."
        )
        return USUAL_TARGET
    if metric.get("target"):
        notes.append(f"{metric.place}: the target of the metric is not carried over: all trials are run.")
    maximises = direction == "maximize"
    if maximises != (known in LARGER_IS_BETTER):
        notes.append(
            f"{metric.place}: goal {direction!r} of {given!r} looks for the worst network; turn the target round if "
            f"that is not meant (W&B minimises where no goal is given)."
        )
    return Maximise(known) if maximises else Minimise(known)


def _read_trials(sweep: Entry, method: str, ranges: Mapping[str, Range], notes: list[str]) -> int:
    """Return the number of runs; without a cap, the points of a grid, or TRIALS."""
    cap = sweep.plain("run_cap")
    trials = whole(cap)
    if trials is not None:
        return trials
    if method == "grid" and cap is None:
        return math.prod(len(found.values) for found in ranges.values() if isinstance(found, Choice))
    notes.append(
        f"{_place(sweep, 'run_cap')}: run_cap must be a whole number, but got {cap!r}; {TRIALS} trials are taken."
    )
    return TRIALS


def _read_early_terminate(sweep: Entry, notes: list[str]) -> Iterator[Asha]:
    """Yield the rule that stands nearest to Hyperband."""
    rule = sweep.get("early_terminate")
    if rule is None:
        return
    eta, brackets = whole(rule.plain("eta")) or 3, whole(rule.plain("s")) or 0
    first, last = whole(rule.plain("min_iter")), whole(rule.plain("max_iter"))
    grace = first if first is not None else last and last // eta**brackets
    if rule.plain("type") != "hyperband" or not grace:
        notes.append(f"{rule.place}: early_terminate is not carried over; add stopping=[et.Asha(...)].")
        return
    notes.append(
        f"{rule.place}: hyperband becomes et.Asha, which compares top1 after epochs; W&B compares the sweep's metric "
        f"after steps it was logged at."
    )
    if whole(given := rule.plain("eta")) is None and given is not None:
        notes.append(f"{rule.place}: eta must be a whole number in et.Asha, but got {given!r}; {eta} is taken.")
    yield Asha(Maximise("top1"), grace_epochs=grace, reduction_factor=eta)
