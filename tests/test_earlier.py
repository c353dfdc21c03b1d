"""What earlier studies teach: what is comparable, what methods make of it, and a study that is taught and resumed."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Experiment
from edge_tune.parameters import Point
from edge_tune.records.entries import DeviceEntry
from edge_tune.records.results import Record, Results
from edge_tune.run import main
from edge_tune.search import earlier, session, study
from edge_tune.search.prediction import Outlook
from edge_tune.search.searcher import TRIED_FIRST
from tests.asked import sparsities
from tests.networks import BLOCKS, experiment, small
from tests.searching import UNPRUNED, go_on, searching
from tests.searching import study as searched

FILE = """
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

experiment = make({changes})
"""
FOCAL = "tests.exercises.focal:focal_loss"
FIRST = 'target=et.Minimise("latency_ratio"), search=et.Search("random", trials=6, seed=0)'
TAUGHT = (
    'target="minimise latency_ratio where top1 >= 15", baselines={{}}, '
    'search=et.Search("{method}", trials={trials}, seed=0, max_concurrent_trials=1)'
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real study on the digits, with the fake device: six random points and a baseline."""
    home = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        _settings(patch, tmp_path_factory)
        write(FIRST)
        assert main(["study.py", "--results=out"]) == 0
    return home / "out"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _settings(monkeypatch, tmp_path_factory)


def _settings(patch: pytest.MonkeyPatch, factory: pytest.TempPathFactory) -> None:
    patch.setenv("EDGE_TUNE_CACHE", str(factory.getbasetemp() / "cache"))
    patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def write(changes: str) -> None:
    Path("study.py").write_text(FILE.format(changes=changes))


def mine(one: Experiment, **changes: Any) -> earlier.Mine:
    loaded = study.load(one)
    work = session._Pruning(study.prepare(loaded, lambda _: None), loaded.dataset)
    parts: dict[str, Any] = {
        "experiment": work.experiment,
        "planner": work.trials.planner(),
        "network": work.network_digest,
        "images": work.images,
        "device": DeviceEntry(device="fake", device_name="a formula"),
        "unpruned": {"latency_ms": 1.0, "latency_ratio": 1.0},
    }
    return earlier.Mine(**{**parts, **changes})


def device_of(folder: Path) -> DeviceEntry:
    return Results(folder).run().sessions[-1].device


def _searched(folder: Path) -> list[Record]:
    """The records of networks with points of their own: the baseline's and those of the search."""
    records = (*Results(folder).baselines(), *Results(folder).trials())
    return [record for record in records if record.point and record.same_as is None]


def ratios(records: Any) -> list[float]:
    return [record.metrics["latency_ratio"] for record in records]


def test_study_of_the_same_network_device_and_recipe_teaches_all_that_it_found(first: Path) -> None:
    theirs = Results(first)
    found = earlier.lessons(first, mine(experiment(), device=device_of(first)))
    trials = _searched(first)
    assert [record.point for record in found.records] == [record.point for record in trials]
    assert ratios(found.records) == ratios(trials)
    assert [record.curve for record in found.records] == [record.curve for record in trials]
    own_ms = theirs.baselines()[0].metrics["latency_ms"]
    assert [record.metrics["latency_ms"] for record in found.records] == pytest.approx(
        [record.metrics["latency_ms"] / own_ms for record in trials]
    )
    assert found.lines == [f"{first}: 7 trials teach latency and accuracy."]
    assert (found.study.trials, found.study.what) == (7, ("latency", "accuracy"))


