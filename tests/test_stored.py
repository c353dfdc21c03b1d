import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import openvino
import pytest
import torch

from edge_tune import export
from edge_tune.errors import ExperimentError
from edge_tune.files import write_atomically
from edge_tune.networks import onnx_export, pruning, stored
from edge_tune.networks.stored import load_network
from edge_tune.records.entries import ONNX_RUNTIME, DeviceEntry, Session
from edge_tune.records.results import Record, Results
from edge_tune.records.verdict import Row, Verdict
from tests.asked import asked
from tests.networks import BLOCKS
from tests.studies import evidence
from tests.test_pruning import COUPLED, SHAPE, trained_small

ROOT = Path(__file__).parents[1]
PLAN = pruning.make_plan(trained_small(), BLOCKS, asked({"first": 0.5, "second": 0.25}), COUPLED)
METRICS = {"top1": 80.0, "latency_ms": 1.0, "latency_ratio": 0.5}
RATIO = {"ratio": 0.5, "low": 0.49, "high": 0.51}
MEASURED = {
    "pruned": evidence(ratios={"latency_ratio": {**RATIO, "ratio": 0.6}}),
    "retrained": evidence(ratios={"latency_ratio": RATIO}),
}
CHOSEN = Record(trial=4, status="finished", epoch=2, metrics=METRICS, plan=PLAN, measurements=MEASURED)
IMAGES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def study(folder: Path, device: str = "fake", test: float | None = None) -> Results:
    """A study of the small network, as far as it is read here: unpruned, one kept, one not, one stopped."""
    results = Results(folder)
    results.create()
    results.write_json(
        "run.json", {"form": 2, "identity": {"model": "tests.networks:small", "benchmark": {"device": device}}}
    )
    whole, pruned = trained_small(), pruning.prune(trained_small(), PLAN, COUPLED)
    write_atomically(folder / "unpruned.onnx", onnx_export.to_onnx(whole, SHAPE))
    unpruned = Record(trial=0, baseline="unpruned", status="finished", metrics=METRICS)
    stopped = Record(trial=6, status="stopped", reason="asha: behind")
    for record in (unpruned, CHOSEN, Record(trial=5, status="finished"), stopped):
        results.add(record)
    write_atomically(results.network_file(unpruned), stored.to_bytes(whole))
    write_atomically(results.network_file(CHOSEN), stored.to_bytes(pruned))
    if test:
        rows = [
            Row(name="not retrained", trial=4, metrics=METRICS, test={"top1": 1.0}),
            Row(name="2 epochs", trial=4, epoch=2, metrics=METRICS, test={"top1": test}, device_test_top1=7.5),
        ]
        results.write_json("summary.json", Verdict(rows=rows, chosen=4, better_in_both={}, endings={}))
    return results


@pytest.mark.parametrize("trial", ["4", "trial_0004"])
def test_export_writes_a_kept_network_that_loads_again(trial: str, tmp_path: Path) -> None:
    study(tmp_path / "study")
    assert export.main([str(tmp_path / "study"), trial, str(tmp_path / "deep" / "out"), "--trust-model"]) == 0
    files = {file.name for file in (tmp_path / "deep" / "out").iterdir()}
    assert files == {"plan.json", "weights.pt", "model.onnx", "metrics.json"}
    expected = pruning.prune(trained_small(), PLAN, COUPLED)(IMAGES)
    torch.testing.assert_close(
        load_network(tmp_path / "deep" / "out", trust_model=True)(IMAGES), expected, rtol=0, atol=0
    )


def test_a_folder_from_before_other_normalisations_loads_as_normalised_by_imagenets(tmp_path: Path) -> None:
    export.write_stored(study(tmp_path / "study"), "4", tmp_path / "out", trust_model=True)
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert (plan.pop("mean"), plan.pop("std")) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert stored.Description.from_entry(plan).mean == (0.485, 0.456, 0.406)


def test_export_converts_nothing_for_onnx_runtime_unless_an_interpreter_is_named(tmp_path: Path) -> None:
    results = study(tmp_path / "study", device="CPU")  # of an interpreter without OpenVINO
    session = Session(device=DeviceEntry(device="onnxruntime:CPU", runtime=ONNX_RUNTIME, runtime_version="1.32.0"))
    results.write_json("run.json", replace(results.run(), sessions=[session]))
    for name, python in (("plain", None), ("converted", sys.executable)):
        export.write_stored(results, "4", tmp_path / name, trust_model=True, device_python=python)
    assert not (tmp_path / "plain/model.xml").exists()
    assert (tmp_path / "plain/model.onnx").exists()
    assert (tmp_path / "converted/model.xml").exists()


