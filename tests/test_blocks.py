"""Blocks are found by what they compute, left out with all that is in them, and go in the order that is measured."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import edge_tune as et
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.loading import identity
from edge_tune.networks import blocks, checking, datasets, finding, models, onnx_export, oracle, pruning, stored
from edge_tune.networks.couplings import couplings
from edge_tune.networks.sensitivity import Probe
from edge_tune.parameters import Point
from edge_tune.records.entries import Cut, left_out
from edge_tune.records.results import Results
from edge_tune.run import main
from edge_tune.search import study
from edge_tune.search.trial import Planner
from tests import structures
from tests.networks import Block, Deep, experiment, small

SHAPE = (3, 16, 16)
STAGE = ["stage1.0", "stage1.1", "stage1.2", "stage1.3"]
GROUPS = {
    "inner": et.PrunerGroup("filters", [f"stage1.{n}.conv1.weight" for n in range(4)], sparsity=et.Uniform(0.0, 0.9)),
    "stage1": et.BlockGroup(STAGE, keep=et.Integer(1, 4), order=["stage1.2", "stage1.0", "stage1.3", "stage1.1"]),
    "stage2": et.BlockGroup(["stage2.1"], keep=et.Integer(0, 1), order=["stage2.1"]),
}


def point(keep1: int, keep2: int, sparsity: float) -> Point:
    return {
        "stage1.keep": keep1,
        "stage2.keep": keep2,
        "inner.sparsity": sparsity,
        "inner.structure": "filters",
        "inner.importance": "l1",
    }


def deep_network() -> nn.Module:
    torch.manual_seed(0)
    return oracle.made_up(Deep(10), SHAPE, rising=True)


def images() -> Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("resnet18", 5, "layer1.0"),
        ("mobilenet_v2", 10, "features.3"),
        ("efficientnet_b0", 9, "features.2.1"),
        ("regnet_y_400mf", 12, "trunk_output.block2.block2-1"),
        ("mnasnet1_0", 10, "layers.8.1"),
        ("mobilenet_v3_small", 6, "features.3"),
        ("resnet56_cifar", 25, "layer1.0"),
        ("densenet121", 0, ""),
    ],
)
def test_blocks_are_found_by_what_they_compute(name: str, count: int, first: str) -> None:
    network = models.build(name, 10).eval()
    found = blocks.removable(network, (3, 64, 64))
    assert (len(found), next(iter(found), "")) == (count, first)
    shorter = blocks.without(network, found)
    blocks.check(network, shorter, found, (3, 64, 64))
    assert sum(map(torch.numel, shorter.parameters())) < sum(map(torch.numel, network.parameters())) or not found


class Scaled(nn.Module):
    """x + f(x) / 2 with layers that are listed elsewhere, too."""

    def __init__(self, conv: nn.Module, end: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.end = conv, end or nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.end(features + self.conv(features) / 2)


class Odd(nn.Module):
    """Blocks that look removable: one whose ReLU changes what comes in, two that share a layer, one called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.clips = Block(8)  # its input may be negative, and its output is not
        shared = nn.Conv2d(8, 8, 1)
        self.one, self.other = Scaled(shared), Scaled(shared)
        self.twice = Scaled(nn.Conv2d(8, 8, 1))
        self.plain = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.good = Scaled(nn.Conv2d(8, 8, 1))
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.plain(self.twice(self.twice(self.other(self.one(self.clips(self.stem(images)))))))
        return self.fc(self.good(features).mean((2, 3)))


def test_what_is_no_block_is_not_found_and_refused_in_a_sentence() -> None:
    network = Odd().eval()
    assert blocks.removable(network, SHAPE) == ["good"]
    for name in ("clips", "one", "other", "twice", "plain"):
        (problem,) = blocks.problems(network, [name], ["good"])
        assert problem.startswith("a block must return its input when all its parameters are zero")
        assert name in problem
    assert list(blocks.problems(network, ["goood"], ["good"])) == [
        "a block must be one of the network's modules, such as good, but got 'goood'."
    ]
    deep = deep_network()
    (problem,) = blocks.problems(deep, ["stage1"], blocks.removable(deep, SHAPE))
    assert problem == (
        "a block must be an innermost one, but 'stage1' holds stage1.0, stage1.1, stage1.2 and 1 more; name those."
    )


@pytest.mark.parametrize(
    ("end", "found"),
    [
        (nn.ReLU(), ["1"]),
        (nn.ReLU6(), []),
        (nn.Hardtanh(-1e3, 1e3), []),
        (nn.Threshold(1e-4, 0), []),
    ],
)
def test_a_block_stays_whose_end_changes_what_other_images_bring(end: nn.Module, found: list[str]) -> None:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    network = nn.Sequential(stem, Scaled(nn.Conv2d(8, 8, 1), end), nn.Conv2d(8, 10, 14), nn.Flatten()).eval()
    assert blocks.removable(network, SHAPE) == found


