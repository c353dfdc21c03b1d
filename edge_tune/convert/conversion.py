"""The two files together: an experiment, and what of them it does not hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_tune.convert import command, decays, distiller, network, policies, wandb
from edge_tune.convert.command import Setting, Settings
from edge_tune.convert.distiller import Pruner
from edge_tune.convert.parameters import LIMIT, Range
from edge_tune.convert.reading import Entry, parse, read_text, read_yaml
from edge_tune.convert.wandb import Sweep
from edge_tune.errors import ExperimentError
from edge_tune.experiment import USUAL_MOMENTUM, Decay, Experiment, PrunerGroup, Retraining, Search
from edge_tune.parameters import Choice, Uniform


@dataclass(frozen=True)
class Conversion:
    """An experiment and, for each thing that it does not hold as its files did, "file:line: what, why, what to do"."""

    experiment: Experiment
    notes: tuple[str, ...]


def convert(schedule_file: Path, sweep_file: Path | None) -> Conversion:
    """Return the experiment that a schedule, and a sweep over it, stand for.

    Raises:
        ExperimentError: A file is none, or there is nothing in it to prune or to search.
    """
    notes: list[str] = []
    text = read_text(schedule_file)
    schedule = _read_schedule(text, schedule_file)
    applied = policies.read_policies(schedule, notes)
    pruners = distiller.read_pruners(schedule, applied, notes)
    if not pruners:
        raise ExperimentError(
            *notes,
            f"{schedule_file}: pruners must hold at least one of class {' or '.join(distiller.SPARSITY)}, applied to "
            f"filters or channels, but got {[name for name, _ in schedule.named('pruners')]}; write one.",
        )
    thinned = network.read_network(schedule, notes)
    distiller.note_other_sections(schedule, notes)
    sweep = _read_sweep(sweep_file, schedule_file, pruners, notes)
    comments = command.from_comments(text, schedule_file.name, notes)
    values = _values(schedule_file, comments, sweep.settings, thinned, notes)
    decay = decays.read_decay(schedule, applied, values["epochs"], notes)
    baselines = _baselines(pruners, sweep.ranges, notes)
    try:
        return Conversion(_experiment(values, pruners, sweep, decay, baselines), tuple(notes))
    except ExperimentError as error:
        files = " and ".join(str(file) for file in (schedule_file, sweep_file) if file)
        raise ExperimentError(*(f"{files}, as an experiment: {problem}" for problem in error.problems)) from error


def _read_schedule(text: str, file: Path) -> Entry:
    schedule = parse(text, file)
    if schedule.get("pruners") is None and schedule.get("policies") is None:
        raise ExperimentError(
            f"{file}: must be a Distiller schedule with pruners and policies, but got the keys {list(schedule.value)}; "
            f"check the path."
        )
    return schedule


def _read_sweep(file: Path | None, schedule_file: Path, pruners: Mapping[str, Pruner], notes: list[str]) -> Sweep:
    """Return the sweep, or the usual search where there is none, with a range for each pruner.

    Beside a sweep, a pruner that it does not name keeps the schedule's sparsity.
    """
    anything = Uniform(0.0, LIMIT)
    if file is None:
        usual = Sweep(ranges=dict.fromkeys(pruners, anything))
        notes.append(
            f"{schedule_file.name}: says nothing of a search, so it is the usual one: target {usual.target.metric}, "
            f"{usual.trials} trials."
        )
        return usual
    sweep = wandb.read_sweep(read_yaml(file), pruners, notes)
    kept = {
        label: anything if pruner.sparsity is None else Choice([pruner.sparsity])
        for label, pruner in pruners.items()
        if label not in sweep.ranges
    }
    for label, found in kept.items():
        searched = f"stays {pruners[label].sparsity}" if isinstance(found, Choice) else "is free"
        notes.append(f"{pruners[label].place}: the sweep gives {label!r} no range, so its sparsity {searched}.")
    return replace(sweep, ranges={**sweep.ranges, **kept})


def _values(file: Path, comments: Settings, swept: Settings, thinned: Settings, notes: list[str]) -> dict[str, Any]:
    """Return the value of each setting; note those that neither schedule nor sweep says outright, and disagreements.

    Args:
        comments: What the command line in the schedule's comments says; it counts least.
        thinned: What the schedule's thinner says; it counts most.
    """
    settings = {**comments, **swept, **thinned}
    taken = [(name, setting) for name, setting in comments.items() if settings[name] is setting]
    if taken:
        said = ", ".join(f"{name} {setting.value}" for name, setting in taken)
        notes.append(f"{taken[0][1].place}: taken from the command line in this comment: {said}; check them.")
    for name, setting in [*comments.items(), *swept.items()]:
        if setting.value != settings[name].value:
            notes.append(
                f"{setting.place}: {name} {setting.value} is not carried over: {settings[name].place} says "
                f"{settings[name].value}."
            )
    arch = settings.get("arch", Setting(command.DEFAULTS["arch"], file.name))
    defaults = {"arch": arch.value, "dataset": network.usual_dataset(arch.value), **command.DEFAULTS}
    missing = ", ".join(f"{name} {value}" for name, value in defaults.items() if name not in settings)
    if missing:
        notes.append(f"{file.name}: does not say these, so the usual values are taken: {missing}; check them.")
    network.check_arch(arch.value, arch.place, notes)
    values = defaults | {name: setting.value for name, setting in settings.items()}
    dataset = network.read_images(values, settings["dataset"].place if "dataset" in settings else file.name, notes)
    return values | {"dataset": dataset}


def _baselines(
    pruners: Mapping[str, Pruner], ranges: Mapping[str, Range], notes: list[str]
) -> dict[str, dict[str, float]]:
    """Return the schedule's own sparsities, where each is known and within its range."""
    point = {label: pruner.sparsity for label, pruner in pruners.items() if pruner.sparsity is not None}
    outside = [label for label, sparsity in point.items() if sparsity not in ranges[label]]
    for label in outside:
        notes.append(
            f"{pruners[label].place}: the schedule is not carried over as a baseline: {label!r} has {point[label]} "
            f"in it, which is not searched; widen its range and add baselines={{...}}."
        )
    return {} if outside or len(point) < len(pruners) else {"off_the_shelf": point}


def _experiment(
    values: Mapping[str, Any],
    pruners: Mapping[str, Pruner],
    sweep: Sweep,
    decay: Decay | None,
    baselines: Mapping[str, Mapping[str, float]],
) -> Experiment:
    recipe = {name: values[name] for name in ("epochs", "lr", "batch_size", "weight_decay")}
    if values["momentum"] != USUAL_MOMENTUM:
        recipe["momentum"] = values["momentum"]
    return Experiment(
        model=values["arch"],
        dataset=values["dataset"],
        pruner_groups={
            label: PrunerGroup(pruner.structure, pruner.weights, sparsity=sweep.ranges[label])
            for label, pruner in pruners.items()
        },
        target=sweep.target,
        retraining=Retraining(**recipe, decay=decay),
        weights=values.get("weights"),
        stopping=sweep.stopping,
        search=Search(sweep.method, trials=sweep.trials, seed=values.get("seed", 0)),
        baselines=baselines,
    )
