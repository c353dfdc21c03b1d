"""What methods of search find with few trials, on a made-up pruning problem.

python -m benchmarks.search [--seeds 20] [--trials 60]
python -m benchmarks.search --warm-start [--seeds 8]     (what an earlier study saves a new one)
python -m benchmarks.search --cost                       (seconds of a suggestion of latency_aware)

Nothing is trained or measured. The network has six groups of three blocks, 16 to 64 filters wide; the time of a layer
rises with its width in steps of 8 or 16, by how much differs from group to group; accuracy falls with what each group
loses, and with pairs of groups together. A measured ratio is off by 1 % (standard deviation), an accuracy by 0.15
points. Networks that the exact gate refuses cost no epochs. What is found is judged without that noise.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import edge_tune as et
from edge_tune import objective
from edge_tune.command import say
from edge_tune.experiment import Experiment
from edge_tune.metrics import TRAINED
from edge_tune.parameters import Point
from edge_tune.records import fronts
from edge_tune.records.endings import GATE
from edge_tune.records.entries import Evidence, LayerEntry, Ratio, Ratios, Reference, TimeSummary
from edge_tune.records.results import Planned, Record
from edge_tune.records.shapes import LayerShape, NetworkShape, Width
from edge_tune.search.coding import Floats
from edge_tune.search.earlier import numbered
from edge_tune.search.gate import Gate
from edge_tune.search.searcher import Searcher
from edge_tune.search.simulation import PointsAsPlans

METHODS = ("random", "hyperopt", "latency_aware")
FRONT = "front of latency_ratio and top1"
FASTEST = "minimise latency_ratio where top1 >= 87"
EPOCHS = 10
AFTER = (5, 10, 15, 20, 30, 40, 60)
REFERENCE = (1.0, -70.0)
"""Hypervolume counts up to here: the unpruned latency, and 70 % top1."""

RECORDS = (50, 500, 3000)
"""After so many a suggestion is timed."""

EARLIER = 20
"""So many trials has an earlier study."""

NEAR = (1.1, 1.02)
"""Of the least latency among random points: what a study that is taught has to come to."""

MOST = 0.95
"""The greatest sparsity of a range."""

POINTS = 60_000
"""The hypervolume of so many random points is 1."""

RATIO_NOISE = 0.01
TOP1_NOISE = 0.15
UNPRUNED_TOP1 = 90.0
WIDTHS = (16, 16, 32, 32, 64, 64)
BLOCKS = 3
STEPS = (8, 16, 8, 8, 16, 8)
COSTS = (0.26, 0.20, 0.17, 0.14, 0.13, 0.10)
"""Shares of each group in the unpruned latency, of which half rises in steps."""

SPREAD = 0.3
"""Of the logarithms of the filters' norms."""

FIXED = 0.15
"""The share of each layer's time that its width has no part in."""

LOSSES = (1.6, 5.0, 2.2, 6.5, 3.0, 9.0)
"""Points of top1 that each group costs by itself when all of it goes."""

PAIRS = {(0, 1): 4.0, (1, 3): 7.0, (2, 5): 5.0, (4, 5): 6.0}
"""Points of top1 that pairs of groups cost besides."""

GROUPS = {
    f"group_{n}": et.PrunerGroup(
        "filters", [f"group_{n}.{block}.conv1.weight" for block in range(BLOCKS)], sparsity=et.Uniform(0.0, MOST)
    )
    for n in range(len(WIDTHS))
}