@pytest.mark.parametrize("training", [False, True])
def test_block_of_which_the_code_asks_more_is_not_offered_and_refused(training: bool) -> None:
    network = structures.asks_its_blocks(training=training).eval()
    assert blocks.removable(network, SHAPE) == ["r.0"]
    groups = {"b": et.BlockGroup(["r.0", "r.1"], keep=et.Integer(0, 2))}
    when = " while it trains" if training else ""
    sentence = (
        rf"blocks r.0, r.1: the network's code must run without them, but fails{when} "
        r"\(AttributeError: 'Identity' object has no attribute 'is_last'\): it asks more of them"
    )
    with pytest.raises(ExperimentError, match=sentence):
        checking.check_groups(network, groups, SHAPE)
    checking.check_groups(network, finding.groups(network, SHAPE), SHAPE)


def test_module_that_changes_its_input_in_place_is_a_block_only_if_it_adds_to_it() -> None:
    assert blocks.removable(structures.gate_in_place().eval(), SHAPE) == []

    class AddsInPlace(structures.Residual):
        def forward(self, x: Tensor) -> Tensor:
            x += functional.relu(self.c(x))
            return x

    assert blocks.removable(structures.Between(lambda net, x: net.r(x), r=AddsInPlace()).eval(), SHAPE) == ["r"]


def test_first_block_after_a_stem_without_a_relu_stays() -> None:
    assert blocks.removable(small(10).eval(), SHAPE) == ["block2"]


def by_hand(network: Deep, stay: list[int], filters: dict[int, Tensor], features: Tensor) -> Tensor:
    """What the network computes with these blocks of stage 1 only, none of stage 2's second, and some filters zero."""
    features = network.stem(features)
    for number in stay:
        block = network.stage1[number]
        hidden = block.relu(block.bn1(block.conv1(features)))
        hidden[:, filters[number]] = 0
        features = block.relu(block.bn2(block.conv2(hidden)) + features)
    features = network.stage2[0](network.wider(features))
    return network.fc(network.pool(features).flatten(1))


def test_blocks_and_widths_together_compute_what_they_should() -> None:
    network = deep_network()
    coupled = couplings(network, SHAPE)
    plan = pruning.make_plan(network, GROUPS, point(2, 0, 0.5), coupled)
    assert left_out(plan) == ("stage1.0", "stage1.2", "stage2.1")
    assert [cut.part for cut in plan if cut.kind == "out"] == ["stage1.1.conv1.weight", "stage1.3.conv1.weight"]
    pruned = pruning.prune(network, plan, coupled)
    gone = {
        number: torch.tensor(network.stage1[number].conv1.weight.abs().sum((1, 2, 3)).argsort()[:4].tolist())
        for number in (1, 3)
    }
    with torch.no_grad():
        torch.testing.assert_close(pruned(images()), by_hand(network, [1, 3], gone, images()), rtol=1e-5, atol=1e-5)


def test_network_without_blocks_is_stored_and_loaded_again(tmp_path: Path) -> None:
    network = models.build("tests.networks:deep", 10).eval()
    coupled = couplings(network, SHAPE)
    plan = tuple(pruning.make_plan(network, GROUPS, point(1, 1, 0.25), coupled))
    pruned = pruning.prune(network, plan, coupled)
    described = stored.Description("tests.networks:deep", 10, SHAPE, plan)
    stored.write_network(tmp_path, network=described, weights=stored.to_bytes(pruned), onnx=b"", ir=None, metrics={})
    again = stored.load_network(tmp_path, trust_model=True)
    with torch.no_grad():
        assert torch.equal(again(images()), pruned(images()))
    assert sum(isinstance(module, nn.Identity) for module in again.modules()) == 3


def test_plan_with_a_block_of_another_network_is_refused() -> None:
    network = deep_network()
    cut = Cut("stage9.1", "blocks", "block", "order", 1.0, 1, ())
    with pytest.raises(PruningError, match=r"'stage9\.1' must be a block of the network, but it has none of this name"):
        pruning.prune(network, (cut,), couplings(network, SHAPE))


def test_block_whose_removal_computes_something_else_is_refused_each_time() -> None:
    network = Odd().eval()
    cut = Cut("clips", "blocks", "block", "order", 1.0, 1, ())
    with pytest.raises(PruningError, match="blocks clips: the network without them must compute what"):
        pruning.prune(network, (cut,), couplings(network, SHAPE))


