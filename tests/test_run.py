"""The command as a person runs it: real Ray, real OpenVINO, and everything that can be mistyped."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import openvino
import pytest
import torch
import torchvision

import edge_tune as et
import edge_tune.run as command_line
from edge_tune import export, train
from edge_tune.display import console
from edge_tune.display.next_steps import next_steps
from edge_tune.errors import ExperimentError
from edge_tune.loading import identity
from edge_tune.networks import datasets, training
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.retraining import retrain
from edge_tune.networks.stored import load_network
from edge_tune.records.results import Record, Results
from edge_tune.run import main
from edge_tune.search.session import check_same
from tests.asked import sparsities
from tests.networks import BLOCKS, small, write_image_folder
from tests.networks import experiment as make

ROOT = Path(__file__).parents[1]
FILE = """
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

experiment = make({changes})
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def write(changes: str = "", name: str = "study.py", text: str | None = None) -> str:
    Path(name).write_text(FILE.format(changes=changes) if text is None else text)
    return name


def ended(folder: str) -> list[Record]:
    return Results(Path(folder)).trials()


GROUP = (
    'pruner_groups={{"g": et.PrunerGroup("filters", {weights}, sparsity=et.Uniform({low}, {high}))}}, baselines={{}}'
)


def group(weights: object, low: float = 0.0, high: float = 0.9) -> str:
    return GROUP.format(weights=weights, low=low, high=high)


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        ("", ["--trials", "0"], r"study.py with these options: search: trials must be .* at least 1, but got 0"),
        ("", ["--epochs", "-1"], r"retraining: epochs must be a whole number of at least 0, but got -1"),
        ("", ["--data", "nowhere/images"], r"nowhere/images: .*"),
        ("", ["--weights", "none.pt"], r"none.pt: .*"),
        ("", ["--data", "~nobody9/images"], r"~nobody9/images: an image folder must be readable, but got a user"),
        ("", ["--weights", "~nobody9/x.pt"], r"~nobody9/x.pt: weights must be a file or a URL, but got: .*home"),
        ("", ["--weights", "https://[x.pt"], r"https://\[x.pt: weights must be a file or a URL, but got: Invalid IPv6"),
        ("", ["--weights", "http://no host/x.pt"], r"http://no host/x.pt: .* the download failed \(URL can't contain"),
        ("", ["--data", 300 * "x"], r"xxx: an image folder must be readable, but got .*too long"),
        ("", ["--results", 300 * "x"], r"xxx: the results folder must be accessible, but got File name too long"),
        ("", ["--device", "GPUX"], r"benchmark: .*'?CPU'?.*GPUX"),
        ("benchmark=et.Benchmark(threads=4096)", [], r"benchmark: threads must be at most .* cores .*, but got 4096"),
        (
            "",
            ["--device=CPU", "--device-python=no/python"],
            r"benchmark: no/python: the interpreter must start, but got",
        ),
        (
            "",
            ["--resume", "--results", "none"],
            r"none: --resume needs a study that was started here, but there is none",
        ),
        ("", ["--resume"], r"--resume: needs a study to resume, but results/study-\*/ holds none"),
        ('target=et.Minimise("speed")', [], r"study.py: target: a metric must be one of .* but got 'speed'"),
        (group(["block1.conv9.weight"]), [], r"\['g'\]: a weight must be one of the network's, but got 'block1.conv9"),
        (group([]), [], r"\['g'\]: weights must name at least one weight, but got none"),
        (group(["block1.conv1.weight"], high=1.0), [], r"0 <= low <= high < 1, but got Uniform\(0.0, 1.0\)"),
        ('pruner_groups={**BLOCKS, "third": BLOCKS["first"]}, baselines={}', [], r"must be in one group only"),
        ('model="resnet57_cifar"', [], r"resnet57_cifar"),
        ('model="tests.networks:tiny"', [], r"tests.networks.*tiny"),
        ('model="tests.networks:Pooled"', [], r"model: the network must be one that ONNX .* can hold, but torch.onnx"),
        ("retraining=et.Retraining(epochs=1)", [], r"study.py:5: TypeError: .*'lr'"),
        ('target=et.Minimize("top1")', [], r"study.py:5: AttributeError: .*'Minimize'; did you mean 'Minimise'\?"),
    ],
)
def test_bad_input_gets_one_sentence_and_nothing_is_started(
    changes: str, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(changes)
    assert main([file, *options]) == 2
    output = capsys.readouterr()
    assert re.search(problem, output.err), output.err
    assert len(output.err.strip().splitlines()) == 1
    others = ("Images: ", "Still waiting for ")  # what was found, before the network is tried with it; on a busy host
    assert [line for line in output.out.splitlines() if not line.startswith(others)] == []
    assert not Path("results").exists()
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        ('model="resnet57_cifar"', [], r"model: must be one of .*, but got 'resnet57_cifar'"),
        ("", ["--data", "nowhere"], r"nowhere: data must be 'digits', .*, but got no such folder"),
        ("", ["--train-images", "5"], r"digits: train_images must lie between 10, one a class, and .*, but got 5"),
        ("", ["--weights", "none.pt"], r"none.pt: weights must be a file or a URL, but got no such file"),
        ("", ["--weights", "study.py"], r"study.py: must be a file that torch.save"),
        (group(["block1.conv9.weight"]), [], r"\['g'\]: a weight must be one of the network's, but got 'block1.conv9"),
        ('model="mobilenet_v2"', ["--data", "cifar100"], r"a weight must be one of the network's, but got 'block1"),
    ],
)
def test_simulation_refuses_what_a_run_would(
    changes: str, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([write(changes), "--simulate=0", *options]) == 2
    output = capsys.readouterr()
    assert re.search(problem, output.err), output.err
    assert output.out == ""
    assert not Path("results").exists()


def test_simulation_needs_nothing_that_would_be_downloaded_and_calls_itself_one_in_each_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write('dataset=et.Data("cifar100", image_size=16), target="minimise latency_ratio where top1 > unpruned"')
    options = ["--weights=https://nowhere.invalid/weights.pt", "--device=MYRIAD", "--results=out"]
    assert main([file, "--simulate=0", "--trials=1", "--epochs=1", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    said, (table, _, *rows) = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert len(said) > 4
    assert all(line.startswith("simulated: ") for line in said)
    assert table.startswith("| network (simulated) ")
    assert console.SIMULATED in rows
    assert json.loads(Path("out/run.json").read_text())["simulated"] is True
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["simulated"], summary.get("chosen")) == (True, None)
    nearest = "minimise latency_ratio where top1 > unpruned: no trial of 1 meets it; nearest came trial_0003"
    assert any(nearest in line for line in rows), rows
    assert "Simulated: the figures follow from formulas" in Path("out/report.html").read_text()


def test_bad_experiment_file_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["none.py"]) == 2
    assert main([write(text="experiment = (")]) == 2
    assert main([write(name="my study.py")]) == 2
    missing, syntax, name = capsys.readouterr().err.splitlines()
    assert missing.startswith("none.py: an experiment must be a Python file")
    assert syntax.startswith("study.py:1: SyntaxError")
    assert name.startswith("my study.py: the file's name becomes the study's name")


def test_bad_images_and_weights_are_told_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fail)
    file = write('dataset=et.Data("digits", image_size=16)')
    write_image_folder(Path("one"), classes=("cat",))
    Path("empty/train").mkdir(parents=True)
    Path("empty/test").mkdir()
    torch.save({**small(10).state_dict(), "stem.bias": torch.zeros(7)}, "seven.pt")
    for options in (["--data", "one"], ["--data", "empty"], ["--weights", "seven.pt"], ["--data", "cifar10"]):
        assert main([file, *options]) == 2
    one, empty, seven, cifar = capsys.readouterr().err.splitlines()
    assert re.search(r"one.*class", one)
    assert re.search(r"empty.*class", empty)
    assert re.search(r"seven.pt.* stem.bias \[7\] instead of \[8\]", seven)
    assert re.search(r"cifar10: .* download failed .*not known.* by --data PATH", cifar)
    assert not Path("results").exists()