def network() -> NetworkShape:
    """Return the layers of the network: in each block one that loses filters, and the one that reads them."""
    layers = []
    for n, width in enumerate(WIDTHS):
        cut, whole = Width(width, ((f"group_{n}", "out"),)), Width(width)
        macs = 9 * width * width * (64 >> n // 2) ** 2 + n  # two groups of a width are of different kinds
        for block in range(BLOCKS):
            layers.append(LayerShape(f"group_{n}.{block}.conv1", cut, whole, macs, 9 * width * width))
            layers.append(LayerShape(f"group_{n}.{block}.conv2", whole, cut, macs, 9 * width * width))
    return NetworkShape(tuple(layers), {"filters": "out"})


IMPORTANCE = {
    f"group_{n}.{block}.conv1": np.random.default_rng([n, block]).lognormal(sigma=SPREAD, size=width)
    for n, width in enumerate(WIDTHS)
    for block in range(BLOCKS)
}
"""Of the filters of each layer: it says nothing about which group accuracy depends on."""


@dataclass(frozen=True)
class Planner(PointsAsPlans):
    """Knows the layers too."""

    def importances(self, label: str, structure: str, importance: str) -> dict[str, Floats]:
        """Return those of the group's layers."""
        return {layer: its for layer, its in IMPORTANCE.items() if layer.startswith(f"{label}.")}

    def shape(self) -> NetworkShape:  # type: ignore[override]  # the formulas of a simulation know none
        """Return them."""
        return network()

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        """Return what the network of a point is: as many filters as stay."""
        kept = [int(one) for one in _kept(_sparsities([point]))[0]]
        return Planned(str(kept), ())


def _sparsities(points: Sequence[Point]) -> Floats:
    return np.array([[float(point.get(f"{label}.sparsity", 0.0)) for label in GROUPS] for point in points])


def _kept(sparsities: Floats) -> Floats:
    return np.asarray(np.maximum(1, np.array(WIDTHS) - np.floor(sparsities * np.array(WIDTHS) + 1e-9)))


def times(sparsities: Floats) -> Floats:
    """Return the share of the unpruned latency that each group takes, [points, groups], without noise."""
    kept, widths, steps = _kept(sparsities), np.array(WIDTHS), np.array(STEPS)
    stairs = np.ceil(kept / steps) * steps / widths
    return np.asarray(np.array(COSTS) * (FIXED + (1 - FIXED) * (kept / widths + stairs) / 2))


def top1(sparsities: Floats) -> Floats:
    """Return the accuracy, [points], without noise."""
    lost = 1 - _kept(sparsities) / np.array(WIDTHS)
    alone = (np.array(LOSSES) * (lost**2 + 2 * lost**6)).sum(axis=1)
    together = sum(cost * lost[:, a] ** 2 * lost[:, b] for (a, b), cost in PAIRS.items())
    return np.asarray(UNPRUNED_TOP1 - alone - together)


def record(trial: int, point: Point, generator: np.random.Generator) -> Record:
    """Return what a trial that comes to its end would report."""
    sparsities = _sparsities([point])
    parts = times(sparsities)[0]
    ratio = float(parts.sum() * (1 + RATIO_NOISE * generator.normal()))
    metrics = {"latency_ratio": ratio, "top1": float(top1(sparsities)[0] + TOP1_NOISE * generator.normal())}
    interval = Ratio(ratio, ratio * (1 - 2 * RATIO_NOISE), ratio * (1 + 2 * RATIO_NOISE))
    layers = [
        LayerEntry(f"group_{n}.{block}.conv{conv}", "Convolution", "made up", ms := part / BLOCKS / 2, ms)
        for n, part in enumerate(parts)
        for block in range(BLOCKS)
        for conv in (1, 2)
    ]
    evidence = Evidence(ratios=Ratios(latency_ratio=interval), reference=Reference(latency=TimeSummary(median=1.0)))
    return Record(
        trial=trial,
        status="finished",
        point=point,
        epoch=EPOCHS,
        metrics=metrics,
        pruned=metrics,
        measurements={"pruned": evidence},
        layers=layers,
    )


UNPRUNED = [
    Record(trial=trial, baseline=name, status="finished", metrics={"latency_ratio": 1.0, "top1": UNPRUNED_TOP1})
    for trial, name in enumerate((objective.UNPRUNED, objective.UNPRUNED_RETRAINED))
]


def experiment(method: str, target: str, seed: int, trials: int, most: float = MOST) -> Experiment:
    """Return the problem as an experiment would have it, with sparsities up to `most`."""
    groups = {label: replace(group, sparsity=et.Uniform(0.0, most)) for label, group in GROUPS.items()}
    return et.Experiment(
        model="made:up",
        dataset="digits",
        pruner_groups=groups,
        target=target,
        retraining=et.Retraining(epochs=EPOCHS, lr=0.1),
        search=et.Search(method, trials=trials, seed=seed),
        benchmark=et.Benchmark(device="fake"),
    )


def never(records: Sequence[Record]) -> bool:
    """Say that a search goes on."""
    return False


def searched(
    method: str,
    target: str,
    seed: int,
    trials: int,
    *,
    most: float = MOST,
    earlier: Sequence[Record] = (),
    is_done: Callable[[Sequence[Record]], bool] = never,
) -> list[Record]:
    """Return the records of a search, one trial after another, in which the gate trains nothing in vain.

    Args:
        earlier: Of a study that teaches this one.
    """
    one = experiment(method, target, seed, trials, most)
    generator = np.random.default_rng([seed, 1])
    searcher = Searcher(one, Planner(one.parameters), UNPRUNED, earlier=list(numbered(earlier)))
    gate = Gate(one.objective, UNPRUNED)
    records: list[Record] = []
    while len(records) < trials and not is_done(records):
        config = searcher.suggest(f"{len(records)} {searcher.next_number}")
        searcher.take_news()
        assert isinstance(config, dict), searcher.exhausted
        found = record(config["trial"], config["point"], generator)
        running = Record(**{**vars(found), "status": "running", "epoch": 0})
        if reason := gate.why(running):
            found = Record(**{**vars(running), "status": "stopped", "stopped_by": GATE, "reason": reason})
        records.append(found)
        gate.know(found)
        searcher.end(found)
    return records


LESSONS = (
    "nothing",
    "20 trials by another seed",
    "the same, but other ranges (sparsities up to 0.6)",
    "the same, but another recipe: latency alone",
)


def lesson(method: str, seed: int, which: str) -> list[Record]:
    """Return what an earlier study by another seed teaches."""
    if which == LESSONS[0]:
        return []
    known = searched(method, FASTEST, 1000 + seed, EARLIER, most=0.6 if which == LESSONS[2] else MOST)
    if which != LESSONS[3]:
        return known
    return [
        replace(one, metrics={name: its for name, its in one.metrics.items() if name not in TRAINED}) for one in known
    ]


def cost(seed: int = 0) -> None:
    """Print the processor time of a suggestion after so many trials at random points: median of a few."""
    say("Synthetic; processor time of a suggestion of latency_aware, median of 5.\n\n| records | s |\n|---|---|")
    for count in RECORDS:
        generator = np.random.default_rng(seed)
        points = generator.uniform(0.0, MOST, (count, len(GROUPS)))
        names = [f"{label}.sparsity" for label in GROUPS]
        one = experiment("latency_aware", FASTEST, seed, count + 10)
        start = {name: parameter.default for name, parameter in one.parameters.items()}
        known = [
            record(number, {**start, **dict(zip(names, row.tolist(), strict=True))}, generator)
            for number, row in enumerate(points, len(one.baseline_names) + 1)
        ]
        searcher = Searcher(one, Planner(one.parameters), [*UNPRUNED, *known])
        taken = []
        for nth in range(5):
            began = time.process_time()
            config = searcher.suggest(str(nth))
            taken.append(time.process_time() - began)
            assert isinstance(config, dict), searcher.exhausted
            searcher.end(record(config["trial"], config["point"], generator))
        say(f"| {count} | {float(np.median(taken)):.2f} |")


def until(records: Sequence[Record], bound: float) -> float:
    """Return after how many epochs the fastest that keeps the condition has this latency; infinite if it never has."""
    found = next((count for count in range(1, len(records) + 1) if fastest(records[:count]) <= bound), None)
    return epochs(records[:found]) if found else float("inf")


def warm_start(seeds: int, trials: int, least: float) -> None:
    """Print how many epochs a study takes to a latency, taught by an earlier one or not."""
    bounds = [share * least for share in NEAR]
    heads = " | ".join(f"to {bound:.3f}" for bound in bounds)
    say(
        f"Synthetic; epochs, of {EPOCHS} a trial, until the fastest with top1 >= 87 has such a latency_ratio or less, "
        f"within {trials} trials; median and quartiles of {seeds} seeds.\n\n| method | taught by | {heads} |\n"
        f"|---{'|---' * (1 + len(bounds))}|"
    )
    for method in METHODS[1:]:
        for which in LESSONS:
            if method == "hyperopt" and which == LESSONS[3]:
                continue  # it learns of whole trials alone
            runs = [
                searched(
                    method,
                    FASTEST,
                    seed,
                    trials,
                    earlier=lesson(method, seed, which),
                    is_done=lambda records: fastest(records) <= min(bounds),
                )
                for seed in range(seeds)
            ]
            cells = [quartiles([until(run, bound) for run in runs]) for bound in bounds]
            say(f"| {method} | {which} | {' | '.join(cells)} |")


def quartiles(values: Sequence[float]) -> str:
    """Return the median and the quartiles; what was not found is never."""
    low, middle, high = (sorted(values)[round(share * (len(values) - 1))] for share in (0.25, 0.5, 0.75))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})".replace("inf", "never")