class Drawing(nn.Module):
    """A block in a network that draws random numbers while it infers."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.fc = Scaled(nn.Conv2d(3, 3, 1)), nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.block(images)
        return self.fc((features + torch.rand_like(features)).mean((2, 3)))


def test_block_of_a_network_that_draws_is_refused_for_that_reason() -> None:
    network = Drawing().eval()
    assert blocks.removable(network, SHAPE) == ["block"]
    with pytest.raises(PruningError, match=r"blocks block: .* but it draws random numbers while it infers"):
        blocks.check(network, blocks.without(network, ["block"]), ["block"], SHAPE)


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        (et.BlockGroup(["stage1.9"], keep=et.Integer(0, 1)), "but got 'stage1.9'"),
        (et.BlockGroup(["stage1"], keep=et.Integer(0, 1)), "a block must be an innermost one"),
        (et.BlockGroup(["wider"], keep=et.Integer(0, 1)), "but 'wider', a Sequential, does not; remove it"),
    ],
)
def test_check_groups_refuses_what_is_no_block(group: et.BlockGroup, sentence: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        checking.check_groups(Deep(10).eval(), {"blocks": group}, SHAPE)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith("pruner_groups['blocks']: a block must")


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        (
            lambda: et.BlockGroup("stage1.0", keep=et.Integer(0, 1)),
            "blocks must be a list of names, but got 'stage1.0'",
        ),
        (lambda: et.BlockGroup([], keep=et.Integer(0, 0)), "blocks must name at least one block"),
        (lambda: et.BlockGroup(STAGE, keep=et.Integer(1, 5)), "keep must hold 0 <= low <= high <= 4"),
        (lambda: et.BlockGroup(STAGE, keep=et.Choice([1.5])), "keep must offer whole numbers"),
        (lambda: et.BlockGroup(STAGE, keep=3), "keep must be an Integer or a Choice, but got 3"),  # type: ignore[arg-type]
        (lambda: et.BlockGroup(STAGE, keep=et.Integer(0, 4), order=STAGE[:2]), "order must list each of blocks once"),
        (lambda: et.BlockGroup([["stage1.0"]], keep=et.Integer(0, 1)), "blocks must be a list of names"),
        (lambda: et.BlockGroup([*STAGE, STAGE[0]], keep=et.Integer(0, 4)), "a block must be in one group only"),
    ],
)
def test_experiment_refuses_block_groups_that_cannot_be_meant(
    group: Callable[[], et.BlockGroup], sentence: str
) -> None:
    with pytest.raises(ExperimentError) as refused:
        experiment(pruner_groups={"blocks": group()}, baselines={})
    assert sentence in str(refused.value)


def test_baselines_say_how_many_blocks_stay() -> None:
    changes = {"model": "tests.networks:deep", "pruner_groups": GROUPS}
    one = experiment(**changes, baselines={"known": {"inner": 0.5, "stage1": 3, "stage2": 1}})
    assert dict(one.point(one.baselines["known"])) == point(3, 1, 0.5)
    with pytest.raises(ExperimentError, match=r"must give how many blocks stay of each pruner group, but .* 'stage2'"):
        experiment(**changes, baselines={"known": {"inner": 0.5, "stage1": 3}})
    with pytest.raises(ExperimentError, match=r"'stage1' must lie within Integer\(1, 4\), but got 0.5"):
        experiment(**changes, baselines={"known": {"inner": 0.5, "stage1": 0.5, "stage2": 1}})


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(folder))
    return folder


def unordered(**changes: object) -> et.Experiment:
    groups = {label: replace(group, order=None) if label != "inner" else group for label, group in GROUPS.items()}
    parts = {"model": "tests.networks:deep", "pruner_groups": groups, "baselines": {}}
    return experiment(**{**parts, **changes})


def test_order_is_measured_once_and_kept(cache: Path) -> None:
    said: list[str] = []
    first = study.prepare(study.load(unordered()), said.append)
    order = first.experiment.block_groups["stage1"].order
    assert order is not None
    assert sorted(order) == STAGE
    losses = [first.effects[block].loss for block in order]
    assert losses == sorted(losses)
    assert f"stage1: first to go {', '.join(order)}." in said
    again = study.prepare(study.load(unordered()), lambda _: None)
    assert (again.effects, again.experiment) == (first.effects, first.experiment)
    assert identity(first.experiment)["pruner_groups"]["stage1"]["order"] == list(order)
    network = first.network()
    alone = blocks.without(network, ["stage1.1"])
    assert alone.stage1[1](images()).equal(images())


def test_parameters_of_what_was_left_out_are_inactive() -> None:
    one = unordered()
    plan = Planner(study.prepare(study.load(one), lambda _: None))
    inner = {"inner.sparsity", "inner.structure", "inner.importance"}
    assert plan(point(0, 1, 0.5), is_baseline=False).inactive == inner
    assert plan(point(1, 0, 0.5), is_baseline=False).inactive == frozenset()


def test_a_set_loses_as_much_when_the_block_that_names_it_is_left_out() -> None:
    network = deep_network()
    groups = {
        "stream": et.PrunerGroup("filters", ["stage1.0.conv2.weight"], sparsity=et.Uniform(0.0, 0.5)),
        "stage1": replace(GROUPS["stage1"], order=STAGE),  # type: ignore[arg-type]
    }
    coupled = checking.check_groups(network, groups, SHAPE)
    for keep in (4, 3):
        asked: Point = {
            "stream.sparsity": 0.5,
            "stream.structure": "filters",
            "stream.importance": "l1",
            "stage1.keep": keep,
        }
        pruned = pruning.prune(network, pruning.make_plan(network, groups, asked, coupled), coupled)
        assert pruned.stem[0].out_channels == 4


class PreActivated(nn.Module):
    """A residual network whose norms are all inside its blocks, so that a stem's filters pass through none without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Added(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)))
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(images)).mean((2, 3)))