@pytest.mark.parametrize(
    ("changes", "mine_is", "what", "line"),
    [
        (
            {"retraining": et.Retraining(epochs=3, lr=0.05, batch_size=32, precision="f32")},
            {},
            ("latency",),
            r"its accuracy is not used: its networks were retrained by another recipe \(epochs 2, here 3\)",
        ),
        (
            {"retraining": et.Retraining(epochs=2, lr=et.LogUniform(0.01, 0.1), batch_size=32, precision="f32")},
            {},
            ("latency",),
            r"its accuracy is not used: .* another recipe \(lr 0\.05, here searched\)",
        ),
        ({}, {"images": "others"}, ("latency",), r"its accuracy is not used: .* trained or judged on other images"),
        (
            {},
            {"device": DeviceEntry(device="fake", device_name="another")},
            ("accuracy",),
            r"its latency is not used: it was measured on .*, not on fake \(another\)",
        ),
        (
            {"benchmark": et.Benchmark(device="fake", threads=2)},
            {},
            ("accuracy",),
            r"its latency is not used: it was measured otherwise \(threads 1, here 2\)",
        ),
        (
            {"benchmark": et.Benchmark(device="fake", threads=2)},
            {"images": "others"},
            (),
            r"its accuracy is not used: .* other images",
        ),
        (
            {"retraining": et.Retraining(epochs=2, lr=0.05, batch_size=32, precision="f32", loss=FOCAL)},
            {},
            ("latency",),
            r"its accuracy is not used: .* another recipe \(loss cross_entropy, here tests.*focal_loss\)",
        ),
    ],
)
def test_what_is_not_comparable_is_not_taught_and_said(
    changes: dict[str, Any], mine_is: dict[str, Any], what: tuple[str, ...], line: str, first: Path
) -> None:
    given = {"baselines": {}, "device": device_of(first), **mine_is}
    one = experiment(baselines=given.pop("baselines"), **changes)
    found = earlier.lessons(first, mine(one, **given))
    assert any(re.search(line, said) for said in found.lines)
    assert all(("top1" in record.metrics) == ("accuracy" in what) for record in found.records)
    assert all(("latency_ratio" in record.metrics) == ("latency" in what) for record in found.records)
    assert all(bool(record.curve) == ("accuracy" in what) for record in found.records)
    assert len(found.records) == (7 if what else 0)
    assert all(record.metrics["macs"] > 0 for record in found.records)


def narrow(low: float, high: float) -> Mapping[str, et.PrunerGroup]:
    return {label: replace(group, sparsity=et.Uniform(low, high)) for label, group in BLOCKS.items()}


def test_points_outside_of_this_space_and_of_other_groups_are_left_out_and_counted(first: Path) -> None:
    own = {"baselines": {}, "pruner_groups": narrow(0.0, 0.45)}
    found = earlier.lessons(first, mine(experiment(**own), device=device_of(first)))
    trials = _searched(first)
    within = [record for record in trials if max(sparsities(record.point).values()) <= 0.45]
    assert [record.point for record in found.records] == [record.point for record in within]
    outside = sum(int(line.split(": ")[1].split()[0]) for line in found.lines if "not used: outside the range" in line)
    assert outside == 7 - len(within) > 0

    swapped = {"first": BLOCKS["second"], "second": BLOCKS["first"]}
    found = earlier.lessons(first, mine(experiment(baselines={}, pruner_groups=swapped), device=device_of(first)))
    assert not found.records
    assert "7 trials are not used: the group 'first' is another one there" in " ".join(sorted(found.lines)) or (
        "7 trials are not used: the group 'second' is another one there" in " ".join(found.lines)
    )

    fewer = {"first": BLOCKS["first"]}
    found = earlier.lessons(first, mine(experiment(baselines={}, pruner_groups=fewer), device=device_of(first)))
    both = sum(any(cut.part.startswith("block2") and cut.kept < cut.before for cut in one.plan) for one in trials)
    assert len(found.records) == 7 - both
    assert f"{first}: {both} trials are not used: the point gives another network here." in found.lines


