"""A study from Python: run, gone on with, and looked into."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import edge_tune as et
from edge_tune import studies
from edge_tune.errors import ExperimentError
from edge_tune.networks.stored import load_network
from tests.networks import experiment

ROOT = Path(__file__).parents[1]
SCRIPT = """
import edge_tune as et

experiment = et.Experiment(
    model="tests.networks:small",
    dataset=et.Data("digits", image_size=16, train_images=600),
    pruner_groups={"first": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0.1, 0.5))},
    target="maximise top1",
    training=et.Retraining(epochs=6, lr=0.1),
    retraining=et.Retraining(epochs=1, lr=0.02),
    benchmark=et.Benchmark(device="fake"),
    search=et.Search("random", trials=2),
)
study = et.run(experiment, results="study", say=lambda line: None)
print(len(study.trials), study.best.name)
again = et.run(experiment, results="study", resume=True)
print(len(again.trials), again.best.name)
et.run(experiment, results="study")
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return the folder that a script left, and what it said."""
    folder = tmp_path_factory.mktemp("studies")
    environment = {"EDGE_TUNE_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return folder / "study", said


@pytest.mark.slow
def test_script_runs_a_study_and_goes_on_with_it(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, said = study
    first, *rest = said.stdout.splitlines()
    assert first == rest[-1]
    assert first.split()[0] == "2"
    assert "0 of 3 trials to run" in said.stdout  # printed by the second
    assert said.stderr.splitlines()[-1] == (
        "edge_tune.errors.ExperimentError: study: the results folder must be new, but holds a study; resume it with "
        "--resume (resume=True), or choose another folder with --results."
    )
    assert (folder / "report.html").is_file()
    assert 'et.Search("random", trials=2, seed=0)' in (folder / "experiment.py").read_text()


@pytest.mark.slow
def test_study_holds_its_trials_its_best_and_its_networks(
    study: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = study
    found = et.load_study(folder)
    assert list(found.trials.index) == [2, 3]
    assert found.best is not None
    assert found.best.metrics["top1"] == found.trials["top1"].max()
    assert found.trials.loc[found.best.trial, "kept.block1.conv1.weight"] == found.best.plan[0].kept
    assert list(found.baselines["name"]) == ["unpruned", "unpruned_retrained"]
    assert {record.trial for record in found.front} <= {2, 3}
    images = torch.randn(2, 3, 16, 16)
    network = found.network(found.best.trial, trust_model=True)
    torch.testing.assert_close(network(images), load_network(folder / "best", trust_model=True)(images))
    with pytest.raises(ExperimentError, match=r"run.json: model .* must be imported .* trust_model=True"):
        found.network(found.best.trial)
    with pytest.raises(ExperimentError, match=r"the trial must be one of its 4, such as 3, but got 77; study.trials"):
        found.network(77)


@pytest.mark.slow
def test_study_that_goes_on_is_not_taught_anew(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = study
    with pytest.raises(ExperimentError, match=r"--warm-start: teaches a study when it begins, but got --resume as wel"):
        studies.run(experiment(), results=folder, resume=True, warm_start=[folder])


def test_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"must be the results folder of a study, but holds no run.json"):
        et.load_study(tmp_path)
    with pytest.raises(AttributeError, match=r"module 'edge_tune' has no attribute 'load_studies'"):
        et.load_studies  # noqa: B018
