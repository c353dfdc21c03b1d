from pathlib import Path

import pytest

from edge_tune.convert import distiller
from edge_tune.convert.distiller import Pruner
from edge_tune.convert.policies import read_policies
from edge_tune.convert.reading import read_yaml
from tests.convert.files import APPLIED, HERE, ONE, entry

THINNED = "extensions:\n  thinner: {class: FilterRemover}\n"


def pruners(folder: Path, text: str) -> tuple[dict[str, Pruner], list[str]]:
    notes: list[str] = []
    schedule = entry(folder, f"{text}  - extension: {{instance_name: thinner}}\n    epochs: [40]\n{THINNED}")
    return distiller.read_pruners(schedule, read_policies(schedule, notes), notes), notes


def test_pruners_are_read_with_their_lines() -> None:
    schedule, notes = read_yaml(HERE / "channel_rank.yaml"), list[str]()
    found = distiller.read_pruners(schedule, read_policies(schedule, notes), notes)
    assert found["filter_pruner_20"] == Pruner("channel_rank.yaml:35", "channels", ("layer3.1.conv2.weight",), 0.2)
    assert found["filter_pruner_70"].weights[-2:] == ("layer2.0.conv1.weight", "layer2.0.downsample.0.weight")
    (leader,) = notes
    assert leader.startswith("channel_rank.yaml:8: group_dependency 'Leader' of 'filter_pruner_70' is not carried over")


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


GRADUAL = ONE.replace("Pruner\n", "Pruner_AGP\n").replace("desired_", "initial_sparsity: 0.1\n    final_")
SPAN = "    starting_epoch: 0\n    ending_epoch: 30\n    frequency: 2\n"


def test_gradual_pruner_becomes_one_pruning_to_its_final_sparsity(tmp_path: Path) -> None:
    found, (note,) = pruners(tmp_path, f"{GRADUAL}{APPLIED}{SPAN}")
    assert found["one"].sparsity == 0.5
    assert note.startswith("given.yaml:10: 'one' prunes a little more in each of 15 epochs up to 28 and ranks anew")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("0.1", "0.5", "initial_sparsity must be at least 0 and below final_sparsity, but got 0.5 and 0.5, with which"),
        ("0.1", "x", "initial_sparsity must be at least 0 and below final_sparsity, but got 'x' and 0.5"),
        ("0.5", "1", "final_sparsity must hold 0 <= sparsity < 1, but got 1"),
        (SPAN, "    epochs: [0, 2, 4]\n", "its policy must have starting_epoch, ending_epoch and frequency with two"),
        ("ending_epoch: 30", "ending_epoch: 2", "its policy must have starting_epoch, ending_epoch and frequency"),
    ],
)
def test_gradual_pruner_that_distiller_would_refuse_is_no_baseline(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    found, notes = pruners(tmp_path, f"{GRADUAL}{APPLIED}{SPAN}".replace(old, new))
    assert found["one"].sparsity is None
    assert notes[0].startswith(f"given.yaml:3: pruner 'one': {problem}")
    assert notes[0].endswith("; add baselines={...} with the sparsity that was meant.")


def test_pruner_that_counts_anew_after_a_thinner_is_no_baseline(tmp_path: Path) -> None:
    thinner = "  - extension: {instance_name: thinner}\n    epochs: [2]\n"
    found, notes = pruners(tmp_path, f"{ONE}{APPLIED}    epochs: [0, 4]\n{thinner}".replace("0.5", "0.1"))
    assert found["one"].sparsity is None
    assert "counts from what is left (64 -> 58 -> 53); no sparsity does that in layers of every width" in notes[0]


def test_pruner_without_a_thinner_is_noted(tmp_path: Path) -> None:
    schedule, notes = entry(tmp_path, f"{ONE}{APPLIED}"), list[str]()
    assert distiller.read_pruners(schedule, read_policies(schedule, notes), notes)["one"].sparsity == 0.5
    assert notes[0].startswith("given.yaml:9: 'one' is followed by no thinner, so that Distiller's layers keep their")
