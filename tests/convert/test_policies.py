from pathlib import Path

import pytest

from edge_tune.convert.policies import Policy, read_policies
from edge_tune.errors import ExperimentError
from tests.convert.files import APPLIED, ONE, entry


@pytest.mark.parametrize(
    ("when", "epochs"),
    [
        ("epochs: [3, 0]", [0, 3]),
        ("epochs: 2", [2]),
        ("starting_epoch: 10\n    ending_epoch: 300\n    frequency: 1", list(range(10, 300))),
        ("starting_epoch: 0\n    ending_epoch: 9\n    frequency: 4", [0, 4, 8]),
        ("starting_epoch: 5", [5]),
        ("", [0]),
    ],
)
def test_policy_is_applied_in_its_epochs(tmp_path: Path, when: str, epochs: list[int]) -> None:
    notes: list[str] = []
    (found,) = read_policies(entry(tmp_path, f"{ONE}{APPLIED}    {when}\n"), notes)
    assert found == Policy("given.yaml:9", "pruner", "one", found.epochs)
    assert list(found.epochs) == epochs
    assert notes == []


@pytest.mark.parametrize(
    ("policy", "note"),
    [
        ("{epochs: [0]}", r"given.yaml:9: this policy is not carried over: it applies none of ['pruner', 'extension'"),
        ("just text", "given.yaml:9: this policy is not carried over: it applies none of"),
        (
            "{pruner: {instance_name: two}, epochs: [0]}",
            "given.yaml:9: this policy is not carried over: pruners has no 'two'",
        ),
        (
            "{pruner: {instance_name: one}, epochs: []}",
            "given.yaml:9: the policy of 'one' is not carried over: it names no",
        ),
        (
            "{pruner: {instance_name: one, args: {keep_mask: True}}}",
            "given.yaml:9: args of the policy of 'one' are not carried over",
        ),
    ],
)
def test_policy_that_is_not_carried_over_is_noted(tmp_path: Path, policy: str, note: str) -> None:
    notes: list[str] = []
    read_policies(entry(tmp_path, f"{ONE}policies:\n  - {policy}\n"), notes)
    assert [found[: len(note)] for found in notes] == [note]


@pytest.mark.parametrize(("given", "again"), [("10", True), ("0", False), ("x", False)])
def test_pruner_that_is_asked_within_an_epoch_is_told(tmp_path: Path, given: str, again: bool) -> None:
    policy = f"{{pruner: {{instance_name: one, args: {{mini_batch_pruning_frequency: {given}}}}}}}"
    (found,) = read_policies(entry(tmp_path, f"{ONE}policies:\n  - {policy}\n"), [])
    assert found.again == again


@pytest.mark.parametrize(
    ("when", "got"),
    [
        ("epochs: [0, 10001]", "10001"),
        ("epochs: [-1]", "-1"),
        ("starting_epoch: 0\n    ending_epoch: 1e20\n    frequency: 1", "100000000000000000000"),
        ("starting_epoch: 20000", "20000"),
    ],
)
def test_epochs_of_no_training_are_refused(tmp_path: Path, when: str, got: str) -> None:
    with pytest.raises(
        ExperimentError, match=rf"^given.yaml:9: a policy's epochs must be from 0 to 10000, but got {got};"
    ):
        read_policies(entry(tmp_path, f"{ONE}{APPLIED}    {when}\n"), [])
