"""What earlier studies teach this one: which of their trials are comparable, in what, and what is not used and why.

A study of the same network teaches latency if it was measured on the same device in the same way, and accuracy if its
networks were retrained by the same recipe on the same images. A trial teaches only if its point means the same network
here. What is taught is kept in the study's own folder, with points and figures as they are here: the other folders are
not needed any more.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_tune.errors import ExperimentError
from edge_tune.experiment import RETRAINING, BlockGroup, Experiment, Retraining
from edge_tune.loading import identity, left_out, without_ranges
from edge_tune.metrics import TRAINED, WITHOUT_DEVICE
from edge_tune.parameters import Point, Value
from edge_tune.records.endings import GATE
from edge_tune.records.entries import Cut, DeviceEntry, Metrics, Taught
from edge_tune.records.results import Record, Results
from edge_tune.search.trainable import Planner
from edge_tune.wording import counted, verb

MEASURED_BY = ("device", "precision", "threads")
"""Settings of the device that a ratio depends on."""


@dataclass(frozen=True)
class Mine:
    """What this study is, to compare earlier ones with.

    Attributes:
        planner: Tells the networks of points.
        network, images: Digests of the unpruned network, and of the images that trials see.
        device: That measures.
        unpruned: What was measured of the unpruned network.
    """

    experiment: Experiment
    planner: Planner
    network: str
    images: str
    device: DeviceEntry
    unpruned: Metrics


@dataclass(frozen=True)
class Lessons:
    """What one earlier study teaches.

    Attributes:
        records: Of its trials, with points of this study and only the figures that are comparable.
        lines: What it teaches, and what is not used and why, for a person.
    """

    study: Taught
    records: Sequence[Record]
    lines: Sequence[str]


def check_folders(folders: Sequence[Path], experiment: Experiment, *, simulated: bool) -> None:
    """Check, before anything starts, that these are studies of a network that may be the same.

    Raises:
        ExperimentError: One is none, or of another kind of network.
    """
    for place, folder in enumerate(folders):
        results = Results(folder)
        results.require()
        run = results.run()
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise ExperimentError(f"--warm-start: must name each study once, but names {folder} twice.")
        if run.simulated != simulated:
            kinds = ("simulated", "real") if run.simulated else ("real", "simulated")
            raise ExperimentError(
                f"{folder}: --warm-start must name studies of the same kind, but this one is {kinds[0]} and the study "
                f"to be run is {kinds[1]}; leave it out."
            )
        if run.settings.model != experiment.model:
            raise ExperimentError(
                f"{folder}: --warm-start must name studies of the same network, {experiment.model}, but this one "
                f"pruned {run.settings.model or 'one that it does not name'}; leave it out."
            )


def check_network(folders: Sequence[Path], network: str, combined: str | None = None) -> None:
    """Check that these studies pruned the network with these weights.

    Args:
        network: Digest of the network.
        combined: Digest of the network and the images; known to studies that did not note the network's own.

    Raises:
        ExperimentError: One pruned another network.
    """
    for folder in folders:
        run = Results(folder).run()
        if run.network is None and combined is None:
            continue  # to be asked again when the images are known too
        if run.network != network and (run.network or (run.identity or {}).get("weights and images") != combined):
            raise ExperimentError(
                f"{folder}: --warm-start must name studies of the same unpruned network, but the weights of this one "
                f"are others{'' if run.network else ', or its images are'}; leave it out."
            )


def lessons(folder: Path, mine: Mine) -> Lessons:
    """Return what a study teaches whose network is the same."""
    results = Results(folder)
    run, records = results.run(), [*results.baselines(), *results.trials()]
    theirs = run.identity or {}
    not_used = {
        "latency": _other_device(theirs, run.sessions[-1].device if run.sessions else DeviceEntry(), mine),
        "accuracy": _other_recipe(theirs, run.images, mine),
    }
    lines = [f"{folder}: its {what} is not used: {reason}." for what, reason in not_used.items() if reason]
    what = tuple(name for name, reason in not_used.items() if not reason)
    found, left_out = _translated(records if what else [], theirs, mine, simulated=run.simulated)
    lines += [
        f"{folder}: {counted(count, 'trial')} {verb(count, 'is', 'are')} not used: {reason}."
        for reason, count in left_out.items()
    ]
    if found:
        teach = f"{counted(len(found), 'trial')} {verb(len(found), 'teaches', 'teach')} {' and '.join(what)}"
        lines.insert(0, f"{folder}: {teach}.")
    unpruned = next((record.metrics for record in records if record.trial == 0), {})
    scales = {name: mine.unpruned[name] / own for name, own in unpruned.items() if own and name in mine.unpruned}
    started = run.sessions[0].started_at if run.sessions else ""
    return Lessons(
        Taught(str(folder), started, len(found), what),
        [_comparable(record, not_used, scales) for record in found],
        lines,
    )


def _translated(
    records: Sequence[Record], theirs: Mapping[str, Any], mine: Mine, *, simulated: bool
) -> tuple[list[Record], Counter[str]]:
    """Return the records whose points mean the same here, with these points, and how many do not, by the reason."""
    points = _Points(mine.experiment, theirs)
    problem = points.problem(simulated=simulated)
    found: list[Record] = []
    left_out: Counter[str] = Counter()
    for record in records:
        if not record.point or record.same_as is not None:
            continue
        point = {} if problem else points.of(record)
        failed = "it failed" if record.status == "failed" and not record.diverged else ""
        if reason := problem or failed or points.why_not(point) or _other_network(record, point, mine.planner):
            left_out[reason] += 1
        else:
            found.append(replace(record, point=point))
    return found, left_out


def _other_device(theirs: Mapping[str, Any], device: DeviceEntry, mine: Mine) -> str:
    """Say how the device differs, or how it was measured; empty if it is the same."""
    mine_now = identity(mine.experiment)["benchmark"]
    then = theirs.get("benchmark", {})
    differing = [name for name in MEASURED_BY if then.get(name) != mine_now[name]]
    if differing:
        pairs = (f"{name} {then.get(name)}, here {mine_now[name]}" for name in differing)
        return f"it was measured otherwise ({'; '.join(pairs)})"
    if device.text != mine.device.text:
        return f"it was measured on {device.text or 'an unknown device'}, not on {mine.device.text}"
    return ""


def _other_recipe(theirs: Mapping[str, Any], images: str | None, mine: Mine) -> str:
    """Say why accuracies cannot be compared; empty if they can."""
    given = identity(mine.experiment)[RETRAINING], theirs.get(RETRAINING, {})
    ours, then = ({**left_out(Retraining), **without_ranges(one)} for one in given)
    differing = [name for name in ours if ours[name] != then.get(name)]
    if differing:
        pairs = (f"{name} {_shown(then.get(name))}, here {_shown(ours[name])}" for name in differing)
        return f"its networks were retrained by another recipe ({'; '.join(pairs)})"
    if images is not None and images != mine.images:
        return "its networks were trained or judged on other images"
    return ""


def _shown(value: Any) -> str:
    return str(value.get("type", "another")) if isinstance(value, Mapping) else str(value)


class _Points:
    """Translates points of an earlier study, whose identity is given, to this one's."""

    def __init__(self, experiment: Experiment, theirs: Mapping[str, Any]) -> None:
        self.experiment = experiment
        self.groups: Mapping[str, Any] = theirs.get("pruner_groups", {})

    def problem(self, *, simulated: bool) -> str:
        """Say why no point can be translated; empty if some may be."""
        ours = identity(self.experiment)["pruner_groups"]
        for label in ours.keys() & self.groups.keys():
            if _parts(ours[label]) != _parts(self.groups[label]):
                return f"the group {label!r} is another one there"
        if not ours.keys() & self.groups.keys():
            return "it has no group of this study"
        if simulated and ours.keys() != self.groups.keys():
            return "its groups are others, and a simulation knows no network to compare"
        return ""

    def of(self, record: Record) -> Point:
        """Return the point that is the record's here: a group that it did not have is whole."""
        point: dict[str, Value] = {}
        for name, parameter in self.experiment.parameters.items():
            label, _, kind = name.rpartition(".")
            whole = {"sparsity": 0.0}
            if isinstance(group := self.experiment.groups.get(label), BlockGroup):
                whole = {"keep": len(group.blocks)}
            point[name] = record.point.get(name, whole.get(kind, parameter.default))
        return point

    def why_not(self, point: Point) -> str:
        """Say why a point is none of this study; empty if it is one."""
        outside = [name for name, its in self.experiment.parameters.items() if point[name] not in its]
        return f"outside the range of {outside[0]} here" if outside else ""


