from pathlib import Path

import pytest

from edge_tune.convert import distiller
from edge_tune.convert.distiller import Policy, Pruner
from edge_tune.convert.reading import read_yaml
from tests.convert.files import HERE, entry

ONE = """
pruners:
  one:
    class: L1RankedStructureParameterPruner
    group_type: Filters
    desired_sparsity: 0.5
    weights: [a.weight]
"""
APPLIED = "policies:\n  - pruner: {instance_name: one}\n"


def pruners(folder: Path, text: str) -> tuple[dict[str, Pruner], list[str]]:
    notes: list[str] = []
    schedule = entry(folder, text)
    return distiller.read_pruners(schedule, distiller.read_policies(schedule, notes), notes), notes


def test_pruners_are_read_with_their_lines() -> None:
    schedule, notes = read_yaml(HERE / "channel_rank.yaml"), list[str]()
    found = distiller.read_pruners(schedule, distiller.read_policies(schedule, notes), notes)
    assert found["filter_pruner_20"] == Pruner("channel_rank.yaml:35", "channels", ("layer3.1.conv2.weight",), 0.2)
    assert found["filter_pruner_70"].weights[-2:] == ("layer2.0.conv1.weight", "layer2.0.downsample.0.weight")
    (leader,) = notes
    assert leader.startswith("channel_rank.yaml:8: group_dependency 'Leader' of 'filter_pruner_70' is not carried over")


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
    (found,) = distiller.read_policies(entry(tmp_path, f"{ONE}{APPLIED}    {when}\n"), notes)
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
    distiller.read_policies(entry(tmp_path, f"{ONE}policies:\n  - {policy}\n"), notes)
    assert [found[: len(note)] for found in notes] == [note]


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ("[a.weight]", "a.weight", "weights must be a list of names, but got 'a.weight'; list them"),
        ("[a.weight]", "[]", "weights must be a list of names, but got []"),
        ("Filters", "[Filters]", "group_type must be one of ['Filters', '3D', 'Channels'], but got ['Filters']"),
        ("Filters", "Blocks", "group_type must be one of ['Filters', '3D', 'Channels'], but got 'Blocks'"),
        ("instance_name: one", "instance_name: two", "no policy applies it, so Distiller does not prune by it"),
        (
            "L1RankedStructureParameterPruner",
            "L2RankedStructureParameterPruner",
            "L2RankedStructureParameterPruner does not rank by L1 norm, EdgeTune does; write class "
            "L1RankedStructureParameterPruner with group_type Filters or Channels and desired_sparsity 0.5.",
        ),
    ],
)
def test_pruner_that_is_not_carried_over_is_noted(tmp_path: Path, old: str, new: str, note: str) -> None:
    found, notes = pruners(tmp_path, (ONE + APPLIED).replace(old, new))
    assert found == {}
    assert f"given.yaml:3: pruner 'one' is not carried over: {note}" in notes[-1]


@pytest.mark.parametrize("sparsity", ["1.0", "-0.1", "70", "most", "[0.5]", ".nan"])
def test_sparsity_that_is_none_leaves_the_group_without_one(tmp_path: Path, sparsity: str) -> None:
    found, notes = pruners(tmp_path, (ONE + APPLIED).replace("0.5", sparsity))
    assert found["one"].sparsity is None
    assert "given.yaml:3: pruner 'one': desired_sparsity must hold 0 <= sparsity < 1, but got" in notes[0]


def test_weight_stays_with_the_pruner_that_names_it_first(tmp_path: Path) -> None:
    second = ONE.partition("pruners:\n")[2].replace("one", "two").replace("[a.weight]", "[a.weight, module.b.weight]")
    found, notes = pruners(tmp_path, f"{ONE}{second}{APPLIED}  - pruner: {{instance_name: two}}\n")
    assert [pruner.weights for pruner in found.values()] == [("a.weight",), ("b.weight",)]
    assert notes[0].startswith("given.yaml:8: 'a.weight' is not carried over to 'two': it is pruned by 'one' already")


def test_module_of_data_parallel_is_dropped_wherever_it_stands(tmp_path: Path) -> None:
    found, _ = pruners(tmp_path, (ONE + APPLIED).replace("[a.weight]", "[module.a.0.weight, features.module.2.weight]"))
    assert found["one"].weights == ("a.0.weight", "features.2.weight")


def test_labels_that_would_be_equal_stay_apart(tmp_path: Path) -> None:
    second = ONE.partition("pruners:\n")[2].replace("one", "'a b'")
    third = ONE.partition("pruners:\n")[2].replace("one", "'a/b'").replace("a.weight", "b.weight")
    policies = "".join(f"  - pruner: {{instance_name: '{name}'}}\n" for name in ("a b", "a/b"))
    found, notes = pruners(tmp_path, f"pruners:\n{second}{third}policies:\n{policies}")
    assert list(found) == ["pruner_a_b", "pruner_a_b_"]
    assert len(notes) == 2


def test_network_is_that_of_the_extension_that_thins_it() -> None:
    notes: list[str] = []
    found = distiller.read_network(read_yaml(HERE / "gradual.yaml"), notes)
    assert {name: (setting.value, setting.place) for name, setting in found.items()} == {
        "arch": ("resnet20_cifar", "gradual.yaml:64"),
        "dataset": ("cifar10", "gradual.yaml:64"),
    }
    (teacher,) = notes
    assert teacher.startswith(
        "gradual.yaml:62: extension 'teacher' of class 'KnowledgeDistillation' is not carried over"
    )
