"""The networks of a real study, measured on another device than the study's."""

import json
from pathlib import Path

import pytest

import edge_tune.run as run
from edge_tune.benchmark import elsewhere
from edge_tune.benchmark.__main__ import main
from edge_tune.benchmark.elsewhere import Row
from edge_tune.records.entries import DeviceEntry, Ratio

STUDY = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    retraining=et.Retraining(epochs=1, lr=0.05, batch_size=32),
    search=et.Search("random", trials=2, seed=0),
    keep_weights="all",
)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    Path("study.py").write_text(STUDY)
    assert run.main(["study.py", "--results=out"]) == 0
    return "out"


@pytest.mark.slow
def test_networks_of_a_study_are_measured_on_another_device(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([study, "--max-s=0.3"]) == 2
    assert "must be imported" in capsys.readouterr().err
    assert main([study, "--max-s=0.3", "--trust-model", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert {row["name"] for row in found["rows"]} == {"half", "trial_0003", "trial_0004"}
    assert (found["there"]["device"], found["here"]["device"]) == ("fake", "CPU")
    assert -1 <= found["rank_correlation"] <= 1
    assert all(row["here"]["low"] <= row["here"]["ratio"] <= row["here"]["high"] for row in found["rows"])
    assert said.err.count(" of 3): ") == 3
    before = Path(study, "trials.jsonl").read_text()
    assert main([study, "--max-s=0.3", "--trust-model"]) == 0
    assert "Rank correlation of the ratios (Spearman): " in capsys.readouterr().out
    assert Path(study, "trials.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["."], "must be the results folder of a study"),
        ([".", "--reference=there.onnx"], "--reference is there.onnx; leave it out"),
        ([".", "--threads=0"], "threads must be"),
    ],
)
def test_what_is_no_study_is_refused(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_fronts_and_order_are_those_of_each_device() -> None:
    def row(name: str, top1: float, there: float, here: float) -> Row:
        ratios = [Ratio(one, one - 0.01, one + 0.01) for one in (there, here)]
        return Row(name=name, top1=top1, there=ratios[0], here=ratios[1], latency_ms=here)

    rows = elsewhere.with_fronts([row("a", 90, 0.9, 0.7), row("b", 85, 0.6, 0.8), row("c", 80, 0.5, 0.5)])
    assert [one.on_front_there for one in rows] == [True, True, True]
    assert [one.on_front_here for one in rows] == [True, False, True]
    assert elsewhere.rank_correlation(rows) == pytest.approx(0.5)  # 1 - 6 * (1 + 1 + 0) / (3 * 8)
    alike = elsewhere.with_fronts([row("a", 90, 0.9, 0.7), row("b", 85, 0.9, 0.8), row("c", 80, 0.9, 0.5)])
    assert elsewhere.rank_correlation(alike) is None
    device = DeviceEntry(device="CPU")
    noise = Ratio(1.0, 0.99, 1.01)
    found = elsewhere.Comparison(there=device, here=device, rows=alike, itself=noise, rank_correlation=None)
    *_, last = elsewhere.text(found)
    assert last.startswith(
        "On one of the two all ratios are equal: nothing is said of their order. Fronts on the two: c is"
    )
    assert elsewhere.rank_correlation(rows[:2]) is None