def test_a_group_that_the_earlier_study_lacked_is_whole_in_its_points(first: Path, tmp_path: Path) -> None:
    without = tmp_path / "without"
    shutil.copytree(first, without)
    run = json.loads((without / "run.json").read_text())
    del run["identity"]["pruner_groups"]["second"]
    (without / "run.json").write_text(json.dumps(run))
    lines = []
    for line in (without / "trials.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["point"] = {name: value for name, value in record["point"].items() if name.startswith("first.")}
        record["plan"] = [cut for cut in record["plan"] if cut["part"].startswith("block1.")]
        lines.append(json.dumps(record))
    (without / "trials.jsonl").write_text("\n".join(lines))
    (without / "baselines.jsonl").write_text((first / "baselines.jsonl").read_text().splitlines()[0])
    found = earlier.lessons(without, mine(experiment(baselines={}), device=device_of(first)))
    assert len(found.records) == 6
    assert {record.point["second.sparsity"] for record in found.records} == {0.0}


def taught(one: Experiment, count: int = 12) -> list[Record]:
    """Records of an earlier study of random points."""
    other = replace(one, search=et.Search("random", trials=count, seed=9))
    return list(earlier.numbered(go_on(searching(other, [UNPRUNED]), other, count)))


FASTEST = "minimise latency_ratio where top1 >= unpruned - 4"


@pytest.mark.parametrize("target", [FASTEST, "front of latency_ratio and top1", et.Maximise("top1")])
@pytest.mark.parametrize("method", ["hyperopt", "latency_aware"])
def test_best_of_earlier_studies_are_tried_first_and_what_follows_goes_on_after_a_kill(
    method: str, target: str | et.Maximise
) -> None:
    one = searched(trials=12, method=method, target=target, baselines={})
    known = taught(one)
    searcher = searching(one, [UNPRUNED], earlier=known)
    scores = searcher.scorer.scores(known)
    best = sorted((record for record in known if scores[record.trial].rank == 0), key=lambda one: scores[one.trial])
    records = go_on(searcher, one, 9)
    most = min(TRIED_FIRST, len(best))
    assert most > 0
    assert [record.point for record in records[:most]] == [record.point for record in best[:most]]
    for ended in (0, 1, 3, 6):
        resumed = searching(one, [UNPRUNED, *records[:ended]], earlier=known)
        points = [record.point for record in go_on(resumed, one, 9 - ended)]
        assert points == [record.point for record in records[ended:]]


@pytest.mark.parametrize("method", ["hyperopt", "latency_aware"])
def test_what_follows_the_first_points_depends_on_what_was_taught(method: str) -> None:
    one = searched(trials=12, method=method, target=FASTEST, baselines={})
    known = taught(one)
    points = [go_on(searching(one, [UNPRUNED], earlier=its), one, 4)[3].point for its in (known, known[:6], ())]
    assert len({tuple(point.values()) for point in points}) == 3


def test_methods_that_go_by_no_outcome_are_not_changed() -> None:
    for method in ("random", "grid"):
        groups = {label: replace(group, sparsity=et.Choice([0.1, 0.3, 0.5])) for label, group in BLOCKS.items()}
        one = searched(trials=8, method=method, target=FASTEST, baselines={}, pruner_groups=groups)
        alone = go_on(searching(one, [UNPRUNED]), one, 6)
        assert go_on(searching(one, [UNPRUNED], earlier=taught(one, 4)), one, 6) == alone


def parts(records: list[Record], *names: str) -> list[Record]:
    return [
        replace(record, metrics={name: value for name, value in record.metrics.items() if name in names})
        for record in records
    ]


def test_latency_and_accuracy_are_learned_each_by_itself() -> None:
    one = searched(trials=20, method="latency_aware", target=FASTEST, baselines={})
    known = taught(one, 16)
    latency, accuracy = parts(known[:8], "latency_ratio", "latency_ms"), parts(known[8:], "top1")
    searcher = searching(one, [UNPRUNED], earlier=[*latency, *accuracy])
    assert not searcher.first_points
    suggester: Any = searcher.suggester
    models = suggester._models()
    assert (len(models.sized), len(models.learned), len(models.known)) == (8, 8, 0)
    assert models.models["latency_ratio"].predict(models.costs) == pytest.approx(ratios(reversed(latency)), rel=0.1)
    assert sorted(models.accuracies["top1"].figures) == sorted(record.metrics["top1"] for record in accuracy)
    records = go_on(searcher, one, 4)  # no points that fill the space are needed
    assert min(searcher.scorer.score(record) for record in records).rank == 0
    only = searching(one, [UNPRUNED], earlier=latency).suggester
    assert only._models() is None  # type: ignore[attr-defined]


def test_hyperopt_is_not_told_of_what_is_not_whole() -> None:
    one = searched(trials=12, method="hyperopt", target=FASTEST, baselines={})
    known = taught(one)
    alone = go_on(searching(one, [UNPRUNED]), one, 4)
    assert go_on(searching(one, [UNPRUNED], earlier=parts(known, "top1")), one, 4) == alone


def test_prediction_learns_from_earlier_studies_and_compares_with_none_of_their_trials() -> None:
    one = searched(trials=12, target=FASTEST, baselines={})
    known = [
        replace(record, epoch=2, pruned={**record.metrics, "top1": record.metrics["top1"] - 5, "macs": 1e6 + number})
        for number, record in enumerate(taught(one))
    ]
    outlook = Outlook(one.objective, 2, [UNPRUNED], known)
    assert outlook.forecast.trials == 12
    under_way = replace(known[0], trial=1, status="running", epoch=0, metrics=known[0].pruned, curve=())
    expected = outlook.expected(under_way)["top1"]
    assert expected == pytest.approx(known[0].metrics["top1"], abs=0.5)
    fastest = "minimise latency_ratio where top1 >= 50"
    assert (
        Outlook(et.Experiment.objective.fget(replace(one, target=fastest)), 2, [UNPRUNED], known).why_not(  # type: ignore[attr-defined]
            under_way, 0.9
        )
        is None
    )


def points_of(folder: str) -> list[Point]:
    return [record.point for record in Results(Path(folder)).trials()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["latency_aware", "hyperopt"])
def test_study_that_was_taught_is_resumed_to_the_very_points_without_the_other_folder(
    method: str, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(first, "first")
    write(TAUGHT.format(method=method, trials=5))
    assert main(["study.py", "--results=whole", "--warm-start", "first"]) == 0
    assert "first: 7 trials teach latency and accuracy." in capsys.readouterr().out
    run = Results(Path("whole")).run()
    assert [(one.folder, one.trials, one.what) for one in run.taught_by] == [("first", 7, ("latency", "accuracy"))]
    assert len(Results(Path("whole")).earlier()) == 7

    shutil.copytree("whole", "killed")  # as a kill in the third trial leaves it
    for name, number in (("trials.jsonl", 3), ("started.jsonl", 4)):
        lines = Path("killed", name).read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["trial"] <= number]
        Path("killed", name).write_text("".join(f"{line}\n" for line in kept))
    shutil.rmtree("first")
    assert main(["study.py", "--results=killed", "--resume"]) == 0
    assert points_of("killed") == points_of("whole")
    assert Results(Path("killed")).run().taught_by == run.taught_by

    Path("killed/earlier.jsonl").write_text("")
    assert main(["study.py", "--results=killed", "--resume", "--trials=6"]) == 2
    assert "earlier.jsonl: must hold the 7 trials of earlier studies that taught this one, but holds 0" in (
        capsys.readouterr().err
    )


def test_other_networks_and_what_is_no_study_are_refused_before_anything_starts(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    torch.save(small(10).state_dict(), "others.pt")
    write(TAUGHT.format(method="hyperopt", trials=2))
    for options, sentence in (
        (["--weights=others.pt", f"--warm-start={first}"], "same unpruned network, but the weights of this one are"),
        (["--warm-start=nothing"], "nothing: must be the results folder of a study, but holds no run.json"),
        (["--warm-start", str(first), str(first)], "--warm-start: must name each study once, but names"),
        (["--simulate=0", f"--warm-start={first}"], "this one is real and the study to be run is simulated; leave it"),
        (["--resume", f"--warm-start={first}"], "--warm-start: teaches a study when it begins, but got --resume"),
    ):
        assert main(["study.py", "--results=new", *options]) == 2
        assert sentence in capsys.readouterr().err
        assert not Path("new").exists()
    text = Path("study.py").read_text().replace("make(", 'make(model="tests.networks:tiny", ')
    Path("study.py").write_text(text)
    assert main(["study.py", "--results=new", f"--warm-start={first}"]) == 2
    assert "same network, tests.networks:tiny, but this one pruned tests.networks:small; leave" in (
        capsys.readouterr().err
    )
    with pytest.raises(ExperimentError, match="same unpruned network, but the weights of this one are others; leave"):
        earlier.check_network([first], "another digest")


@pytest.mark.slow
def test_simulated_study_is_taught_by_a_simulated_one(capsys: pytest.CaptureFixture[str]) -> None:
    write(FIRST)
    assert main(["study.py", "--results=first", "--simulate=0"]) == 0
    write(TAUGHT.format(method="hyperopt", trials=4))
    assert main(["study.py", "--results=second", "--simulate=0", "--warm-start", "first"]) == 0
    assert "simulated: first: 7 trials teach latency and accuracy." in capsys.readouterr().out
    assert len(Results(Path("second")).earlier()) == 7