def test_export_converts_with_openvino_where_the_study_had_a_device(tmp_path: Path) -> None:
    study(tmp_path / "study", device="CPU")
    assert export.main([str(tmp_path / "study"), "unpruned", str(tmp_path / "out"), "--trust-model"]) == 0
    compiled = openvino.Core().compile_model(tmp_path / "out/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        expected = trained_small()(IMAGES[:1])
    torch.testing.assert_close(torch.tensor(compiled(IMAGES[:1].numpy())[0]), expected, rtol=1e-3, atol=1e-4)


def test_export_says_what_was_recorded_of_the_network_as_it_is_kept(tmp_path: Path) -> None:
    export.write_stored(study(tmp_path / "a", test=88.0), "4", tmp_path / "tested", trust_model=True)
    export.write_stored(study(tmp_path / "b"), "4", tmp_path / "untested", trust_model=True)
    tested, untested = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("tested", "untested"))
    assert (tested["name"], tested["metrics"], tested["ratios"]) == ("trial_0004", METRICS, {"latency_ratio": RATIO})
    assert (tested["test"], tested["device_test_top1"]) == ({"top1": 88.0}, 7.5)
    assert tested["record"] == json.loads(CHOSEN.to_json())
    del tested["device_test_top1"]
    assert untested == {**tested, "test": {}}


@pytest.mark.parametrize(
    ("results", "trial", "folder", "problem"),
    [
        (
            "nowhere",
            "4",
            "out",
            "nowhere: must be the results folder of a study, but holds no run.json; give",
        ),
        ("study", "9", "out", "of one that has ended (unpruned to trial_0006), but got '9'."),
        (
            "study",
            "5",
            "out",
            "trial_0005: its weights must be among those kept in study/networks (trial_0004, unpruned)",
        ),
        ("study", "6", "out", "trial_0006: only a trial that finished has weights, but this one stopped: asha: behind"),
        ("study", "4", "study", "study: must be new or empty, but holds files; choose another folder."),
        ("study", "4", "file/out", "file/out: must be a folder that can be written, but got Not a directory; name"),
        ("bare", "4", "out", "bare/unpruned.onnx: must be there to tell the network's input and output, but is not."),
    ],
)
def test_export_refuses_in_a_sentence_and_leaves_nothing(
    results: str,
    trial: str,
    folder: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    study(Path("study"))
    study(Path("bare"))
    Path("bare/unpruned.onnx").unlink()
    Path("file").write_text("")
    assert export.main([results, trial, folder, "--trust-model"]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert problem in said.err
    assert not Path("out").exists()


def test_export_runs_no_interpreter_that_the_results_name(tmp_path: Path) -> None:
    results = study(tmp_path / "study")
    trap = tmp_path / "python"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    trap.chmod(0o755)
    benchmark = {"device": "MYRIAD", "python": str(trap)}
    results.write_json("run.json", {"form": 2, "identity": {"model": "tests.networks:small", "benchmark": benchmark}})
    assert export.main([str(results.folder), "4", str(tmp_path / "out"), "--trust-model"]) == 0
    assert (tmp_path / "out/model.xml").is_file()
    assert not (tmp_path / "ran").exists()


def test_export_refuses_an_interpreter_of_the_device_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(study(tmp_path / "study", device="CPU").folder)
    assert export.main([folder, "4", str(tmp_path / "out"), "--trust-model", "--device-python=gone/python"]) == 2
    assert "gone/python: the interpreter must start, but got" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_imports_a_module_only_when_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of a network is named by a file that somebody else may have written."""
    results = study(tmp_path / "study")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text(
        "from pathlib import Path\nfrom tests.networks import small\nPath('ran').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    results.write_json("run.json", {"form": 2, "identity": {"model": "trap:small", "benchmark": {"device": "fake"}}})
    expected = r"run.json: model 'trap:small' must be imported .* runs its code; add --trust-model if you trust whoever"
    with pytest.raises(ExperimentError, match=expected):
        export.write_stored(results, "4", tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    export.write_stored(results, "4", tmp_path / "out", trust_model=True)
    assert (tmp_path / "ran").exists()


def test_export_is_a_command_of_the_module_that_loads_networks(tmp_path: Path) -> None:
    study(tmp_path / "study")
    words = [
        sys.executable,
        "-m",
        "edge_tune.export",
        str(tmp_path / "study"),
        "unpruned",
        str(tmp_path / "out"),
        "--trust-model",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"unpruned: {tmp_path}/out holds metrics.json, model.onnx")


def test_export_says_what_a_copied_study_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path / "study")
    (tmp_path / "study" / "run.json").unlink()
    assert export.main([str(tmp_path / "study"), "4", str(tmp_path / "out")]) == 2
    assert "run.json: must be there beside the records of a study, but is not" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
