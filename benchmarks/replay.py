"""What methods of search find in a recorded study, by epochs of training: nothing is trained or measured anew.

python -m benchmarks.replay [--seeds 20]                (and, as peers: pip install optuna==5.0.0)

resnet20.jsonl holds random plans of ResNet-20 on CIFAR-10, widths and blocks, each trained for 12 epochs and measured
(`python -m benchmarks.record`). Wherever a method wants to look, it is given the nearest plan that it has not had yet,
and learns that plan's own sizes and figures; one trial runs at a time. What a method of EdgeTune pauses, and when, is
decided by EdgeTune's own rules. All that is known of a plan before it is trained is free: its latency. A search ends
when it has found what it looks for, or has had all plans: a rule that ends that very network loses it, though one
within 3 % may still be found.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import edge_tune as et
from benchmarks import record as recorded
from edge_tune import objective
from edge_tune.command import say
from edge_tune.experiment import Experiment
from edge_tune.networks import models
from edge_tune.networks.couplings import couplings
from edge_tune.networks.layer_shapes import network_shape
from edge_tune.parameters import Point
from edge_tune.records import fronts
from edge_tune.records.endings import GATE
from edge_tune.records.entries import EpochEntry, Evidence, LayerEntry, Ratio, Ratios, Reference, TimeSummary
from edge_tune.records.results import Planned, Record
from edge_tune.records.scoring import Score, Scorer
from edge_tune.records.shapes import NetworkShape
from edge_tune.search import suggesters
from edge_tune.search.coding import Coding, Floats
from edge_tune.search.gate import Gate
from edge_tune.search.prediction import Outlook
from edge_tune.search.rungs import Rungs
from edge_tune.search.suggesters.protocol import Outcome, Problem

TABLE = Path(__file__).with_name("resnet20.jsonl")
FRONT = "front of latency_ratio and top1"
FASTEST = "minimise latency_ratio where top1 >= unpruned_retrained - {}"
WITHIN = (2, 4, 6)
"""Points below the unpruned network retrained alike, of which the fastest is looked for."""

REFERENCE = (1.0, -50.0)
"""Hypervolume counts up to here: the unpruned latency, and 50 % top1."""

SHARES = (0.9, 0.97)
"""Of the hypervolume of all plans."""

NEAR = 1.03
"""The latency of the best plan is reached within 3 %."""

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        name: As `Search` has it, or "optuna:" and a sampler of Optuna's.
        rules: What ends trials before their last epoch.
    """

    label: str
    name: str
    rules: Sequence[et.Asha | et.Predicted] = ()


GATE_BY_PREDICTION = et.Predicted(confidence=CONFIDENCE, audit=0.0)
METHODS = (
    Method("random", "random"),
    Method("HyperOpt, full training", "hyperopt"),
    Method("HyperOpt and ASHA", "hyperopt", (et.Asha(),)),
    Method("HyperOpt, gates", "hyperopt", (GATE_BY_PREDICTION,)),
    Method("latency_aware, full training", "latency_aware"),
    Method("latency_aware, gates", "latency_aware", (GATE_BY_PREDICTION,)),
    Method("latency_aware, gates and ASHA", "latency_aware", (et.Asha(), GATE_BY_PREDICTION)),
)
PEERS = (Method("Optuna TPE", "optuna:TPESampler"), Method("Optuna GP", "optuna:GPSampler"))


