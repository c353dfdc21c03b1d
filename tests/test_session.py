from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import load_from_string

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.networks import datasets
from edge_tune.networks.training import train_with
from edge_tune.records.entries import DeviceEntry, Run, Session
from edge_tune.records.results import Results
from edge_tune.search import session, study
from tests.devices import Formula
from tests.networks import experiment, small


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))


def work(one: et.Experiment) -> session._Pruning:
    loaded = study.load(one)
    return session._Pruning(study.prepare(loaded, lambda _: None), loaded.dataset)


@pytest.mark.parametrize(
    ("model", "weight", "block"),
    [
        ("tests.networks:small", "block1.conv1.weight", "block2"),
        ("tests.structures:prefixed", "module.block1.conv1.weight", "module.block2"),
    ],
)
def test_names_that_begin_with_module_are_those_of_the_network(model: str, weight: str, block: str) -> None:
    groups = {
        "g": et.PrunerGroup("filters", ["module.block1.conv1.weight"], sparsity=et.Uniform(0.0, 0.5)),
        "b": et.BlockGroup(["module.block2"], keep=et.Integer(0, 1), order=["module.block2"]),
    }
    found = study.check(experiment(model=model, pruner_groups=groups, baselines={}))
    assert found.pruners["g"].weights == (weight,)
    assert found.block_groups["b"].blocks == found.block_groups["b"].order == (block,)


class OneHost:
    """A cluster of this process alone."""

    def on_device_node(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def test_network_without_weights_is_trained_with_what_a_trial_gets_and_sees_no_test_images() -> None:
    class Trainer:
        def as_a_trial(self, cpus: int, gpus: float, function: Callable[..., Any], *arguments: Any, say: Any) -> bytes:
            asked.append((cpus, gpus, function, *arguments))
            say("  on a GPU")
            return b"weights"

    asked: list[tuple[Any, ...]] = []
    said: list[str] = []
    one, dataset = experiment(), datasets.load(experiment().data, seed=0)
    train = session._train_on(Trainer(), 2, 0.5)  # type: ignore[arg-type]
    assert train(one, dataset, said.append, None) == b"weights"
    assert said == ["  on a GPU"]
    ((cpus, gpus, function, threads, share, given, images, pretrained),) = asked
    assert (cpus, gpus, function, threads, share, given, pretrained) == (2, 0.5, train_with, 2, 0.5, one, None)
    assert images.train is dataset.train
    assert images.test is images.validation is dataset.validation


def test_check_device_tries_the_unpruned_network_before_anything_is_trained(tmp_path: Path) -> None:
    loaded = study.load(experiment(benchmark=et.Benchmark(runs=20)))
    settings = loaded.experiment.benchmark
    session._check_device(OneHost(), settings, loaded)  # type: ignore[arg-type]
    model = load_from_string(loaded.onnx)
    model.graph.node[-1].op_type = "Gem"
    refused = replace(loaded, onnx=model.SerializeToString())
    sentence = r"benchmark: CPU must run the unpruned network, but got: OpenVINO says: .*Gem.* Change the network, or"
    with pytest.raises(ExperimentError, match=sentence):
        session._check_device(OneHost(), settings, refused)  # type: ignore[arg-type]
    assert not (tmp_path / "cache").exists()


def test_check_runtime_refuses_a_study_that_another_runtime_measured(tmp_path: Path) -> None:
    def begun(**device: str) -> Results:
        results = Results(tmp_path / "".join(device.values()))
        results.create()
        results.write_json("run.json", Run(form=2, sessions=[Session(device=DeviceEntry(**device))]))
        return results

    newer = DeviceEntry(device="CPU", runtime="OpenVINO", runtime_version="2026.4.1")
    other = DeviceEntry(device="onnxruntime:CPU", runtime="ONNX Runtime", runtime_version="1.32.0")
    for before in (begun(), begun(openvino="2021.4.2"), begun(runtime="OpenVINO", runtime_version="2026.3.0")):
        session._check_runtime(before, newer)
    for before in (begun(openvino="2026.4.1"), begun(runtime="OpenVINO", runtime_version="2026.4.1")):
        with pytest.raises(
            ExperimentError, match=r"began with, OpenVINO, but .* has ONNX Runtime measure onnxruntime:"
        ):
            session._check_runtime(before, other)


def test_unpruned_network_that_guesses_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(small(10).state_dict(), tmp_path / "untrained.pt")
    given = experiment(weights=str(tmp_path / "untrained.pt"))
    trained = experiment(training=et.Retraining(epochs=1, lr=1e-9))
    for one, remedy in (
        (given, r"Check that the weights are of this network, for these classes in this order, .* std \(0\.229, "),
        (trained, r"It was trained for 1 epoch from lr 1e-09: train it longer, .*training=et\.Retraining\(\.\.\.\)"),
    ):
        guesses = r"the unpruned network must do better than guessing, but got: .*143 (validation )?images.*\. "
        with pytest.raises(ExperimentError, match=guesses + remedy):
            session._unpruned(work(one), Results(tmp_path / "new"), Formula())


def test_unpruned_network_that_has_learned_is_measured_once(tmp_path: Path) -> None:
    results, device = Results(tmp_path / "out"), Formula()
    report = session._unpruned(work(experiment()), results, device)
    assert report is not None
    assert (report.record.name, report.record.status, len(device.asked)) == ("unpruned", "finished", 1)
    results.create()
    results.add(report.record)
    assert session._unpruned(work(experiment()), results, device) is None
    assert len(device.asked) == 1
