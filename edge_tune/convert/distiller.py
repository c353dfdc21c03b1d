"""A Distiller compression schedule: when it applies what, its pruners, and its network.

Source: config.py, scheduler.py, policy.py and pruning/ranked_structures_pruner.py of IntelLabs/distiller.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.convert.command import Setting
from edge_tune.convert.reading import Entry, number, whole
from edge_tune.experiment import NAME, Structure

PRUNER = "L1RankedStructureParameterPruner"
GROUP_TYPES: dict[str, Structure] = {"Filters": "filters", "3D": "filters", "Channels": "channels"}
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
        sparsity: Its `desired_sparsity`; None when that is not one.
    """

    place: str
    structure: Structure
    weights: tuple[str, ...]
    sparsity: float | None


@dataclass(frozen=True)
class Policy:
    """When something is applied.

    Attributes:
        kind: "pruner", "extension", "lr_scheduler", "regularizer" or "quantizer".
        name: What is applied.
        epochs: Not empty, ascending.
    """

    place: str
    kind: str
    name: str
    epochs: Sequence[int]


def read_policies(schedule: Entry, notes: list[str]) -> list[Policy]:
    """Return the policies that apply something; what else they hold is noted."""
    entry = schedule.get("policies")
    items = entry.value if entry is not None and isinstance(entry.value, list) else []
    return [policy for item in items if (policy := _policy(item, schedule, notes))]


def read_pruners(schedule: Entry, policies: Sequence[Policy], notes: list[str]) -> dict[str, Pruner]:
    """Return the pruners that can be pruner groups, by label; note what is not carried over, and why."""
    pruners: dict[str, Pruner] = {}
    owner: dict[str, str] = {}
    for name, entry in schedule.named("pruners"):
        applied = [policy for policy in policies if (policy.kind, policy.name) == ("pruner", name)]
        if reason := _refusal(entry, applied):
            notes.append(f"{entry.place}: pruner {name!r} is not carried over: {reason}")
            continue
        label = _label(name, entry, pruners, notes)
        weights = _weights(name, entry, owner, notes)
        if not weights:
            continue
        owner |= dict.fromkeys(weights, name)
        sparsity = number(entry.plain("desired_sparsity"))
        if sparsity is None or not 0 <= sparsity < 1:
            notes.append(
                f"{entry.place}: pruner {name!r}: desired_sparsity must hold 0 <= sparsity < 1, but got "
                f"{entry.plain('desired_sparsity')!r}; add baselines={{...}} with the one that was meant."
            )
            sparsity = None
        pruners[label] = Pruner(entry.place, GROUP_TYPES[entry.plain("group_type")], weights, sparsity)
        notes.extend(_differences(name, entry, applied))
    return pruners


def read_network(schedule: Entry, notes: list[str]) -> dict[str, Setting]:
    """Return the network's ("arch") and the data set's name, which the extension that thins the network holds."""
    found: dict[str, Setting] = {}
    for name, entry in schedule.named("extensions"):
        if entry.plain("class") not in THINNERS:
            notes.append(
                f"{entry.place}: extension {name!r} of class {entry.plain('class')!r} is not carried over, nor are its "
                f"policies; EdgeTune has none."
            )
            continue
        found |= {key: Setting(str(entry.plain(key)), entry.place) for key in ("arch", "dataset") if entry.get(key)}
    return found


def note_other_sections(schedule: Entry, notes: list[str]) -> None:
    """Note what stands in sections that have no counterpart."""
    for key, section in schedule.value.items():
        if key in OTHER_SECTIONS:
            for name, entry in schedule.named(key):
                notes.append(f"{entry.place}: {key}: {name!r} is not carried over: {OTHER_SECTIONS[key]}.")
        elif key not in SECTIONS:
            notes.append(f"{section.place}: {key!r} is not carried over: a schedule has no such section.")


def _policy(item: Entry, schedule: Entry, notes: list[str]) -> Policy | None:
    kinds = {
        "pruner": "pruners",
        "extension": "extensions",
        "lr_scheduler": "lr_schedulers",
        "regularizer": "regularizers",
        "quantizer": "quantizers",
    }
    kind = next((kind for kind in kinds if item.get(kind) is not None), None)
    applied = item.get(kind) if kind else None
    if kind is None or applied is None:
        notes.append(f"{item.place}: this policy is not carried over: it applies none of {list(kinds)}.")
        return None
    name = str(applied.plain("instance_name"))
    if name not in dict(schedule.named(kinds[kind])):
        notes.append(f"{item.place}: this policy is not carried over: {kinds[kind]} has no {name!r}.")
        return None
    if arguments := applied.get("args"):
        notes.append(
            f"{arguments.place}: args of the policy of {name!r} are not carried over: {kind}s have none in EdgeTune."
        )
    epochs = _epochs(item)
    if not epochs:
        notes.append(f"{item.place}: the policy of {name!r} is not carried over: it names no epoch.")
        return None
    return Policy(item.place, kind, name, epochs)


def _epochs(policy: Entry) -> Sequence[int]:
    """Return the epochs of a policy, ascending; none when they are not whole numbers."""
    listed = policy.plain("epochs")
    if listed is not None:
        epochs = [whole(epoch) for epoch in (listed if isinstance(listed, list) else [listed])]
        return sorted({epoch for epoch in epochs if epoch is not None})
    start = whole(policy.plain("starting_epoch")) or 0
    end = whole(policy.plain("ending_epoch"))
    return range(start, start + 1 if end is None else end, max(1, whole(policy.plain("frequency")) or 1))


def _refusal(pruner: Entry, applied: Sequence[Policy]) -> str | None:
    """Return why a pruner cannot be a pruner group and what to do instead; None when it can."""
    class_name, group_type = pruner.plain("class"), pruner.plain("group_type")
    if class_name != PRUNER:
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
    if name.endswith("_AGP"):
        return f"{name} prunes a little more every few epochs, EdgeTune once, before it retrains; {rewrite}."
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


def _differences(name: str, pruner: Entry, applied: Sequence[Policy]) -> Iterator[str]:
    """Yield what a pruner that is carried over does differently."""
    if dependency := pruner.get("group_dependency"):
        yield (
            f"{dependency.place}: group_dependency {dependency.value!r} of {name!r} is not carried over: weights tied "
            f"by an addition lose the same filters or channels anyway, ranked by their summed L1 norms and not by the "
            f"first weight's; list every weight that is tied (the run names those that are missing)."
        )
    known = ("class", "group_type", "desired_sparsity", "weights", "group_dependency")
    for key, entry in pruner.value.items():
        if key not in known:
            instead = "align=N in Benchmark keeps multiples of N" if key == "group_size" else "EdgeTune has none"
            yield f"{entry.place}: {key} of {name!r} is not carried over: {instead}."
    first, times = min(policy.epochs[0] for policy in applied), sum(len(policy.epochs) for policy in applied)
    if first > 0:
        yield (
            f"{applied[0].place}: {name!r} is applied in epoch {first}, but EdgeTune prunes before epoch 0 of "
            f"retraining; where the count of epochs goes on from the trained network's, lower every epoch of this "
            f"schedule by {first} and convert it again."
        )
    if times > 1:
        yield f"{applied[0].place}: {name!r} is applied in {times} epochs, EdgeTune prunes once; nothing to do."
