"""When a Distiller schedule applies what.

Source: config.py and scheduler.py of IntelLabs/distiller.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_tune.convert.reading import Entry, number, whole
from edge_tune.errors import ExperimentError

SECTIONS = {
    "pruner": "pruners",
    "extension": "extensions",
    "lr_scheduler": "lr_schedulers",
    "regularizer": "regularizers",
    "quantizer": "quantizers",
}
"""What a policy may apply -> the section where it is defined."""

LAST_EPOCH = 10_000
"""No training has more epochs; a slip of the keyboard must not make this count to a billion."""


@dataclass(frozen=True)
class Policy:
    """When something is applied.

    Attributes:
        kind: One of `SECTIONS`.
        name: What is applied.
        epochs: Not empty, ascending; a range where the policy has a start and an end, as gradual pruning needs it.
        again: A pruner is asked again within each epoch, after some batches.
    """

    place: str
    kind: str
    name: str
    epochs: Sequence[int]
    again: bool = False


def read_policies(schedule: Entry, notes: list[str]) -> list[Policy]:
    """Return the policies that apply something, in their order; what else they hold is noted.

    Raises:
        ExperimentError: An epoch is beyond `LAST_EPOCH`.
    """
    entry = schedule.get("policies")
    items = entry.value if entry is not None and isinstance(entry.value, list) else []
    return [policy for item in items if (policy := _policy(item, schedule, notes))]


def policies_of(policies: Sequence[Policy], kind: str, name: str) -> list[Policy]:
    """Return the policies that apply this."""
    return [policy for policy in policies if (policy.kind, policy.name) == (kind, name)]


def _policy(item: Entry, schedule: Entry, notes: list[str]) -> Policy | None:
    kind = next((kind for kind in SECTIONS if item.get(kind) is not None), None)
    what = item.get(kind) if kind else None
    if kind is None or what is None:
        notes.append(f"{item.place}: this policy is not carried over: it applies none of {list(SECTIONS)}.")
        return None
    name = str(what.plain("instance_name"))
    if name not in dict(schedule.named(SECTIONS[kind])):
        notes.append(f"{item.place}: this policy is not carried over: {SECTIONS[kind]} has no {name!r}.")
        return None
    if arguments := what.get("args"):
        notes.append(
            f"{arguments.place}: args of the policy of {name!r} are not carried over: {kind}s have none in EdgeTune."
        )
    epochs = _epochs(item)
    if not epochs:
        notes.append(f"{item.place}: the policy of {name!r} is not carried over: it names no epoch.")
        return None
    again = arguments is not None and bool(number(arguments.plain("mini_batch_pruning_frequency")))
    return Policy(item.place, kind, name, epochs, again)


def _epochs(policy: Entry) -> Sequence[int]:
    """Return the epochs of a policy, ascending; none when they are not whole numbers."""
    listed = policy.plain("epochs")
    if listed is not None:
        given = [whole(epoch) for epoch in (listed if isinstance(listed, list) else [listed])]
        epochs: Sequence[int] = sorted({epoch for epoch in given if epoch is not None})
    else:
        start, end = whole(policy.plain("starting_epoch")) or 0, whole(policy.plain("ending_epoch"))
        step = max(1, whole(policy.plain("frequency")) or 1)
        _check_epochs(policy, [start] if end is None else [start, end])
        epochs = range(start, start + 1 if end is None else end, step)
    _check_epochs(policy, epochs)
    return epochs


def _check_epochs(policy: Entry, epochs: Sequence[int]) -> None:
    if outside := [epoch for epoch in epochs if not 0 <= epoch <= LAST_EPOCH]:
        raise ExperimentError(
            f"{policy.place}: a policy's epochs must be from 0 to {LAST_EPOCH}, but got {outside[0]}; correct it."
        )
