"""The command, from a network to an experiment file that runs, on the CPU; and what it refuses."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edge_tune as et
import edge_tune.run as run
from edge_tune.inspect import measuring
from edge_tune.inspect.__main__ import main, recipe_for
from edge_tune.loading import load_experiment
from edge_tune.networks.models import build
from tests.inspect.networks import residual

ROOT = Path(__file__).parents[2]
DATA = ["--data=digits", "--image-size=8"]
RESIDUAL = "tests.inspect.networks:residual"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(measuring, "MOST_S", measuring.LEAST_S)


@pytest.mark.timeout(1200)  # it took 408 s beside 14 other processes on 2 cores
@pytest.mark.slow
def test_a_network_is_inspected_and_the_proposed_experiment_runs_to_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([RESIDUAL, *DATA, "--output=mine.py", "--report=mine.html"]) == 0
    said = capsys.readouterr().out
    assert "4 of 5 sets of filters and 3 blocks can be removed" in said
    assert "| stem and 3 more | 4 layers that are added to each other |" in said
    assert "fc must stay: the filters of 'fc.weight' make the network's output, which must stay whole." in said
    assert "s left; without" in said
    page = Path("mine.html").read_text()
    assert "What can be removed from tests.inspect.networks:residual" in page
    assert page.count("<td") > 50

    experiment = load_experiment(Path("mine.py"))
    assert experiment.target == "minimise latency_ratio where top1 >= unpruned - 1"
    assert experiment.data == et.Data("digits", image_size=8)
    (blocks,) = experiment.block_groups.values()
    assert sorted(blocks.order or ()) == sorted(blocks.blocks)
    assert set(blocks.blocks) <= {"blocks.0", "blocks.1", "blocks.2"}  # one may be too sensitive
    text = Path("mine.py").read_text()
    assert "# Groups interact, and retraining makes up" in " ".join(text.split())
    style = [sys.executable, "-m", "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), "mine.py"]
    assert subprocess.run(style, capture_output=True).returncode == 0

    assert main([RESIDUAL, *DATA, "--output=again.py"]) == 0  # nothing of it is done again
    again = capsys.readouterr().out
    assert "Measuring" not in again
    assert "Classifying" not in again
    assert [line for line in said.splitlines() if line.startswith("| ")] == [
        line for line in again.splitlines() if line.startswith("| ")
    ]
    assert Path("again.py").read_text() == text.replace("mine.py", "again.py")
    assert Path("again.html").is_file()

    assert run.main(["mine.py", "--trials=2", "--epochs=1", "--results=out"]) == 0
    table = capsys.readouterr().out
    assert "| unpruned" in table
    assert "Trials: 2 finished" in table or "stopped" in table


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["resnet57_cifar", *DATA], "model: must be one of resnet20_cifar"),
        ([RESIDUAL, "--data=nowhere"], "nowhere: "),
        ([RESIDUAL, *DATA, "--device=NOPE"], "'NOPE'"),
        ([RESIDUAL, *DATA, "--device-python=nowhere"], "nowhere"),
        ([RESIDUAL, *DATA, "--weights=nowhere.pt"], "nowhere.pt: weights must be a file or a URL"),
        (["tests.inspect.networks:attends", *DATA], "transformers cannot be pruned so"),
        (["tests.inspect.networks:linear", *DATA], "model: something of the network must be removable, but nothing"),
        ([RESIDUAL, *DATA, "--output=there.py"], "there.py: the experiment file must be new, but there is one"),
        ([RESIDUAL, *DATA, "--output=mine.txt"], "mine.txt: the experiment file must end in .py"),
        ([RESIDUAL, *DATA, "--output=no/mine.py"], "no/mine.py: its folder must be there, but is not"),
        ([RESIDUAL, *DATA, "--report=page.txt"], "page.txt: the page must end in .html"),
        ([RESIDUAL, *DATA, "--image-size=4"], "image_size must be a whole number of at least 8, but got 4"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_starts(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.py").write_text("")
    before = sorted(Path.cwd().iterdir())
    assert main(words) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1
    assert "Measuring" not in said.out
    assert "training" not in said.out
    assert sorted(Path.cwd().iterdir()) == before


def test_a_network_that_guesses_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = residual(10)
    with torch.no_grad():
        network.get_parameter("fc.weight").mul_(100)  # sure of what it does not know
    torch.save(network.state_dict(), "random.pt")
    assert main([RESIDUAL, *DATA, "--weights=random.pt", "--device=fake"]) == 2
    assert "weights: must be trained on these images, so that something can be lost" in capsys.readouterr().err


def test_a_formula_in_place_of_a_device_is_inspected_and_has_no_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([RESIDUAL, *DATA, "--device=fake", f"--device-python={sys.executable}"]) == 0
    said = capsys.readouterr().out
    assert "Written: residual_on_digits.py" in said
    settings = load_experiment(Path("residual_on_digits.py")).benchmark
    assert (settings.device, settings.python) == ("fake", sys.executable)


def test_a_network_without_batch_norm_gets_a_smaller_rate() -> None:
    with_norm, without = (recipe_for(build(name, 10)) for name in ("resnet20_cifar", "squeezenet1_1"))
    assert (with_norm.lr, without.lr) == (0.05, 0.005)
    assert replace(without, lr=with_norm.lr) == with_norm
