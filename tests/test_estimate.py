"""`--check`: what a study would take, and nothing of it."""

from dataclasses import replace
from pathlib import Path

import pytest

import edge_tune as et
import edge_tune.run as run
from edge_tune.search.estimate import Speeds, lines
from tests.networks import experiment

ROOT = Path(__file__).parents[1]
FILE = """
import edge_tune as et

experiment = et.Experiment(
    model="tests.networks:small",
    dataset=et.Data("digits", image_size=16, train_images=600),
    pruner_groups={"first": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0.1, 0.5))},
    target="maximise top1",
    retraining=et.Retraining(epochs=3, lr=0.02, distillation=et.Distillation()),
    benchmark=et.Benchmark(device="CPU", runs=5, max_s=2),
    search=et.Search("random", trials=4),
)
"""


def test_check_times_a_trial_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("mine.py").write_text(FILE)
    assert run.main(["mine.py", "--check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "What a run checks fits. No study was started, and no results were written."
    assert any("of retraining (3 epochs of 600 images" in line for line in said)
    assert any(line.startswith("The unpruned network would be trained first: ") for line in said)
    assert any(line.startswith("5 networks, ") for line in said)  # 4 trials and the unpruned network retrained
    assert sorted(path.name for path in tmp_path.iterdir()) in (["mine.py"], ["__pycache__", "mine.py"])


def test_check_refuses_what_a_run_refuses_and_what_it_cannot_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("mine.py").write_text(FILE)
    assert run.main(["mine.py", "--check", "--device", "NOTHING"]) == 2
    assert "benchmark: " in capsys.readouterr().err
    assert run.main(["mine.py", "--check", "--simulate", "1"]) == 2
    assert "--check: looks at a study before it begins" in capsys.readouterr().err


def test_hours_follow_from_images_epochs_and_trials_at_a_time() -> None:
    one = replace(
        experiment(),
        retraining=et.Retraining(epochs=10, lr=0.1),
        search=et.Search("random", trials=8),
        keep_weights="best",
        baselines={},
    )
    speeds = Speeds("a processor", retrained=100.0, classified=1000.0, measured_s=5.0)
    first, second, disk = lines(one, speeds, (36_000, 10_000), 3, 1, 1_000_000, None)
    # 10 epochs of 360 s, 11 looks of 10 s, 2 measurements of 5 s; 8 trials and the unpruned network, 3 at a time
    assert "would take 62 min on a processor: 60 min of retraining" in first
    assert second.startswith("9 networks, 3 trials at a time: about 3.1 h, and")
    assert "about 16 MB" in disk
    _, first, *_ = lines(one, speeds, (36_000, 10_000), 3, 1, 1_000_000, (5 * 36_000, 3 * 36_000))
    assert first.startswith("The unpruned network would be trained first: 32 min, ")  # 1,800 s, 108 s its classifier


def test_one_device_measures_for_all_trials() -> None:
    one = replace(
        experiment(),
        retraining=et.Retraining(epochs=20, lr=0.1),
        benchmark=et.Benchmark(device="CPU", every_epochs=1),
        search=et.Search("random", trials=255),
        baselines={},
    )
    speeds = Speeds("a GPU", retrained=1e6, classified=1e6, measured_s=10.0)
    first, second, _ = lines(one, speeds, (36_000, 10_000), 16, 1, 1_000_000, None)
    assert "4 min of measuring" in first  # 21 measurements
    assert second.startswith("256 networks, 16 trials at a time: about 14.9 h, and")