def test_results_folder_must_be_new_writable_and_of_this_study(capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    Path("file").write_text("")
    assert main([file, "--results", "file/results"]) == 2
    Path("old").mkdir()
    Path("old/run.json").write_text(json.dumps({"form": 2, "identity": {"model": "another"}, "sessions": []}))
    assert main([file, "--results", "old"]) == 2
    unwritable, exists = capsys.readouterr().err.splitlines()
    assert unwritable.startswith("file/results: the results folder must be writable, but got Not a directory")
    assert exists.startswith("old: the results folder must be new, but holds a study; resume it with --resume")
    assert main([file, "--results", "old", "--resume"]) == 2
    assert (
        "old: a resumed study must be the one that was started, but got another model, dataset, "
        in capsys.readouterr().err
    )


def test_baselines_of_a_resumed_study_must_keep_their_order() -> None:
    """They are numbered by it."""
    half, most = {"first": 0.5, "second": 0.5}, {"first": 0.9, "second": 0.9}
    results = Results(Path("old"))
    results.create()
    results.write_json("run.json", {"form": 2, "identity": identity(make(baselines={"half": half, "most": most}))})
    check_same(results, identity(make(baselines={"half": half, "most": most})))
    with pytest.raises(ExperimentError, match="got another baselines"):
        check_same(results, identity(make(baselines={"most": most, "half": half})))


def test_ranges_of_a_resumed_study_may_change_but_not_what_is_searched_nor_those_of_a_grid() -> None:
    results = Results(Path("old"))
    results.create()

    def stored(one: et.Experiment) -> None:
        content = {"form": 2, "identity": identity(one), "search": {"method": one.search.method}}
        results.write_json("run.json", content)

    def groups(sparsity: et.Uniform | et.Choice) -> dict[str, et.PrunerGroup]:
        return {label: replace(group, sparsity=sparsity) for label, group in BLOCKS.items()}

    stored(make(baselines={}))
    for sparsity in (et.Uniform(0.2, 0.7), et.Choice([0.5, 0.75])):
        check_same(results, identity(make(pruner_groups=groups(sparsity), baselines={})))
    lists = {label: replace(group, structure=["filters", "channels"]) for label, group in BLOCKS.items()}
    with pytest.raises(ExperimentError, match="got another pruner_groups"):
        check_same(results, identity(make(pruner_groups=lists, baselines={})))
    searched = et.Retraining(epochs=2, lr=et.LogUniform(0.01, 0.1), batch_size=32, precision="f32")
    with pytest.raises(ExperimentError, match="got another retraining"):
        check_same(results, identity(make(retraining=searched, baselines={})))
    grid: dict[str, Any] = {"search": et.Search("grid", trials=4)}
    stored(make(pruner_groups=groups(et.Choice([0.25, 0.5])), **grid))
    with pytest.raises(ExperimentError, match="got another pruner_groups"):
        check_same(results, identity(make(pruner_groups=groups(et.Choice([0.5, 0.75])), **grid)))


NARROWED = """
import edge_tune as et
from tests.networks import BLOCKS, experiment as make
from dataclasses import replace

experiment = make(
    pruner_groups={{label: replace(group, sparsity={sparsity}) for label, group in BLOCKS.items()}},
    search=et.Search("hyperopt", trials={trials}, seed=1, max_concurrent_trials=1),
)
"""


@pytest.mark.slow
def test_study_whose_every_name_begins_with_module_is_resumed_by_them() -> None:
    keep = '"b": et.BlockGroup(["module.block2"], keep=et.Integer(0, 1), order=["module.block2"])'
    groups = group(["module.block1.conv1.weight"]).replace("}, baselines", f", {keep}}}, baselines")
    options = [write(f'{groups}, model="tests.structures:prefixed"'), "--simulate=0", "--results=out"]
    assert main([*options, "--trials=1"]) == 0
    assert Results(Path("out")).identity()["pruner_groups"]["b"]["blocks"] == ["module.block2"]  # type: ignore[index]
    assert main([*options, "--trials=2", "--resume"]) == 0
    assert len(ended("out")) == 2


@pytest.mark.slow
def test_range_is_narrowed_between_sessions_and_what_follows_is_resumed_to_the_very_points(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(folder: str, sparsity: str, trials: int, *options: str) -> str:
        write(text=NARROWED.format(sparsity=sparsity, trials=trials))
        assert main(["study.py", "--results", folder, "--simulate=0", *options]) == 0
        return capsys.readouterr().out

    run("whole", "et.Uniform(0.0, 0.9)", 5)
    wide = ended("whole")
    low, high = 0.2, 0.7
    outside = sum(not all(low <= s <= high for s in sparsities(record.point).values()) for record in wide)
    out = run("whole", "et.Uniform(0.2, 0.7)", 10, "--resume")
    assert "first.sparsity Uniform(0.0, 0.9), now Uniform(0.2, 0.7); second.sparsity Uniform(0.0, 0.9), now" in out
    lie = "1 recorded point lies outside" if outside == 1 else f"{outside} recorded points lie outside"
    assert outside > 0
    assert f"{lie}, and what came of them still counts." in out
    points = [record.point for record in ended("whole")]
    assert points[: len(wide)] == [record.point for record in wide]
    assert all(low <= s <= high for point in points[len(wide) :] for s in sparsities(point).values())

    shutil.copytree("whole", "cut")  # as a kill two trials later leaves it
    for name in ("trials.jsonl", "started.jsonl"):
        lines = Path("cut", name).read_text().splitlines(keepends=True)
        Path("cut", name).write_text("".join(line for line in lines if json.loads(line)["trial"] <= 2 + 5 + 2))
    assert "Changed since" not in run("cut", "et.Uniform(0.2, 0.7)", 10, "--resume")
    assert [record.point for record in ended("cut")] == points


def test_resume_takes_the_newest_study_of_this_name_and_no_other() -> None:
    for name in ("mine-20251101-100000", "mine-20251125-100000", "mine-top1-20251130-100000"):
        Path("results", name).mkdir(parents=True)
        Path("results", name, "run.json").write_text("{}")
    given = command_line._parser("python -m edge_tune.run").parse_args(["mine.py", "--resume"])
    assert command_line._results_folder(given) == Path("results/mine-20251125-100000")


def test_command_to_go_on_can_be_given_as_it_is_printed() -> None:
    options = ["--simulate=0.5", "--time-budget=300h", "--trial-time-limit=90m", "--trials=7", "--weights=a b.pt"]
    given = command_line._parser("python -m edge_tune.run").parse_args(["mine.py", *options])
    _, _, _, *words = shlex.split(command_line._command(given, Results(Path("out"))))
    again = vars(command_line._parser("python -m edge_tune.run").parse_args(words))
    assert again == {**vars(given), "results": Path("out"), "resume": True}


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1s"])
def test_simulated_epochs_must_take_a_time(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([write(), f"--simulate={seconds}"])
    assert f"must be a number of seconds of at least 0, such as 0.5, but got '{seconds}'" in capsys.readouterr().err


def test_resume_says_what_is_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    Path("old").mkdir()
    Path("old/trials.jsonl").write_text(Record(trial=2, status="failed").to_json() + "\n")
    assert main([file, "--results", "old"]) == 2
    assert main([file, "--results", "old", "--resume"]) == 2
    exists, lost = capsys.readouterr().err.splitlines()
    assert exists.startswith("old: the results folder must be new, but holds a study")
    assert lost.startswith("old/run.json: must be there beside the records of a study, but is not; restore the file")


def command(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.Popen(
        [sys.executable, "-m", "edge_tune.run", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    return out, err


def test_run_takes_images_and_weights_to_a_measured_network() -> None:
    """The whole of it on a folder of images of another size, with OpenVINO: every promised file is there."""
    write_image_folder(Path("images"), classes=("bird", "cat", "dog"), images=30, size=24)
    torch.manual_seed(0)
    network = small(3)
    images = datasets.load(et.Data("images", image_size=16, validation_fraction=0.4), seed=0)
    list(retrain(network, images.train, et.Retraining(epochs=4, lr=0.05, batch_size=8), augmentation=None, seed=0))
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, "start.pt")
    file = write(
        'dataset=et.Data("digits", image_size=16, validation_fraction=0.4), benchmark=et.Benchmark(runs=20), '
        "retraining=et.Retraining(epochs=4, lr=0.05, batch_size=8), "
        'stopping=[et.Asha(et.Maximise("top1"), grace_epochs=1, reduction_factor=2), et.Hopeless()], '
        'target="minimise latency_ratio where macs < unpruned"'
    )
    process = command(file, "--data", "images", "--weights", "start.pt", "--trials", "2", "--results", "out")
    out, err = finish(process)
    assert process.returncode == 0, err
    assert err == ""
    results = Results(Path("out"))
    assert [record.name for record in results.baselines()] == ["unpruned", "half", "unpruned_retrained"]
    assert [record.trial for record in results.trials()] == [3, 4]
    verdict = json.loads(Path("out/summary.json").read_text())
    names = ["unpruned", "unpruned, 4 epochs", "half, not retrained", "half, 4 epochs"]
    assert [row["name"] for row in verdict["rows"][:4]] == names
    alike = verdict["rows"][1]
    assert (alike["epoch"], alike["is_unpruned"], alike["metrics"]["latency_ratio"]) == (4, True, 1.0)
    assert alike["metrics"]["parameters"] == verdict["rows"][0]["metrics"]["parameters"]
    cost = verdict["rows"][-1]["test"]["top1"] - alike["test"]["top1"]
    bits = [np.unpackbits(np.frombuffer(b64decode(row["test_answers"]["right"]), np.uint8)) for row in verdict["rows"]]
    scores = np.array([*(bits[-1].astype(int) - bits[1])[:90], 1, -1])  # of the 90 images, and one more either way
    low, high = (100 * (scores.mean() + z * scores.std() / len(scores) ** 0.5) for z in (-1.959964, 1.959964))
    assert f"{cost:+.2f} [{low:+.2f}, {high:+.2f}] to the same after 4 epochs by the same recipe" in out
    assert f"[{low:+.2f}, {high:+.2f}]".replace("-", "\N{MINUS SIGN}") in Path("out/report.html").read_text()
    assert sum(verdict["endings"].values()) == 2
    session = results.run().sessions[0]
    assert session.versions["ray"] == "2.60.0"
    assert Path("out/experiment.py").read_text() == Path(file).read_text()
    assert Path("out/unpruned.onnx").stat().st_size > Path("out/best/model.onnx").stat().st_size
    chosen = verdict["chosen"]
    assert chosen is not None, out
    assert f"minimise latency_ratio where macs < unpruned: trial_{chosen:04d}, " in out
    assert results.identity()["target"] == "minimise latency_ratio where macs < unpruned"
    best = verdict["rows"][-1]
    assert best["device_test_top1"] == pytest.approx(best["test"]["top1"], abs=2)
    step = next_steps(results, results.run(), {f"trial_{chosen:04d}": "the best"}, "")[0]
    assert export.main(shlex.split(step.command or "")[3:]) == 0
    Path(f"out-trial_{chosen:04d}").rename("copy")
    written = {file.name: file.read_bytes() for file in Path("out/best").iterdir()}
    copied = {file.name: file.read_bytes() for file in Path("copy").iterdir()}
    named = f'"name": "trial_{chosen:04d}"'.encode(), f'"name": "best: trial_{chosen:04d}"'.encode()
    copied["metrics.json"] = copied["metrics.json"].replace(*named)
    assert copied.keys() == written.keys()
    for name in copied.keys() - {"model.xml"}:  # OpenVINO numbers constants by what else its process has read
        assert copied[name] == written[name], name
    boards = {run.name for run in Path("out/tensorboard").iterdir()}
    assert boards == {"00_unpruned", "01_half", "02_unpruned_retrained", "study", "trial_0003", "trial_0004"}
    network = load_network("out/best", trust_model=True)
    dataset = datasets.load(et.Data("images", image_size=16), seed=0)
    assert evaluate(network, dataset.test).top1 == best["test"]["top1"]
    ((images, _),) = dataset.test.batches(len(dataset.test))
    compiled = openvino.Core().compile_model("out/best/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        expected = network(images[:1]).numpy()
    np.testing.assert_allclose(compiled(images[:1].numpy())[0], expected, rtol=1e-3, atol=1e-4)
    assert "| network " in out
    assert "Best network: out/best" in out
    assert "tensorboard --logdir out/tensorboard" in out
    assert "Report, for a browser: out/report.html" in out
    assert Path("out/report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_run_searches_a_network_for_images_that_are_no_squares(capsys: pytest.CaptureFixture[str]) -> None:
    """By the size and the normalisation of the user's own images, on the device, as stored and as exported."""
    write_image_folder(Path("images"), classes=("bird", "cat", "dog"), images=30, size=24, width=16)
    file = write(
        'dataset=et.Data("images", validation_fraction=0.4, mean=[0.5] * 3, std=[0.25] * 3, '
        'augmentation=["resized_crop", "flip"]), '
        "benchmark=et.Benchmark(runs=20), retraining=et.Retraining(epochs=1, lr=0.05, batch_size=8), "
        "training=et.Retraining(epochs=4, lr=0.05, batch_size=8)"
    )
    words = [file, "--image-size=native", "--trials=1", "--results=out"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("Images: images, 3 classes (bird, cat, dog); 54 to train, 36 to validate, 90 to test; 24x16")
    assert (
        " pixels; normalised by mean (0.5, 0.5, 0.5) and std (0.25, 0.25, 0.25); resized crops, half of them mir" in out
    )
    plan = json.loads(Path("out/best/plan.json").read_text())
    described = {"num_classes": 3, "input_shape": [3, 24, 16], "mean": [0.5] * 3, "std": [0.25] * 3}
    assert {name: plan[name] for name in described} == described
    assert load_network("out/best", trust_model=True)(torch.zeros(2, 3, 24, 16)).shape == (2, 3)
    assert export.main(["out", "unpruned", "copy", "--trust-model"]) == 0
    assert json.loads(Path("copy/plan.json").read_text()) == {**plan, "plan": []}
    assert openvino.Core().read_model("copy/model.onnx").input(0).shape == [1, 3, 24, 16]

    assert main([*words, "--resume"]) == 0
    capsys.readouterr()
    assert main([file, "--image-size=16x24", "--trials=1", "--results=out", "--resume"]) == 2
    assert "must be the one that was started, but got another dataset" in capsys.readouterr().err


@pytest.mark.slow
def test_run_interrupted_and_resumed_ends_like_one_that_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C after the second trial: its records stay, --resume adds the rest, no trial runs twice."""
    file = write("search=et.Search('hyperopt', trials=4, seed=1), retraining=et.Retraining(epochs=0, lr=0.1)")
    process = command(file, "--results", "cut", "--keep-weights", "best")
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("[2/5"):
            os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
            break
    rest, err = finish(process)
    out = "".join(seen) + rest
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    expected = r"Interrupted: \d of 5 trials (is|are) recorded in cut\.\nTo resume: .*--results=cut --resume\n"
    assert re.fullmatch(expected, err), err
    before = Path("cut/trials.jsonl").read_text()

    # From here on in this process, which has already imported all that it needs.
    assert main([file, "--results", "cut", "--resume", "--trials", "5", "--keep-weights", "best"]) == 0
    assert Path("cut/trials.jsonl").read_text().startswith(before)
    assert main([file, "--results", "whole"]) == 0
    assert [record.trial for record in ended("cut")] == [2, 3, 4, 5, 6]
    assert [record.point for record in ended("cut")[:4]] == [record.point for record in ended("whole")]
    assert [record.metrics for record in ended("cut")[:4]] == [record.metrics for record in ended("whole")]

    capsys.readouterr()
    assert main([file, "--results", "cut", "--resume", "--trials", "2"]) == 0
    assert "0 of 6 trials to run" in capsys.readouterr().out
    assert main([file, "--results", "cut", "--resume", "--simulate=0"]) == 2
    assert "cut: holds a real study, which must be resumed without --simulate" in capsys.readouterr().err
    Path("cut/networks/half.pt").unlink()
    assert main([file, "--results", "cut", "--resume"]) == 2
    assert capsys.readouterr().err.startswith(
        "cut/networks/half.pt: must hold the weights of half, whose record is kept"
    )


@pytest.mark.slow
def test_run_interrupted_within_a_trial_goes_on_to_the_very_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """Distillation, an average of the weights and a warm-up: all of it is in the checkpoint of an epoch."""
    recipe = (
        "et.Retraining(epochs=25, lr=0.1, batch_size=32, precision='f32', decay=et.Cosine(), warmup_epochs=3, "
        "distillation=et.Distillation(), average=et.Ema(0.95))"
    )
    search = "et.Search('random', trials=1, max_concurrent_trials=1)"
    file = write(f"search={search}, baselines={{}}, retraining={recipe}")
    process = command(file, "--results", "cut")
    deadline = time.monotonic() + 200
    while not list(Path("cut").glob("checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = finish(process)
    assert process.returncode == 130, out + err
    assert len(Results(Path("cut")).unfinished()) == 1, out
    assert main([file, "--results", "cut", "--resume"]) == 0
    assert re.search(r"1 under way, to be run again, 1 of them from their last epoch", capsys.readouterr().out)
    assert main([file, "--results", "whole"]) == 0
    cut, whole = (Results(Path(folder)).baselines()[-1] for folder in ("cut", "whole"))
    assert cut.name == "unpruned_retrained"  # it comes first, and so was interrupted
    (trial,), (undisturbed,) = ended("cut"), ended("whole")
    assert trial.metrics == undisturbed.metrics
    assert [(one.lr, one.train_loss, one.metrics) for one in cut.curve] == [
        (one.lr, one.train_loss, one.metrics) for one in whole.curve
    ]
    kept = [torch.load(f"{folder}/networks/{cut.name}.pt", weights_only=True) for folder in ("cut", "whole")]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())
    assert cut.curve[-1].train_loss < cut.curve[0].train_loss


@pytest.mark.slow
def test_run_gives_weights_of_other_classes_a_new_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    """From weights of digits with a made-up classifier of 1000 classes to a study, resumed and simulated."""
    one = make(training=et.Retraining(epochs=30, lr=0.1, decay=et.Cosine(), batch_size=32))
    weights = training.trained_weights(one, datasets.load(one.data, seed=0), lambda line: None)
    made_up = {name: torch.randn(1000, *value.shape[1:]) for name, value in weights.items() if name.startswith("fc.")}
    torch.save({**weights, **made_up}, "thousand.pt")
    file = write("weights='thousand.pt', training=et.Retraining(epochs=1, lr=0.01, batch_size=32)")
    line = (
        "weights: 1000 classes, the data has 10: a new classifier (fc.weight, fc.bias) is trained, first alone, then "
        "with the whole network.\n"
    )
    assert main([file, "--simulate=0", "--results", "simulated", "--trials=1"]) == 0
    simulated = capsys.readouterr().out
    assert f"simulated: {line}" in simulated
    assert "new classifier alone" not in simulated
    assert main([file, "--results", "out", "--trials=1"]) == 0
    first = capsys.readouterr().out
    assert line in first
    assert first.index("the new classifier alone") < first.index("  epoch 1/1: ") < first.index("Unpruned weights: ")
    assert main([file, "--results", "out", "--trials=2", "--resume"]) == 0
    again = capsys.readouterr().out
    assert line in again
    assert "the new classifier alone" not in again
    unpruned, *_ = Results(Path("out")).baselines()
    assert [record.status for record in ended("out")] == ["finished", "finished"]
    assert unpruned.metrics["top1"] > 60
    best = load_network("out/best", trust_model=True)
    assert best(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_run_searches_nothing_for_a_network_that_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(small(10).state_dict(), "untrained.pt")
    assert main([write(), "--weights", "untrained.pt", "--results", "out"]) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert re.match(r"the unpruned network must do better than guessing, but got: .*143 .*Check that the weights", line)
    assert "trials to run" not in output.out
    assert not Path("out").exists()  # the mended weights are another study's


@pytest.mark.parametrize("lr", ["1e20", "3e3"])  # the loss is no number; it is one, but the weights are none
def test_run_ends_as_train_does_when_training_diverges(lr: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(f"training=et.Retraining(epochs=1, lr={lr}, batch_size=32, precision='f32')")
    assert train.main([file]) == 1
    sentence = capsys.readouterr().err
    assert re.search(r"^(epoch 1: the training loss|after epoch 1: the trained weights) must be finite", sentence)
    assert main([file, "--results", "out"]) == 1
    assert capsys.readouterr().err == sentence
    assert not Path("out").exists()  # another recipe is another study's


def test_run_goes_on_when_a_trial_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate that diverges fails each trial; each leaves a record with its reason, and so ends the command."""
    file = write("retraining=et.Retraining(epochs=1, lr=1e20, batch_size=32, precision='f32')")
    assert main([file, "--trials", "2", "--results", "out"]) == 1
    out, err = capsys.readouterr()
    assert [record.status for record in ended("out")] == ["failed", "failed"]
    assert all("RetrainingError: epoch 1: the training loss must be finite" in (r.reason or "") for r in ended("out"))
    assert "No trial finished better than chance" in out
    assert re.search(r"\n2 failed: RetrainingError: epoch 1: the training loss must be finite.*\n", out)
    assert err.startswith("All trials of the search failed (2), so that there is no network to choose.")
    assert Path("out/report.html").is_file()


@pytest.mark.slow
def test_run_goes_on_past_rates_that_no_network_survives(capsys: pytest.CaptureFixture[str]) -> None:
    """The half of all rates diverges, and two failures end a study: of a search of rates they do not."""
    recipe = "et.Retraining(epochs=1, lr=et.Choice([0.05, 1e20]), batch_size=32, precision='f32')"
    search = "et.Search('random', trials=6, seed=0, max_failed_trials=2, max_concurrent_trials=1)"
    known = "{'half': {'first': 0.5, 'second': 0.5, 'retraining.lr': 0.05}}"
    assert main([write(f"retraining={recipe}, search={search}, baselines={known}"), "--results", "out"]) == 0
    tried = [one for one in ended("out") if one.same_as is None]
    by_rate = {rate: [one for one in tried if one.point["retraining.lr"] == rate] for rate in (0.05, 1e20)}
    assert len(by_rate[0.05]) + len(by_rate[1e20]) == 6
    assert len(by_rate[1e20]) > 2
    assert {one.status for one in by_rate[0.05]} == {"finished"}
    for one in by_rate[1e20]:
        assert one.status == "failed"
        assert one.reason == (
            "RetrainingError: epoch 1: the training loss must be finite, but got nan at lr 1e+20; lower the learning "
            "rate."
        )
    assert f"{len(by_rate[1e20])} failed: RetrainingError: epoch 1" in capsys.readouterr().out


def test_run_ends_a_study_whose_trials_fail(capsys: pytest.CaptureFixture[str]) -> None:
    file = write("retraining=et.Retraining(epochs=1, lr=1e20, batch_size=32, precision='f32')")
    assert main([file, "--trials", "9", "--max-failed-trials", "2", "--results", "out"]) == 1
    err = capsys.readouterr().err
    assert re.search(r"^2 of 11 trials are recorded in out\. The study was ended: 2 trials failed, .* at 2: ", err)
    for name in ("half", "unpruned_retrained"):  # at once, so either may fail first
        assert f" {name}: RetrainingError: epoch 1: the training loss must be finite" in err
    assert re.search(r"\nTo resume when this is mended: .* --max-failed-trials=2 --results=out --resume\n$", err)


@pytest.mark.legacy_openvino
def test_run_measures_under_the_interpreter_it_is_given() -> None:
    file = write("retraining=et.Retraining(epochs=0, lr=0.1), benchmark=et.Benchmark(runs=20)")
    process = command(file, "--trials", "1", "--results", "out", "--device-python", str(ROOT / ".venv-ncs/bin/python"))
    out, err = finish(process)
    assert process.returncode == 0, out + err
    (session,) = Results(Path("out")).run().sessions
    assert session.device.runtime_version.startswith("2021.4.2")
    assert all(record.measurements["pruned"].runtime_version.startswith("2021.4.2") for record in ended("out"))
