"""What a user may add without a fork: a structure and a sampler, each a file that an experiment names."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

import edge_tune as et
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.networks import checking, importance, pruning, structures
from edge_tune.networks.stored import load_network
from edge_tune.records.results import Results
from edge_tune.report.__main__ import main as report
from edge_tune.run import main
from tests.asked import asked
from tests.networks import BLOCKS, small
from tests.test_pruning import COUPLED, SHAPE, trained_small

ROOT = Path(__file__).parents[1]
OWN = "tests.exercises.every_second:EverySecond"
FILE = f"""
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

experiment = make(
    pruner_groups={{
        "first": et.PrunerGroup("{OWN}", BLOCKS["first"].weights, sparsity=et.Uniform(0.3, 0.9)),
        "second": et.PrunerGroup(["filters", "{OWN}"], BLOCKS["second"].weights, sparsity=et.Choice([0.25, 0.5]),
                                 importance=["l1", "l2"]),
    }},
    search=et.Search("tests.exercises.halton:Halton", trials=5, seed=1),
    baselines={{"half": {{"first": 0.5, "second": 0.5, "second.structure": "{OWN}"}}}},
    benchmark=et.Benchmark(device="CPU", runs=5, max_s=0.3),
)
"""


@pytest.mark.slow
def test_own_structure_and_own_sampler_run_from_an_experiment_file_to_a_table_and_a_network(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("study.py").write_text(FILE)
    assert main(["study.py", "--results=out", "--keep-weights=all"]) == 0
    assert report(["out", "--csv=table.csv"]) == 0
    with Path("table.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows][:3] == ["unpruned", "half", "unpruned_retrained"]
    assert {row["first.structure"] for row in (rows[1], *rows[3:])} == {OWN}
    assert {row["second.structure"] for row in rows[3:]} == {"filters", OWN}
    assert {row["second.importance"] for row in rows[3:]} == {"l1", "l2"}
    for record in [*Results(Path("out")).baselines()[1:], *Results(Path("out")).trials()]:
        for cut in record.plan:
            if cut.structure == OWN:
                gone = set(range(cut.before)) - set(cut.slices)
                assert gone == set([*range(1, 8, 2), *range(0, 8, 2)][: cut.before - cut.kept])
    best = load_network(Path("out/best"), trust_model=True)  # its plan says which slices stay: no structure is imported
    assert best(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        ({"structure": "no.such:Rows"}, r"structure 'no.such:Rows': 'no.such' must be importable"),
        (
            {"structure": "tests.networks:small"},
            r"must be a subclass of edge_tune.networks.structures.Slices, .*, but got",
        ),
        ({"importance": "tests.networks:nothing"}, r"importance 'tests.networks:nothing': tests.networks must define"),
    ],
)
def test_what_is_no_structure_or_criterion_is_refused_before_anything_starts(
    group: dict[str, str], problem: str
) -> None:
    whole = {"structure": "filters", "sparsity": et.Uniform(0.0, 0.5), "weights": BLOCKS["first"].weights, **group}
    with pytest.raises(ExperimentError, match=problem):
        checking.check_groups(small(10), {"g": et.PrunerGroup(**whole)}, SHAPE)


class Greedy(structures.Filters):
    def removed(self, scores: object, count: int) -> list[int]:
        return [0] * count


def row_numbers(slices: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(slices) + 1.0)


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        (
            {"structure": f"{__name__}:Greedy"},
            r"'tests.test_exercises:Greedy' must remove 4 of 8 slices, each once, but",
        ),
        (
            {"importance": f"{__name__}:row_numbers"},
            r"must give a finite number for each of the 8 filters of 'block1.c",
        ),
    ],
)
def test_a_structure_or_criterion_that_says_nonsense_is_told_of(group: dict[str, str], problem: str) -> None:
    whole = {"structure": "filters", "sparsity": et.Uniform(0.0, 0.5), "weights": BLOCKS["first"].weights, **group}
    groups = {"first": et.PrunerGroup(**whole)}
    point = {"first.sparsity": 0.5, "first.structure": "filters", "first.importance": "l1"}
    with pytest.raises(PruningError, match=problem):
        pruning.make_plan(
            trained_small(), groups, {**point, **{f"first.{name}": value for name, value in group.items()}}, COUPLED
        )


def test_importance_decides_which_slices_stay() -> None:
    model = trained_small()
    layer = model.get_submodule("block1.conv1")
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:4] = 0.1  # much in all, little in each
        layer.weight[4:, 0, 0, 0] = 3.0  # little in all, much in one
    groups = {"first": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0, 0.5))}
    for criterion, stays in (("l1", (0, 1, 2, 3)), ("l2", (4, 5, 6, 7))):
        point = {**asked({"first": 0.5}), "first.importance": criterion}
        (cut,) = pruning.make_plan(model, groups, point, COUPLED)
        assert (cut.slices, cut.importance) == (stays, criterion)
    assert importance.l2(layer.weight)[4].item() == pytest.approx(3.0)


class Inplace:
    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        return slices.abs_().mul_(0.5).flatten(1).sum(dim=1)


in_place = Inplace()


def raises(slices: torch.Tensor) -> torch.Tensor:
    raise ValueError("no idea.")


def no_number(slices: torch.Tensor) -> torch.Tensor:
    return slices.flatten(1).sum(dim=1) / 0


def random(slices: torch.Tensor) -> torch.Tensor:
    return torch.rand(len(slices))


class WithArguments(structures.Filters):
    def __init__(self, size: int) -> None:
        self.size = size


class Unkind(structures.Slices):
    kind = "sideways"  # type: ignore[assignment]

    def slices(self, layer: nn.Module) -> torch.Tensor:
        return layer.get_parameter("weight")


class NoProblem(structures.Filters):
    def problem(self, model: nn.Module, part: str) -> str | None:
        raise KeyError(part)


class FewSlices(structures.Filters):
    def slices(self, layer: nn.Module) -> torch.Tensor:
        return super().slices(layer)[1:]


def test_an_importance_that_works_in_place_leaves_the_network_as_it_was() -> None:
    model = trained_small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = {"g": et.PrunerGroup("filters", BLOCKS["first"].weights, sparsity=et.Uniform(0, 0.5))}
    pruning.make_plan(model, groups, {**asked({"g": 0.5}), "g.importance": f"{__name__}:in_place"}, COUPLED)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        (
            {"importance": "raises"},
            r"tests.test_exercises:raises must work .*, but raised ValueError: no idea; mend it",
        ),
        ({"importance": "no_number"}, r"finite number .* but got shape \[8\], with numbers that are not finite"),
        ({"importance": "random"}, r"random must choose the same slices whenever they are asked"),
        ({"structure": "WithArguments"}, r"must be made without arguments, but raised TypeError"),
        ({"structure": "Unkind"}, r"its kind must be 'out' or 'in', but got 'sideways'"),
        ({"structure": "NoProblem"}, r"NoProblem must say what it can act on, but raised KeyError"),
        (
            {"structure": "FewSlices"},
            r"must give the 8 filters of 'block1.conv1.weight' as a tensor, but got shape \[7",
        ),
    ],
)
def test_what_ones_own_code_does_wrong_is_told_before_anything_starts(group: dict[str, str], problem: str) -> None:
    own = {name: f"{__name__}:{attribute}" for name, attribute in group.items()}
    whole = {"structure": "filters", "sparsity": et.Uniform(0.0, 0.5), "weights": BLOCKS["first"].weights, **own}
    with pytest.raises(ExperimentError, match=problem):
        checking.check_groups(trained_small(), {"g": et.PrunerGroup(**whole)}, SHAPE)
