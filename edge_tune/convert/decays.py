"""How a Distiller schedule lets the learning rate fall, as a decay of a recipe.

Source: config.py and policy.py of IntelLabs/distiller, and the closed forms of torch.optim.lr_scheduler, 1.3.
"""

from collections.abc import Iterator, Sequence

from edge_tune.convert.policies import Policy, policies_of
from edge_tune.convert.reading import Entry, number, whole
from edge_tune.experiment import Decay, Exponential, MultiStep, Step


def read_decay(schedule: Entry, policies: Sequence[Policy], epochs: int, notes: list[str]) -> Decay | None:
    """Return how the learning rate falls; the first scheduler that is applied and known counts.

    Args:
        epochs: Of retraining; what happens after them is not noted.
    """
    found: Decay | None = None
    for name, entry in schedule.named("lr_schedulers"):
        applied = policies_of(policies, "lr_scheduler", name)
        refused = f"{entry.place}: lr_scheduler {name!r} is not carried over:"
        if not applied:
            notes.append(f"{refused} no policy applies it, so Distiller keeps the rate; nothing to do.")
        elif found is not None:
            notes.append(f"{refused} a recipe has one decay; choose one.")
        else:
            policy = applied[0]
            found = _decay(entry, policy)
            if found is None:
                notes.append(
                    f"{refused} class {entry.plain('class')!r} with these arguments has no counterpart; choose "
                    f"et.Exponential, et.Step, et.MultiStep or et.Cosine."
                )
            else:
                notes.extend(_decay_differences(name, found, applied, epochs))
    return found


def _decay(scheduler: Entry, policy: Policy) -> Decay | None:
    """Return a learning-rate scheduler's counterpart.

    Distiller's policy sets the rate of epoch + 1 at the end of each of its epochs, by torch's closed forms, which
    count from epoch 0.
    """
    class_name, gamma = scheduler.plain("class"), number(scheduler.plain("gamma"))
    start, end = policy.epochs[0], policy.epochs[-1] + 1
    if class_name == "ExponentialLR" and gamma is not None:
        return Exponential(gamma=gamma, from_epoch=start)
    gamma = 0.1 if scheduler.get("gamma") is None else gamma  # torch's default
    if gamma is None:
        return None
    if class_name == "StepLR" and (size := whole(scheduler.plain("step_size"))):
        return Step(gamma=gamma, every_epochs=size, from_epoch=0 if start < size else start)
    if class_name == "MultiStepLR" and isinstance(scheduler.plain("milestones"), list):
        given = [milestone for one in scheduler.plain("milestones") if (milestone := whole(one)) is not None]
        if len(given) < len(scheduler.plain("milestones")):
            return None
        milestones = sorted(max(start + 1, milestone) for milestone in given)
        reached = [milestone for milestone in milestones if milestone <= end]
        return MultiStep(gamma=gamma, milestones=reached) if reached else None
    return None


def _decay_differences(name: str, decay: Decay, applied: Sequence[Policy], epochs: int) -> Iterator[str]:
    """Yield where the learning rate differs from Distiller's."""
    policy = applied[0]
    start, end = policy.epochs[0], policy.epochs[-1] + 1
    if isinstance(decay, Exponential | Step) and 0 < decay.from_epoch < epochs:
        power = start + 1 if isinstance(decay, Exponential) else (start + 1) // decay.every_epochs
        yield (
            f"{policy.place}: {name!r}: the rate falls by {decay.gamma} counted from epoch {start}; Distiller counts "
            f"from epoch 0, so its rate jumps to lr * {decay.gamma} ** {power} in epoch {start + 1}; nothing to do."
        )
    if isinstance(decay, Exponential | Step) and end < epochs - 1:
        yield (
            f"{policy.place}: {name!r}: Distiller keeps the rate from epoch {end} on, here it falls until the last of "
            f"{epochs} epochs; retrain for {end + 1} epochs to end there."
        )
    if len(policy.epochs) < end - start:
        yield f"{policy.place}: {name!r}: is applied in some epochs only; here the rate falls in every epoch."
    for other in applied[1:]:
        yield f"{other.place}: {name!r}: this second policy is not carried over: a recipe has one decay."
