import subprocess
import sys
from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.convert.source import experiment_source
from edge_tune.loading import load_experiment
from tests.networks import BLOCKS, experiment

ROOT = Path(__file__).parents[2]
MANY = [f"stage.{block}.conv{conv}.weight" for block in range(3) for conv in (1, 2)]


def written(folder: Path, given: et.Experiment, notes: list[str]) -> tuple[Path, str]:
    file = folder / "study.py"
    text = experiment_source(given, command="python -m edge_tune.run study.py", origin="Made by hand.", notes=notes)
    file.write_text(text)
    return file, text


def ruff(*arguments: str, file: Path) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, "--config", str(ROOT / "pyproject.toml"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stopping": [et.Asha(et.Maximise("top1")), et.Hopeless(after_epochs=0)], "weights": "weights of 'mine'.pt"},
        {"dataset": et.Data("images", image_size=64), "target": et.Maximise("top1"), "training": None},
        {
            "retraining": et.Retraining(
                epochs=300,
                lr=0.123456789,
                decay=et.MultiStep(gamma=0.1, milestones=list(range(10, 300, 10))),
                batch_size=64,
            )
        },
        {
            "pruner_groups": {
                "one": et.PrunerGroup(["filters", "channels"], MANY, sparsity=et.Uniform(0.0, 0.99)),
                "numbered": et.PrunerGroup(
                    "filters", [f"a.{i}.weight" for i in (3, 1)], sparsity=et.Uniform(0.0, 0.99)
                ),
                "long": et.PrunerGroup("filters", [f"b.{i}.weight" for i in range(60)], sparsity=et.Choice([0.0, 0.5])),
                "zeros": et.PrunerGroup("filters", ["c.01.weight", "c.1.weight"], sparsity=et.Choice([0.25])),
                "uneven": et.PrunerGroup("filters", ["d.1.weight", "d.2.x.weight"], sparsity=et.Uniform(0.1, 0.2)),
                "odd": et.PrunerGroup("filters", ['e"{i}.1.weight', 'e"{i}.2.weight'], sparsity=et.Uniform(0.1, 0.2)),
            },
            "baselines": {},
        },
        {"pruner_groups": {"first": BLOCKS["first"]}, "baselines": {}},
    ],
)
def test_source_makes_the_same_experiment_and_is_as_ruff_formats_it(tmp_path: Path, changes: dict[str, object]) -> None:
    given = experiment(**changes)
    file, _ = written(tmp_path, given, ["given.yaml:1: " + "a long note that goes on " * 20])
    assert load_experiment(file) == given
    ruff("format", "--check", file=file)
    ruff("check", file=file)


def test_source_is_short_where_a_reader_would_be(tmp_path: Path) -> None:
    weights = [f"layer1.{block}.conv1.weight" for block in range(9)]
    groups = {name: et.PrunerGroup("filters", weights, sparsity=et.Uniform(0.0, 0.99)) for name in ("a",)}
    groups["b"] = et.PrunerGroup("channels", ["x.weight"], sparsity=et.Uniform(0.0, 0.99))
    _, text = written(tmp_path, experiment(pruner_groups=groups, baselines={}), [])
    assert '[f"layer1.{i}.conv1.weight" for i in [0, 1, 2, 3, 4, 5, 6, 7, 8]]' in text
    assert '"b": et.PrunerGroup("channels", ["x.weight"], sparsity=ANY),' in text
    assert "Not carried over" not in text
    assert text.startswith(
        '"""tests.networks:small on digits: lowest latency_ms after retraining.\n\npython -m edge_tune.run'
    )


def test_nothing_that_a_file_says_becomes_code(tmp_path: Path) -> None:
    evil = 'x"""\nraise SystemExit("ran")\n"""\\'
    given = experiment(model=evil, dataset=evil, baselines={})
    file, text = written(tmp_path, given, [f"given.yaml:1: {evil}", "given.yaml:2: a\rb\fc\x0bd\x85e\u2028f"])
    assert load_experiment(file) == given
    assert all(line.startswith("#") for line in text.splitlines() if "given.yaml" in line)