class Added(nn.Module):
    """x + f(x)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, features: Tensor) -> Tensor:
        return features + self.inside(features)


def test_criterion_that_fails_without_blocks_is_refused_before_anything_starts() -> None:
    groups = {
        "stem": et.PrunerGroup(
            "filters", ["stem.weight"], sparsity=et.Uniform(0.2, 0.5), importance=["l1", "batch_norm"]
        ),
        "blocks": et.BlockGroup(["block"], keep=et.Integer(0, 1), order=["block"]),
    }
    network = PreActivated().eval()
    with pytest.raises(ExperimentError, match=r"with as few blocks as may stay: .*'batch_norm' must find a batch norm"):
        checking.check_groups(network, groups, SHAPE)
    stays = {**groups, "blocks": replace(groups["blocks"], keep=et.Integer(1, 1))}  # type: ignore[arg-type]
    checking.check_groups(network, stays, SHAPE)


def test_planner_tells_networks_apart_by_blocks_and_what_is_left(cache: Path) -> None:
    inner = replace(GROUPS["inner"], sparsity=et.Choice([0.0, 0.5, 0.51]))  # type: ignore[arg-type]
    one = study.prepare(study.load(unordered(pruner_groups={**GROUPS, "inner": inner})), lambda _: None)
    planner = Planner(one)
    here = planner(point(2, 1, 0.5), is_baseline=False)
    assert here.plan == tuple(pruning.make_plan(one.network(), one.experiment.groups, point(2, 1, 0.5), one.coupled))
    assert planner(point(2, 1, 0.51), is_baseline=False).digest == here.digest
    assert planner(point(3, 1, 0.5), is_baseline=False).digest != here.digest
    assert planner.count() == 4 * 2 * 2


def test_what_was_found_is_not_that_of_another_definition_with_the_same_weights(cache: Path) -> None:
    class Doubled(Deep):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(2 * images)

    torch.manual_seed(0)
    network = Deep(10)
    other = Doubled(10)
    other.load_state_dict(network.state_dict())
    dataset = datasets.load(et.Data("digits", image_size=16), seed=0)

    def probe(one: nn.Module) -> Probe:
        return Probe(one, onnx_export.to_onnx(one, dataset.input_shape), dataset, 64, 64)

    probe(network)("block stage1.0", lambda: network)
    assert "block stage1.0" in probe(network)
    assert "block stage1.0" not in probe(other)


@pytest.mark.slow
def test_study_with_blocks_runs_to_a_table_and_is_resumed_in_its_order(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("study.py").write_text(
        "import edge_tune as et\nfrom tests.test_blocks import unordered\n"
        "experiment = unordered(baselines={'half': {'inner': 0.5, 'stage1': 2, 'stage2': 0}})\n"
    )
    assert main(["study.py", "--results=out", "--trials=2"]) == 0
    said = capsys.readouterr().out
    assert "Measuring what the network loses without each of 5 blocks" in said
    assert re.search(r"\(inner 0\.\d\d stage1 keep [1-4] stage2 keep [01]\)", said)
    results = Results(Path("out"))
    order = results.run().settings.pruner_groups["stage1"].order
    assert order is not None
    assert set(results.run().effects) == {*STAGE, "stage2.1"}
    (half,) = (one for one in results.baselines() if one.name == "half")
    assert {cut.part for cut in half.plan if cut.kind == "block" and not cut.kept} == {*order[:2], "stage2.1"}
    # Another order would be found now; the study keeps the one that it began with.
    for file in (cache / "sensitivity").iterdir():
        file.unlink()
    monkeypatch.setattr("edge_tune.search.study.sensitivity.effects_of_blocks", None)
    assert main(["study.py", "--results=out", "--resume", "--trials=3"]) == 0
    assert len([record for record in results.trials() if record.same_as is None]) == 3
    assert results.run().settings.pruner_groups["stage1"].order == order
    assert set(results.run().effects) == {*STAGE, "stage2.1"}
