"""The pruners of a Distiller compression schedule, and its sections that have no counterpart.

Source: config.py, pruning/ranked_structures_pruner.py and pruning/automated_gradual_pruner.py of IntelLabs/distiller.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.convert.policies import Policy, policies_of
from edge_tune.convert.reading import Entry, number
from edge_tune.convert.removal import Target, sizes, thinned_epochs
from edge_tune.experiment import NAME

PRUNER = "L1RankedStructureParameterPruner"
GRADUAL = "L1RankedStructureParameterPruner_AGP"
SPARSITY = {PRUNER: "desired_sparsity", GRADUAL: "final_sparsity"}
"""The classes that can be pruner groups -> where each has the sparsity that it ends with."""

GROUP_TYPES = {"Filters": "filters", "3D": "filters", "Channels": "channels"}
THINNERS = ("FilterRemover", "ChannelRemover", "StructureRemover")
ELEMENTWISE = (
    "AutomatedGradualPruner",
    "BaiduRNNPruner",
    "MagnitudeParameterPruner",
    "SensitivityPruner",
    "SparsityLevelParameterPruner",
    "SplicingPruner",
)
SECTIONS = ("version", "pruners", "extensions", "lr_schedulers", "policies")
OTHER_SECTIONS = {
    "regularizers": "EdgeTune retrains with weight_decay alone; train the network with it beforehand, and give its "
    "weights",
    "quantizers": "EdgeTune measures in the arithmetic of Benchmark(precision=...); quantize the best network "
    "afterwards",
}


@dataclass(frozen=True)
class Pruner:
    """A pruner that can be a pruner group.

    Attributes:
        sparsity: What one pruning must remove to leave what Distiller leaves; None when there is no such fraction.
    """

    place: str
    structure: str
    weights: tuple[str, ...]
    sparsity: float | None


def read_pruners(schedule: Entry, policies: Sequence[Policy], notes: list[str]) -> dict[str, Pruner]:
    """Return the pruners that can be pruner groups, by label; note what is not carried over, and why."""
    pruners: dict[str, Pruner] = {}
    owner: dict[str, str] = {}
    thinned = thinned_epochs(policies, thinners(schedule))
    for name, entry in schedule.named("pruners"):
        applied = policies_of(policies, "pruner", name)
        if reason := _refusal(entry, applied):
            notes.append(f"{entry.place}: pruner {name!r} is not carried over: {reason}")
            continue
        label = _label(name, entry, pruners, notes)
        weights = _weights(name, entry, owner, notes)
        if not weights:
            continue
        owner |= dict.fromkeys(weights, name)
        sparsity = _sparsity(name, entry, applied, thinned, notes)
        pruners[label] = Pruner(entry.place, GROUP_TYPES[entry.plain("group_type")], weights, sparsity)
        notes.extend(_differences(name, entry, applied, thinned))
    return pruners


def thinners(schedule: Entry) -> list[str]:
    """Return the names of the extensions that remove what is masked."""
    return [name for name, entry in schedule.named("extensions") if entry.plain("class") in THINNERS]


def note_other_sections(schedule: Entry, notes: list[str]) -> None:
    """Note what stands in sections that have no counterpart."""
    for key, section in schedule.value.items():
        if key in OTHER_SECTIONS:
            for name, entry in schedule.named(key):
                notes.append(f"{entry.place}: {key}: {name!r} is not carried over: {OTHER_SECTIONS[key]}.")
        elif key not in SECTIONS:
            notes.append(f"{section.place}: {key!r} is not carried over: a schedule has no such section.")


def _refusal(pruner: Entry, applied: Sequence[Policy]) -> str | None:
    """Return why a pruner cannot be a pruner group and what to do instead; None when it can."""
    class_name, group_type = pruner.plain("class"), pruner.plain("group_type")
    if class_name not in SPARSITY:
        return _instead(class_name, pruner)
    if pruner.get("reg_regims"):
        return (
            "reg_regims is the form of early Distiller; write one pruner for each sparsity, with group_type, "
            "desired_sparsity and weights."
        )
    if str(group_type) not in GROUP_TYPES:
        return f"group_type must be one of {list(GROUP_TYPES)}, but got {group_type!r}; prune filters or channels."
    if not isinstance(pruner.plain("weights"), list) or not pruner.plain("weights"):
        return f"weights must be a list of names, but got {pruner.plain('weights')!r}; list them."
    if not applied:
        return "no policy applies it, so Distiller does not prune by it; add a policy if it should."
    return None


def _instead(class_name: object, pruner: Entry) -> str:
    """Return what to do about a pruner of another class."""
    name = str(class_name)
    given = [pruner.plain(key) for key in ("final_sparsity", "desired_sparsity") if pruner.get(key)]
    sparsity = f"desired_sparsity {given[0]}" if given else "a desired_sparsity"
    rewrite = f"write class {PRUNER} with group_type Filters or Channels and {sparsity}"
    if name in ELEMENTWISE:
        return f"{name} zeroes single weights, which makes no layer smaller; {rewrite}."
    if "Ranked" in name:
        return f"{name} does not rank by L1 norm, EdgeTune does; {rewrite}."
    return f"EdgeTune has no pruner of class {class_name!r}; {rewrite}."


def _label(name: str, entry: Entry, taken: Mapping[str, Pruner], notes: list[str]) -> str:
    label = name if NAME.fullmatch(name) else re.sub(r"[^A-Za-z0-9_.-]", "_", f"pruner_{name}")
    while label in taken:
        label += "_"
    if label != name:
        notes.append(
            f"{entry.place}: pruner {name!r} is called {label!r}: a label has letters, digits, '_', '.' and '-' only."
        )
    return label


def _weights(name: str, entry: Entry, owner: Mapping[str, str], notes: list[str]) -> tuple[str, ...]:
    """Return the names of a pruner's weights that are in no other; Distiller's DataParallel adds "module."."""
    found = [str(weight).removeprefix("module.").replace(".module.", ".") for weight in entry.plain("weights")]
    for weight in dict.fromkeys(found):
        if weight in owner:
            notes.append(
                f"{entry.place}: {weight!r} is not carried over to {name!r}: it is pruned by {owner[weight]!r} "
                f"already, and a weight is in one group only; choose one."
            )
    return tuple(weight for weight in dict.fromkeys(found) if weight not in owner)


def _sparsity(
    name: str, pruner: Entry, applied: Sequence[Policy], thinned: Mapping[int, bool], notes: list[str]
) -> float | None:
    """Return what one pruning must remove to leave what Distiller leaves; note why there is no such fraction."""
    final = number(pruner.plain(SPARSITY[str(pruner.plain("class"))]))
    problem = _problem(pruner, final, applied)
    if final is None or problem:
        notes.append(
            f"{pruner.place}: pruner {name!r}: {problem}; add baselines={{...}} with the sparsity that was meant."
        )
        return None
    target = Target(final, number(pruner.plain("initial_sparsity")) if _is_gradual(pruner) else None)
    if _is_one_pruning(target, applied, thinned):
        return final
    steps = " -> ".join(str(size) for size in sizes(64, target, applied, thinned))
    notes.append(
        f"{pruner.place}: pruner {name!r} is applied again after a thinner, so that Distiller counts from what is left "
        f"({steps}); no sparsity does that in layers of every width, so the schedule is not a baseline: give each "
        f"width a group of its own, and add baselines={{...}} with the fractions that are gone in the end."
    )
    return None


def _problem(pruner: Entry, final: float | None, applied: Sequence[Policy]) -> str | None:
    """Return why Distiller would not prune to the sparsity `final`; None when it would."""
    key, initial = SPARSITY[str(pruner.plain("class"))], number(pruner.plain("initial_sparsity"))
    if final is None or not 0 <= final < 1:
        return f"{key} must hold 0 <= sparsity < 1, but got {pruner.plain(key)!r}"
    if not _is_gradual(pruner):
        return None
    if initial is None or not 0 <= initial < final:
        return (
            f"initial_sparsity must be at least 0 and below final_sparsity, but got "
            f"{pruner.plain('initial_sparsity')!r} and {final:g}, with which Distiller does not begin"
        )
    if not all(isinstance(policy.epochs, range) and len(policy.epochs) > 1 for policy in applied):
        return (
            "its policy must have starting_epoch, ending_epoch and frequency with two epochs at least, without which "
            "Distiller does not prune gradually"
        )
    return None


def _is_gradual(pruner: Entry) -> bool:
    return bool(pruner.plain("class") == GRADUAL)


def _is_one_pruning(target: Target, applied: Sequence[Policy], thinned: Mapping[int, bool]) -> bool:
    """Tell whether all that happens leaves as much as one pruning to the final sparsity, in a layer of any width."""
    once = [Policy("", "pruner", "", [0])]
    return all(
        sizes(width, target, applied, thinned)[-1] == sizes(width, Target(target.final), once, {})[-1]
        for width in (64, 2048)
    )


def _differences(name: str, pruner: Entry, applied: Sequence[Policy], thinned: Mapping[int, bool]) -> Iterator[str]:
    """Yield what a pruner that is carried over does differently."""
    if dependency := pruner.get("group_dependency"):
        yield (
            f"{dependency.place}: group_dependency {dependency.value!r} of {name!r} is not carried over: weights tied "
            f"by an addition lose the same filters or channels anyway, ranked by their summed L1 norms and not by the "
            f"first weight's; list every weight that is tied (the run names those that are missing)."
        )
    sparsities = ("initial_sparsity", "final_sparsity") if _is_gradual(pruner) else ("desired_sparsity",)
    known = ("class", "group_type", "weights", "group_dependency", *sparsities)
    for key, entry in pruner.value.items():
        if key not in known:
            instead = "align=N in Benchmark keeps multiples of N" if key == "group_size" else "EdgeTune has none"
            yield f"{entry.place}: {key} of {name!r} is not carried over: {instead}."
    yield from _differences_in_time(name, pruner, applied, thinned)


def _differences_in_time(
    name: str, pruner: Entry, applied: Sequence[Policy], thinned: Mapping[int, bool]
) -> Iterator[str]:
    """Yield how Distiller's many epochs of pruning differ from the one pruning before retraining."""
    place, first, last = applied[0].place, min(p.epochs[0] for p in applied), max(p.epochs[-1] for p in applied)
    times = sum(len(policy.epochs) for policy in applied)
    if first > 0:
        yield (
            f"{place}: {name!r} is applied in epoch {first}, but EdgeTune prunes before epoch 0 of retraining; where "
            f"the count of epochs goes on from the trained network's, lower every epoch of this schedule by {first} "
            f"and convert it again."
        )
    if _is_gradual(pruner):
        yield (
            f"{place}: {name!r} prunes a little more in each of {times} epochs up to {last} and ranks anew each time; "
            f"EdgeTune prunes once, to final_sparsity, before epoch 0: as many go, not always the same ones."
        )
    elif times > 1:
        yield f"{place}: {name!r} is applied in {times} epochs, EdgeTune prunes once, before epoch 0 of retraining."
    if not any(epoch > last or (epoch == last and thinned[epoch]) for epoch in thinned):
        yield (
            f"{place}: {name!r} is followed by no thinner, so that Distiller's layers keep their size and what batch "
            f"norm adds to the zeroed filters; EdgeTune removes both."
        )