@dataclass(frozen=True)
class Table:
    """The recorded plans."""

    head: Mapping[str, Any]
    alike: Mapping[str, Any]
    plans: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls) -> "Table":
        """Return what the file holds."""
        head, alike, *plans = (json.loads(line) for line in TABLE.read_text().splitlines())
        assert alike["number"] == recorded.UNPRUNED
        return cls(head, alike, plans)

    @cached_property
    def experiment(self) -> Experiment:
        """The search space, with the order in which blocks went."""
        return recorded.experiment("digits", self.head["train"]).ordered(self.head["orders"])

    @cached_property
    def shape(self) -> NetworkShape:
        """The layers of the unpruned network."""
        network = models.build(self.experiment.model, 10)
        return network_shape(network, self.experiment.pruners, couplings(network, (3, 32, 32)))

    @cached_property
    def coding(self) -> Coding:
        """The numbers that points stand for."""
        return Coding(self.experiment, self.experiment.parameters, self.shape)

    @cached_property
    def places(self) -> Floats:
        """Where the plans lie: what stays of each group, [plans, groups]."""
        return self.coding.inputs(self.coding.columns([one["point"] for one in self.plans], [False] * len(self.plans)))

    def nearest(self, point: Point, left: set[int]) -> int:
        """Return the place of the plan among those left that is nearest to a point."""
        there = self.coding.inputs(self.coding.columns([point], [False]))[0]
        rows = sorted(left)
        return rows[int(((self.places[rows] - there) ** 2).sum(axis=1).argmin())]

    def importances(self, label: str, structure: str, importance: str) -> dict[str, Floats]:
        """Return those of the layers of a group."""
        names = {weight.removesuffix(".weight") for weight in self.experiment.pruners[label].weights}
        return {name: np.array(its) for name, its in self.head["importances"].items() if name in names}

    def at(self, plan: Mapping[str, Any], trial: int, epoch: int) -> Record:
        """Return what was known of a plan after so many epochs."""
        ratio, low, high = plan["latency_ratio"]
        total = sum(plan["layers"].values()) or 1.0
        before = self._metrics(plan, 0)
        curve = [
            EpochEntry(
                epoch=one, lr=0.0, train_loss=0.0, seconds=1.0, images_per_s=1.0, metrics=self._metrics(plan, one)
            )
            for one in range(1, epoch + 1)
        ]
        evidence = Evidence(
            ratios=Ratios(latency_ratio=Ratio(ratio, low, high)),
            reference=Reference(latency=TimeSummary(median=plan["unpruned_ms"])),
        )
        return Record(
            trial=trial,
            status="finished" if epoch == recorded.EPOCHS else "running",
            point=plan["point"],
            epoch=epoch,
            pruned=before,
            metrics=self._metrics(plan, epoch),
            curve=curve,
            measurements={"pruned": evidence},
            layers=[LayerEntry(name, "Convolution", "", ms, ms / total) for name, ms in plan["layers"].items()],
        )

    def _metrics(self, plan: Mapping[str, Any], epoch: int) -> dict[str, float]:
        return {
            "top1": plan["top1"][epoch],
            "loss": plan["loss"][epoch],
            "latency_ratio": plan["latency_ratio"][0],
            "latency_ms": plan["latency_ratio"][0] * plan["unpruned_ms"],
            "parameters": plan["parameters"],
            "macs": plan["macs"],
        }

    @cached_property
    def baselines(self) -> list[Record]:
        """The unpruned network, as it is and retrained alike."""
        metrics = [{**self._metrics(self.alike, epoch), "latency_ratio": 1.0} for epoch in (0, recorded.EPOCHS)]
        return [
            Record(trial=trial, baseline=name, status="finished", metrics=its)
            for (trial, name), its in zip(
                enumerate((objective.UNPRUNED, objective.UNPRUNED_RETRAINED)), metrics, strict=True
            )
        ]


@dataclass
class Run:
    """One search, as it goes.

    Attributes:
        ended: The plans whose trials have ended, the epochs that had been trained by then, whether it came to its end.
        rejected: Plans that ASHA or the prediction ended.
    """

    epochs: int = 0
    ended: list[tuple[int, int, bool]] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)


class Asker(Protocol):
    """A method of search."""

    def suggest(self) -> Point:
        """Return where to look."""

    def tell(self, records: Sequence[Record]) -> None:
        """Learn of all trials that have ended, the last one since it was asked."""


def searched(table: Table, method: Method, target: str, seed: int, is_done: Callable[[Run], bool]) -> Run:
    """Return a search until it has found what is asked for, or had all plans."""
    one = replace(
        table.experiment,
        target=target,
        stopping=list(method.rules),
        search=et.Search("random", trials=len(table.plans), seed=seed),
    )
    scorer = Scorer(one.objective, table.baselines)
    gate, outlook = Gate(one.objective, table.baselines), Outlook(one.objective, recorded.EPOCHS, table.baselines)
    asha = one.rule(et.Asha)
    rungs = Rungs(asha, recorded.EPOCHS, outlook) if asha else None
    asker: Asker = (_Optuna if ":" in method.name else _Own)(table, one, scorer, method.name, seed)
    run, left = Run(), set(range(len(table.plans)))
    records: list[Record] = []
    while left and not is_done(run):
        place = table.nearest(asker.suggest(), left)
        left.remove(place)
        found = _trained(table, one, table.plans[place], len(records) + 2, gate, outlook, rungs)
        run.epochs += int(found.epoch)
        run.ended.append((place, run.epochs, found.status == "finished"))
        if found.stopped_by not in (None, GATE):
            run.rejected.append(place)
        records.append(found)
        gate.know(found)
        outlook.know(found)
        asker.tell(records)
    return run


