"""Before a best is named, the few networks that may be it are measured again, in turns with each other.

A search names the fastest of many that were measured once, hours apart, on a host that may have been busy: the more it
tries, the more its best owes to luck. So at the end of a study those trials whose order to the best their intervals do
not tell, and the known schedules, are measured in rounds: each of them once a round, as ever in turns with the unpruned
network. What the rounds say of a network replaces what its one measurement said, and the best is chosen anew among
those that were measured again: the figures of the others may be those of lucky moments.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median

from edge_tune.benchmark.measurement import Device, Measurement
from edge_tune.benchmark.statistics import ratio_of_rounds
from edge_tune.experiment import Experiment
from edge_tune.metrics import RATIO_OF, RATIOS
from edge_tune.networks.of_study import stored_network
from edge_tune.objective import FrontOf, Objective
from edge_tune.records.entries import CONFIRMED, Ratios, Reference, TimeSummary
from edge_tune.records.ranking import Standing, is_confirmed, last_measurement, may_be_best
from edge_tune.records.results import Confirmed, Record, Results, now
from edge_tune.records.scoring import Scorer
from edge_tune.waiting import told
from edge_tune.wording import counted, listed

LEAST = 3
"""Rounds of each network that is measured again; two hardly tell by how much they differ."""

MOST = 5
"""Rounds of a network at most, as long as the best is not told from the others."""

MOST_S = 120.0
"""Seconds after which there are no rounds beyond the first LEAST of each network."""

SCHEDULES = 2
"""So many known schedules are measured again, the first."""


def last_time(experiment: Experiment, records: Iterable[Record]) -> str | None:
    """Return when trials of a study were last measured again, empty if never; None if they are not to be.

    They are not for an objective that speaks of no latency, nor for a front, which names many networks, nor with the
    formula in place of a device, which says the same each time.
    """
    objective = experiment.objective
    if set(objective.metrics).isdisjoint({*RATIO_OF, *RATIOS}) or isinstance(objective.goal, FrontOf):
        return None
    if experiment.benchmark.device == "fake":
        return None
    return max((record.confirmed.at for record in records if record.confirmed), default="")


def confirm(standing: Standing, results: Results, device: Device, say: Callable[[str], None]) -> list[Record]:
    """Measure again what may be the best. Returns the records that replace others: the schedules', then the best first.

    There are none if no trial that may be the best has ended since the last time.

    Raises:
        BenchmarkError: The device fails.
    """
    objective, before = standing.scorer.objective, standing.best
    rivals = [record for record in standing.rivals if results.network_file(record).is_file()]
    if before and is_confirmed(before, objective):
        rivals.append(before)
    rounds = _Rounds(objective, results, rivals, device)
    if all(is_confirmed(record, objective) for record in rounds.leaders):
        return []
    names = ", ".join(record.name for record in rounds.leaders)
    beside = "".join(f", and {record.name}" for record in rounds.schedules)
    say(f"Measuring again, in turns, what may be the best ({names}){beside}: {LEAST} rounds or more.")
    began = time.monotonic()
    with told(say, "these networks to be measured again"):
        while due := rounds.due(time_is_over=time.monotonic() - began > MOST_S):
            rounds.measure(due)
    say(f"{rounds.text(before)} That took {time.monotonic() - began:.0f} s.")
    return rounds.records()


def repeats(confirmed: Iterable[Record], trials: Iterable[Record]) -> list[Record]:
    """Return the records of trials that took over one of those that were measured again, with what was found."""
    found = {record.trial: record for record in confirmed}
    return [
        replace(
            trial,
            metrics=source.metrics,
            measurements=source.measurements,
            layers=source.layers,
            confirmed=source.confirmed,
        )
        for trial in trials
        if trial.same_as is not None and (source := found.get(trial.same_as))
    ]


class _Rounds:
    """The measurements of the networks that may be the best, and of the known schedules beside them."""

    def __init__(self, objective: Objective, results: Results, rivals: Sequence[Record], device: Device) -> None:
        self.objective, self.results, self.rivals, self.device = objective, results, rivals, device
        self.baselines = results.baselines()
        self.schedules = [record for record in self.baselines if _is_a_schedule(record)][:SCHEDULES]
        self._taken: dict[int, list[Measurement]] = {}
        self._networks: dict[int, bytes] = {}

    @property
    def leaders(self) -> list[Record]:
        """The best of the rivals by what is known now, and those whose order to it is not told by their intervals."""
        scorer = Scorer(self.objective, map(self._now, self.baselines))
        return may_be_best(scorer, map(self._now, self.rivals))

    def due(self, *, time_is_over: bool) -> list[Record]:
        """Return what the next round measures; nothing if there is none."""
        leaders = self.leaders
        short = [record for record in (*self.schedules, *leaders) if not self._is_known(record)]
        if not short and (time_is_over or len(leaders) < 2):
            return []
        beside = [record for record in leaders if self._is_known(record) and self._count(record) < MOST]
        return [*short, *beside]

    def measure(self, records: Sequence[Record]) -> None:
        """Measure each of these networks once."""
        for record in records:
            measurement = self.device.measure(self._network(record)).measurement
            if last_measurement(record).is_unpruned:
                measurement = measurement.of_reference()
            self._taken.setdefault(record.trial, []).append(measurement)

    def records(self) -> list[Record]:
        """Return what is known now of those that were measured often enough."""
        measured = [*self.schedules, *self.leaders, *self.rivals]
        found = {record.trial: self._now(record) for record in measured if self._is_known(record)}
        confirmed = Confirmed(self.objective.text, now())
        return [record if record.baseline else replace(record, confirmed=confirmed) for record in found.values()]

    def text(self, before: Record | None) -> str:
        """Return what came of it, in a sentence or two."""
        ratio = next(RATIO_OF.get(name, name) for name in self.objective.metrics if name in {*RATIO_OF, *RATIOS})
        figures = []
        for record in self.records():
            found = last_measurement(record).intervals[ratio]
            times = counted(self._count(record), "round")
            figures.append(f"{record.name} {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] in {times}")
        text = f"Measured again, {ratio}: {', '.join(figures)}."
        if not self.leaders:
            return f"{text} None of them meets the conditions now."
        best, *others = [record.name for record in self.leaders]
        text += f" The best is {best}"
        text += f", no longer {before.name}" if before and before.name != best else ""
        return f"{text}; it cannot be told from {listed(others)}." if others else f"{text}."

    def _count(self, record: Record) -> int:
        return len(self._taken.get(record.trial, ()))

    def _is_known(self, record: Record) -> bool:
        return self._count(record) >= LEAST

    def _now(self, record: Record) -> Record:
        """Return a record with what its rounds say, once there are enough."""
        return _summed_up(record, self._taken[record.trial]) if self._is_known(record) else record

    def _network(self, record: Record) -> bytes:
        if record.trial not in self._networks:
            self._networks[record.trial] = stored_network(self.results, record, trust_model=True).onnx
        return self._networks[record.trial]


def _is_a_schedule(record: Record) -> bool:
    """Tell whether this is a known schedule with figures that removes anything."""
    return record.trial > 0 and record.status == "finished" and not last_measurement(record).is_unpruned


def _summed_up(record: Record, rounds: Sequence[Measurement]) -> Record:
    """Return the record with its latencies and its throughput as several measurements show them."""
    every = [one.evidence for one in rounds]
    ratios = {name: ratio_of_rounds([one.intervals[name] for one in every]) for name in RATIOS}
    reference = {name: median(one.reference_ms[name] for one in every) for name in RATIO_OF}
    measured = {"throughput_fps": median(one.throughput_fps for one in rounds)}
    for name, ratio in RATIO_OF.items():
        share = ratios[ratio].ratio
        measured |= {ratio: share, name: share * reference[name]}
    evidence = replace(
        every[-1],
        runs=sum(one.runs or 0 for one in every),
        warm_up_runs=None,
        agreement=None,
        latency=None,
        total_latency=None,
        throughput=None,
        load_average=None,
        seconds={},
        stopped_by=None,
        reference=Reference(
            latency=TimeSummary(median=reference["latency_ms"]),
            total_latency=TimeSummary(median=reference["total_latency_ms"]),
        ),
        ratios=Ratios(
            latency_ratio=ratios["latency_ratio"],
            total_latency_ratio=ratios["total_latency_ratio"],
            is_precise=all(one.is_precise for one in every),
            to_itself=last_measurement(record).is_unpruned,
        ),
        metrics=measured,
        remembered=False,
        repetitions=[one.intervals for one in every],
    )
    longer = measured["latency_ms"] / record.metrics["latency_ms"]
    return replace(
        record,
        metrics={**record.metrics, **measured},
        measurements={**record.measurements, CONFIRMED: evidence},
        layers=[replace(layer, ms=longer * layer.ms) for layer in record.layers],
    )