def _parts(group: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what a group is made of, as an identity has it."""
    return sorted(group.get("weights", ())), sorted(group.get("blocks", ())), group.get("order")


def _other_network(record: Record, point: Point, planner: Planner) -> str:
    """Say that a point gives another network here than it gave there; empty if it gives the same."""
    if _widths(record.plan) == _widths(planner(point, is_baseline=record.baseline is not None).plan):
        return ""
    return "the point gives another network here"


def _widths(plan: Sequence[Cut]) -> dict[tuple[str, str], int]:
    """Return how much stays of each part of a network that loses something."""
    return {(cut.part, cut.kind): cut.kept for cut in plan if cut.kept < cut.before}


def _comparable(record: Record, not_used: Mapping[str, str], scales: Mapping[str, float]) -> Record:
    """Return a record without what cannot be compared; milliseconds and images a second as they would be here."""
    gone = set() if not not_used["accuracy"] and record.stopped_by != GATE else set(TRAINED)
    if not_used["latency"]:
        gone |= record.metrics.keys() - WITHOUT_DEVICE
    metrics = {
        name: value * scales.get(name, 1.0) if name.endswith(("_ms", "_fps")) else value
        for name, value in record.metrics.items()
        if name not in gone
    }
    teaches_accuracy = not gone & TRAINED
    return replace(
        record,
        metrics=metrics,
        pruned=record.pruned if teaches_accuracy else {},
        curve=record.curve if teaches_accuracy else (),
        layers=() if not_used["latency"] else record.layers,
        plan=(),
        measurements={},
        seconds={},
        answers=None,
        audit=None,
        paused=(),
        confirmed=None,
    )


def numbered(records: Sequence[Record]) -> Iterator[Record]:
    """Yield the records of earlier studies with numbers that no trial of this one has: -1, -2, ..."""
    for place, record in enumerate(records, start=1):
        yield replace(record, trial=-place)