def _trained(
    table: Table,
    one: Experiment,
    plan: Mapping[str, Any],
    trial: int,
    gate: Gate,
    outlook: Outlook,
    rungs: Rungs | None,
) -> Record:
    """Return how a trial ends."""
    predicted = one.rule(et.Predicted)
    for epoch in range(recorded.EPOCHS + 1):
        record = table.at(plan, trial, epoch)
        if record.status == "finished":
            break
        if reason := gate.why(record) if epoch == 0 else None:
            return replace(record, status="stopped", stopped_by=GATE, reason=reason)
        if predicted and (reason := outlook.why_not(record, predicted.confidence)):
            return replace(record, status="stopped", stopped_by="predicted", reason=reason)
        if rungs and epoch and (stop := rungs.enter(record)):
            return replace(record, status="stopped", stopped_by="asha", reason=stop.reason)
    return record


class _Own:
    """A method of EdgeTune's."""

    def __init__(self, table: Table, one: Experiment, scorer: Scorer, name: str, seed: int) -> None:
        one = replace(one, search=et.Search(name, trials=len(table.plans), seed=seed))
        problem = Problem(
            experiment=one,
            scorer=scorer,
            plan=lambda point: Planned(json.dumps(dict(point), sort_keys=True), ()),
            shape=lambda: table.shape,
            importances=table.importances,
        )
        self.suggester, self.scorer = suggesters.make(one, problem), scorer
        self.told: dict[int, Score] = {}

    def suggest(self) -> Point:
        point = self.suggester.suggest()
        assert point is not None
        return point

    def tell(self, records: Sequence[Record]) -> None:
        scores = self.scorer.scores(records)
        for record in records:
            score = scores[record.trial]
            if self.told.get(record.trial) != score:
                self.told[record.trial] = score
                self.suggester.tell(dict(record.point), Outcome(trial=int(record.trial), record=record, score=score))


class _Optuna:
    """A sampler of Optuna's; it learns latency and top1, or how far a condition is missed."""

    def __init__(self, table: Table, one: Experiment, scorer: Scorer, name: str, seed: int) -> None:
        import optuna
        from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.objective, self.scorer = optuna, one.objective, scorer
        self.spaces: dict[str, BaseDistribution] = {}
        for key, parameter in one.parameters.items():
            if not parameter.is_fixed and parameter.limits:
                low, high = parameter.limits
                is_whole = parameter.values is not None
                self.spaces[key] = IntDistribution(int(low), int(high)) if is_whole else FloatDistribution(low, high)
        self.fixed = {key: its.default for key, its in one.parameters.items() if key not in self.spaces}
        self.has_conditions = bool(one.objective.conditions)
        options = {"constraints_func": lambda trial: trial.user_attrs["missed"]} if self.has_conditions else {}
        sampler = getattr(optuna.samplers, name.partition(":")[2])(seed=seed, **options)
        directions = ["minimize"] if self.has_conditions else ["minimize", "maximize"]
        self.study = optuna.create_study(directions=directions, sampler=sampler)

    def suggest(self) -> Point:
        trial = self.study.ask(self.spaces)
        self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)  # what it learns of is the nearest plan
        return {**self.fixed, **trial.params}

    def tell(self, records: Sequence[Record]) -> None:
        record = records[-1]
        values = [record.metrics["latency_ratio"], record.metrics["top1"]]
        missed = [self.objective.shortfall(record.metrics, self.scorer.baselines)] if self.has_conditions else []
        self.study.add_trial(
            self.optuna.trial.create_trial(
                params={key: record.point[key] for key in self.spaces},
                distributions=self.spaces,
                values=values[:1] if self.has_conditions else values,
                user_attrs={"missed": missed},
                system_attrs={"constraints": missed} if self.has_conditions else {},
            )
        )