def area(records: Sequence[Record]) -> float:
    """Return the hypervolume of what was found, without noise."""
    sparsities = _sparsities([one.point for one in records])
    return _area(sparsities)


def _area(sparsities: Floats) -> float:
    losses = zip(times(sparsities).sum(axis=1).tolist(), (-top1(sparsities)).tolist(), strict=True)
    return fronts.hypervolume(list(losses), REFERENCE)


def fastest(records: Sequence[Record]) -> float:
    """Return the latency of the trial that would be chosen, without noise; 1 if none would be."""
    target = experiment("random", FASTEST, 0, 1).objective
    met = [one for one in records if one.status == "finished" and not target.shortfall(one.metrics, {})]
    if not met:
        return 1.0
    best = min(met, key=lambda one: one.metrics["latency_ratio"])
    return float(times(_sparsities([best.point])).sum())


def epochs(records: Sequence[Record]) -> float:
    """Return how many epochs were trained."""
    return sum(one.epoch for one in records)


def row(name: str, figures: Sequence[Sequence[float]], form: str) -> str:
    """Return a line of a table: the median of each column, and its quartiles."""
    cells = []
    for column in zip(*figures, strict=True):
        low, middle, high = np.percentile(column, [25, 50, 75])
        cells.append(f"{middle:{form}} ({low:{form}} to {high:{form}})")
    return f"| {name} | {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=max(AFTER))
    parser.add_argument("--warm-start", action="store_true", help="what an earlier study saves a new one")
    parser.add_argument("--cost", action="store_true", help="the seconds of a suggestion")
    given = parser.parse_args(words)
    warnings.filterwarnings("ignore", category=UserWarning, module="hyperopt")
    after = [count for count in AFTER if count <= given.trials]
    points = np.random.default_rng(0).uniform(0, 0.95, (POINTS, len(GROUPS)))
    whole = _area(points)
    able = points[top1(points) >= 87]
    least = times(able).sum(axis=1).min()
    if given.cost:
        cost()
        return 0
    if given.warm_start:
        warm_start(given.seeds, given.trials, float(least))
        return 0
    head = "".join(f" | after {count}" for count in after)
    rule = "|---" * (len(after) + 1)
    say(f"Synthetic; median and quartiles of {given.seeds} seeds.\n")
    say(f"Hypervolume of the front, of that of {POINTS} random points:\n\n| method{head} |\n{rule}|")
    for method in METHODS:
        runs = [searched(method, FRONT, seed, given.trials) for seed in range(given.seeds)]
        say(row(method, [[area(run[:count]) / whole for count in after] for run in runs], ".2f"))
    say(
        f"\nLeast latency_ratio with top1 >= 87 ({least:.3f} of {POINTS} random points), and epochs that were trained, "
        f"of {EPOCHS} a trial:\n\n| method{head}{head.replace('after', 'epochs after')} |\n|---{2 * rule[4:]}|"
    )
    for method in METHODS:
        runs = [searched(method, FASTEST, seed, given.trials) for seed in range(given.seeds)]
        latency = row(method, [[fastest(run[:count]) for count in after] for run in runs], ".3f")
        trained = row("", [[epochs(run[:count]) for count in after] for run in runs], ".0f")
        say(latency + trained.removeprefix("|  |"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
