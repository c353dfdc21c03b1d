from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.convert.reading import read_yaml
from edge_tune.convert.wandb import read_sweep
from tests.convert.files import HERE, LABELS, QUIET, sweep


def test_sweep_as_the_dissertations_were() -> None:
    notes: list[str] = []
    found = read_sweep(read_yaml(HERE / "sweep.yaml"), [*LABELS, "filter_pruner_40"], notes)
    assert found.ranges == {
        "filter_pruner_70": et.Uniform(0.0, 0.95),
        "filter_pruner_60": et.Uniform(0.0, 0.99),
        "filter_pruner_20": et.Choice([0.0, 0.2, 0.4]),
    }
    assert (found.method, found.target, found.trials) == ("hyperopt", et.Minimise("latency_ms"), 96)
    assert {name: setting.value for name, setting in found.settings.items()} == {
        "epochs": 70,
        "lr": 0.1,
        "batch_size": 128,
        "weight_decay": 0.0005,
    }
    assert found.stopping == (et.Asha(et.Maximise("top1"), grace_epochs=5, reduction_factor=3),)
    assert [note.partition(" ")[0] for note in notes] == [f"sweep.yaml:{line}:" for line in (2, 3, 4, 30, 26)]


def test_grid_over_a_range_without_steps_becomes_random(tmp_path: Path) -> None:
    found, (note,) = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", f"method: grid\n{QUIET}")
    assert found.method == "random"
    assert note.startswith("given.yaml:3: a grid needs values, but some parameters have a range without steps")


@pytest.mark.parametrize(
    ("name", "goal", "target"),
    [
        ("latency", "minimize", et.Minimise("latency_ms")),
        ("latency_ms", "minimize", et.Minimise("latency_ms")),
        ("Total Latency (ms)", "minimize", et.Minimise("total_latency_ms")),
        ("acc", "maximize", et.Maximise("top1")),
        ("Performance/Validation/Top1", "maximize", et.Maximise("top1")),
        ("val_loss", "minimize", et.Minimise("loss")),
        ("validation_loss", "minimize", et.Minimise("loss")),
        ("best_val_acc", "maximize", et.Maximise("top1")),
        ("throughput", "maximize", et.Maximise("throughput_fps")),
        ("latency_ratio", "minimize", et.Minimise("latency_ratio")),
    ],
)
def test_metric_and_goal_become_the_target(tmp_path: Path, name: str, goal: str, target: et.Minimise) -> None:
    rest = f"method: random\nmetric: {{name: {name}, goal: {goal}}}\nrun_cap: 5\n"
    found, notes = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", rest)
    assert (found.target, found.method, notes) == (target, "random", [])


@pytest.mark.parametrize(
    ("rest", "target", "note"),
    [
        (
            "metric: {name: f1}",
            et.Minimise("latency_ms"),
            "given.yaml:4: metric 'f1' is not carried over: EdgeTune records [",
        ),
        ("", et.Minimise("latency_ms"), "given.yaml:1: the sweep has no metric"),
        (
            "metric: {name: acc}",
            et.Minimise("top1"),
            "given.yaml:4: goal 'minimize' of 'acc' looks for the worst network",
        ),
        (
            "metric: {name: acc, goal: maximize, target: 93}",
            et.Maximise("top1"),
            "given.yaml:4: the target of the metric is not carried over",
        ),
    ],
)
def test_metric_that_is_not_carried_over_is_noted(tmp_path: Path, rest: str, target: et.Minimise, note: str) -> None:
    found, notes = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", f"method: random\n{rest}\nrun_cap: 5\n")
    assert (found.target, [text[: len(note)] for text in notes]) == (target, [note])


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("program: train.py", "given.yaml:6: program is not carried over: python -m edge_tune.run takes its place"),
        ("entity: me", "given.yaml:6: entity is not carried over: results are plain files in results/"),
        ("surprise: 1", "given.yaml:6: surprise is not carried over: EdgeTune has no counterpart"),
        ("early_terminate: {type: envelope}", "given.yaml:6: early_terminate is not carried over; add stopping="),
    ],
)
def test_key_that_is_not_carried_over_is_noted(tmp_path: Path, line: str, note: str) -> None:
    found, (said,) = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", f"method: bayes\n{QUIET}{line}\n")
    assert found.stopping == ()
    assert said.startswith(note)


def test_hyperband_by_its_last_step_becomes_asha(tmp_path: Path) -> None:
    rest = f"method: bayes\n{QUIET}early_terminate: {{type: hyperband, max_iter: 27, s: 2, eta: 3}}\n"
    found, (said,) = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", rest)
    assert found.stopping == (et.Asha(et.Maximise("top1"), grace_epochs=3, reduction_factor=3),)  # 27 / 3 ** 2
    assert said.startswith("given.yaml:6: hyperband becomes et.Asha")


@pytest.mark.parametrize(
    ("rest", "method", "trials", "note"),
    [
        ("run_cap: 5", "hyperopt", 5, "given.yaml:1: method must be one of ['grid', 'random', 'bayes'], but got None"),
        ("method: custom\nrun_cap: 5", "hyperopt", 5, "given.yaml:4: method must be one of .*, but got 'custom'"),
        ("method: bayes", "hyperopt", 256, "given.yaml:1: run_cap must be a whole number, but got None; 256 trials"),
        (
            "method: bayes\nrun_cap: many",
            "hyperopt",
            256,
            "given.yaml:5: run_cap must be a whole number, but got 'many'",
        ),
    ],
)
def test_method_and_cap_that_are_missing_are_noted(
    tmp_path: Path, rest: str, method: str, trials: int, note: str
) -> None:
    metric = "metric: {name: latency, goal: minimize}\n"
    found, (said,) = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", f"{metric}{rest}\n")
    assert (found.method, found.trials) == (method, trials)
    start, _, end = note.partition(".*")
    assert said.startswith(start)
    assert end in said


def test_hyperband_of_a_fraction_becomes_whole_and_is_noted(tmp_path: Path) -> None:
    rest = f"method: bayes\n{QUIET}early_terminate: {{type: hyperband, min_iter: 3, eta: 2.5}}\n"
    found, (_, said) = sweep(tmp_path, "layer_3.1: {min: 0.1, max: 0.3}", rest)
    assert found.stopping == (et.Asha(et.Maximise("top1"), grace_epochs=3, reduction_factor=3),)
    assert said == "given.yaml:6: eta must be a whole number in et.Asha, but got 2.5; 3 is taken."