def losses(table: Table, place: int) -> tuple[float, float]:
    """Return the two losses of a front."""
    plan = table.plans[place]
    return plan["latency_ratio"][0], -plan["top1"][-1]


def to_the_front(table: Table, run: Run, share: float) -> float:
    """Return after how many epochs the hypervolume is so much of that of all plans; infinite if it never is."""
    whole = fronts.hypervolume([losses(table, place) for place in range(len(table.plans))], REFERENCE)
    found: list[tuple[float, float]] = []
    for place, epochs, is_whole in run.ended:
        if is_whole:
            found.append(losses(table, place))
            if fronts.hypervolume(found, REFERENCE) >= share * whole:
                return epochs
    return float("inf")


def able(table: Table, points: float) -> dict[int, float]:
    """Return the latencies of the plans that lie within some points of the unpruned network."""
    bound = table.alike["top1"][-1] - points
    return {place: losses(table, place)[0] for place, one in enumerate(table.plans) if one["top1"][-1] >= bound}


def to_the_fastest(table: Table, run: Run, points: float) -> float:
    """Return after how many epochs the least latency is found within 3 %; infinite if it never is."""
    met = able(table, points)
    bound = NEAR * min(met.values())
    found = (epochs for place, epochs, is_whole in run.ended if is_whole and met.get(place, bound + 1) <= bound)
    return next(found, float("inf"))


def wrongly_rejected(table: Table, run: Run, points: float | None = None) -> int:
    """Return how many trials that the rules ended are on the front of all plans, or are the fastest within points."""
    if points is None:
        numbers = fronts.front_numbers([losses(table, place) for place in range(len(table.plans))])
        return sum(numbers[place] == 0 for place in run.rejected)
    met = able(table, points)
    return sum(met.get(place, 2.0) <= min(met.values()) for place in run.rejected)


def whole_front(table: Table, run: Run) -> bool:
    """Tell whether a search for the front has come as far as anybody asks."""
    return to_the_front(table, run, max(SHARES)) < float("inf")


def is_fastest(table: Table, points: float, run: Run) -> bool:
    """Tell whether a search has found the fastest network."""
    return to_the_fastest(table, run, points) < float("inf")


def quartiles(values: Sequence[float]) -> str:
    """Return the median and the quartiles."""
    low, middle, high = (sorted(values)[round(share * (len(values) - 1))] for share in (0.25, 0.5, 0.75))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})".replace("inf", "never")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--peers", action="store_true", help="Optuna's samplers too")
    parser.add_argument("--only", metavar="TEXT", default="", help="the methods whose name holds this")
    given = parser.parse_args(words)
    warnings.filterwarnings("ignore")
    table = Table.read()
    kept = ", ".join(f"{len(able(table, points))} within {points}" for points in WITHIN)
    say(
        f"{len(table.plans)} plans, {recorded.EPOCHS} epochs each; of them, {kept} points of the unpruned network "
        f"retrained alike, {table.alike['top1'][-1]:.2f}. Median and quartiles of {given.seeds} seeds: epochs until\n\n"
        "| method | "
        + " | ".join(f"{share:.0%} of the hypervolume" for share in SHARES)
        + " | "
        + " | ".join(f"the fastest within {points} points, to 3 %" for points in WITHIN)
        + " | searches that ended the fastest | networks of the front, of those ended in search of it |"
        + "\n|---"
        + "|---" * (len(SHARES) + len(WITHIN) + 2)
        + "|"
    )
    for method in (one for one in (*METHODS, *(PEERS if given.peers else ())) if given.only in one.label):
        seeds = range(given.seeds)
        runs = [searched(table, method, FRONT, seed, lambda run: whole_front(table, run)) for seed in seeds]
        cells = [quartiles([to_the_front(table, run, share) for run in runs]) for share in SHARES]
        lost = []
        for points in WITHIN:
            target = FASTEST.format(points)
            found = [searched(table, method, target, seed, partial(is_fastest, table, points)) for seed in seeds]
            cells.append(quartiles([to_the_fastest(table, run, points) for run in found]))
            lost += [wrongly_rejected(table, run, points) > 0 for run in found]
        ended = sum(len(run.rejected) for run in runs)
        wrong = sum(wrongly_rejected(table, run) for run in runs)
        cells += [f"{sum(lost)} of {len(lost)}", f"{wrong} of {ended}"] if method.rules else ["-", "-"]
        say(f"| {method.label} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
