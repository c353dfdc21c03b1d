import math
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.convert.decays import read_decay
from edge_tune.convert.policies import read_policies
from tests.convert.files import entry

EPOCHS = 100


def read(folder: Path, scheduler: str, *whens: str) -> tuple[object, list[str]]:
    policies = "".join(f"  - lr_scheduler: {{instance_name: lr}}\n    {when}\n" for when in whens)
    schedule, notes = entry(folder, f"lr_schedulers:\n  lr: {{{scheduler}}}\npolicies:\n{policies}"), list[str]()
    return read_decay(schedule, read_policies(schedule, notes), EPOCHS, notes), notes


def between(start: int, end: int, frequency: int = 1) -> str:
    return f"starting_epoch: {start}\n    ending_epoch: {end}\n    frequency: {frequency}"


def distillers_factors(closed_form: Callable[[int], float], start: int, end: int) -> list[float]:
    """The rates of Distiller's loop: after each epoch of the policy, the scheduler is asked for the next epoch."""
    factors, factor = [], 1.0
    for epoch in range(EPOCHS):
        factors.append(factor)
        if start <= epoch < end:
            factor = closed_form(epoch + 1)
    return factors


@pytest.mark.parametrize(
    ("scheduler", "start", "end", "decay", "closed_form"),
    [
        ("class: ExponentialLR, gamma: 0.9", 0, 300, et.Exponential(gamma=0.9), lambda epoch: 0.9**epoch),
        (
            "class: StepLR, step_size: 45, gamma: 0.1",
            35,
            200,
            et.Step(gamma=0.1, every_epochs=45),
            lambda epoch: 0.1 ** (epoch // 45),
        ),
        (
            "class: StepLR, step_size: 50",
            0,
            99,
            et.Step(gamma=0.1, every_epochs=50),
            lambda epoch: 0.1 ** (epoch // 50),
        ),
        (
            "class: MultiStepLR, milestones: [60, 30], gamma: 0.2",
            0,
            300,
            et.MultiStep(gamma=0.2, milestones=[30, 60]),
            lambda epoch: 0.2 ** ((epoch >= 30) + (epoch >= 60)),
        ),
        (  # two are passed when the policy begins, one is not reached before it ends
            "class: MultiStepLR, milestones: [10, 20, 60, 90]",
            40,
            80,
            et.MultiStep(gamma=0.1, milestones=[41, 41, 60]),
            lambda epoch: 0.1 ** sum(epoch >= milestone for milestone in (10, 20, 60, 90)),
        ),
    ],
)
def test_decay_gives_distillers_rates(
    tmp_path: Path,
    scheduler: str,
    start: int,
    end: int,
    decay: et.Exponential | et.Step | et.MultiStep,
    closed_form: Callable[[int], float],
) -> None:
    assert read(tmp_path, scheduler, between(start, end)) == (decay, [])
    expected = distillers_factors(closed_form, start, end)
    assert [decay.factor(epoch, EPOCHS) for epoch in range(EPOCHS)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("scheduler", "start", "closed_form", "power"),
    [
        ("class: ExponentialLR, gamma: 0.95", 10, lambda epoch: 0.95**epoch, 11),
        ("class: StepLR, step_size: 10, gamma: 0.95", 49, lambda epoch: 0.95 ** (epoch // 10), 5),
    ],
)
def test_jump_of_distillers_rate_is_noted(
    tmp_path: Path, scheduler: str, start: int, closed_form: Callable[[int], float], power: int
) -> None:
    decay, (note,) = read(tmp_path, scheduler, between(start, 300))
    assert getattr(decay, "from_epoch") == start  # noqa: B009
    factors = distillers_factors(closed_form, start, 300)
    assert math.isclose(factors[start + 1], 0.95**power)
    assert factors[start] == 1
    assert f"given.yaml:4: 'lr': the rate falls by 0.95 counted from epoch {start};" in note
    assert f"jumps to lr * 0.95 ** {power} in epoch {start + 1}" in note


@pytest.mark.parametrize(
    ("scheduler", "whens", "notes"),
    [
        (
            "class: ExponentialLR, gamma: 0.9",
            [between(0, 20)],
            ["given.yaml:4: 'lr': Distiller keeps the rate from epoch 20 on, here it falls until the last of 100"],
        ),
        (
            "class: ExponentialLR, gamma: 0.9",
            [between(0, 300, 2)],
            ["given.yaml:4: 'lr': is applied in some epochs only; here the rate falls in every epoch"],
        ),
        (
            "class: ExponentialLR, gamma: 0.9",
            [between(0, 300), between(0, 300)],
            ["given.yaml:8: 'lr': this second policy is not carried over"],
        ),
    ],
)
def test_differences_are_noted(tmp_path: Path, scheduler: str, whens: list[str], notes: list[str]) -> None:
    decay, found = read(tmp_path, scheduler, *whens)
    assert decay == et.Exponential(gamma=0.9)
    assert [note[: len(expected)] for note, expected in zip(found, notes, strict=True)] == notes


@pytest.mark.parametrize(
    ("scheduler", "whens", "note"),
    [
        (
            "class: ReduceLROnPlateau",
            [between(0, 9)],
            "class 'ReduceLROnPlateau' with these arguments has no counterpart",
        ),
        ("class: ExponentialLR", [between(0, 9)], "class 'ExponentialLR' with these arguments has no counterpart"),
        ("class: StepLR", [between(0, 9)], "class 'StepLR' with these arguments has no counterpart"),
        ("class: StepLR, step_size: 5, gamma: x", [between(0, 9)], "class 'StepLR' with these arguments"),
        (
            "class: MultiStepLR, milestones: [30, '45x', 60]",
            [between(0, 90)],
            "class 'MultiStepLR' with these arguments",
        ),
        ("class: MultiStepLR, milestones: 5", [between(0, 9)], "class 'MultiStepLR' with these arguments"),
        ("class: StepLR, step_size: 5", [], "no policy applies it, so Distiller keeps the rate"),
    ],
)
def test_scheduler_that_is_not_carried_over_is_noted(
    tmp_path: Path, scheduler: str, whens: list[str], note: str
) -> None:
    decay, (found,) = read(tmp_path, scheduler, *whens)
    assert decay is None
    assert found.startswith(f"given.yaml:2: lr_scheduler 'lr' is not carried over: {note}")
