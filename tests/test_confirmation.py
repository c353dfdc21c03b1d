"""Studies on a device that is busy at the wrong moment: what is named the best is measured again before."""

import json
import re
import sys
from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.loading import load_experiment
from edge_tune.networks.stored import load_network
from edge_tune.records.entries import CONFIRMED
from edge_tune.records.ranking import Standing, eligible, without_repeats
from edge_tune.records.results import Confirmed, Record, Results
from edge_tune.run import main
from edge_tune.search.confirmation import confirm, last_time
from tests.devices import Formula
from tests.doubles import HONEST
from tests.networks import experiment

FILE = """
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

def removing(label, *filters):  # of 8; so few that a network that was trained for a while is better than chance
    return et.PrunerGroup("filters", BLOCKS[label].weights, sparsity=et.Choice([count / 8 for count in filters]))


experiment = make(
    pruner_groups={"first": removing("first", 1, 2), "second": removing("second", 3, 2, 1)},
    baselines={"known": {"first": 0.25, "second": 0.375}},
    target="minimise latency_ratio where macs < unpruned",
    training=et.Retraining(epochs=12, lr=0.1, batch_size=32, precision="f32"),
    retraining=et.Retraining(epochs=0, lr=0.1),
    benchmark=et.Benchmark(python="./device", runs=20, max_s=0.2),
    search=et.Search("grid", trials=3, max_concurrent_trials=1),
)
"""

DEVICE = """
    if Path({unplugged!r}).exists():
        os._exit(1)
    if command == "begin":
        begun = globals().get("begun", 0) + 1
        if begun == {unplugged_at}:
            Path({unplugged!r}).touch()
        sizes = [os.path.getsize(path) for path in request["networks"]]
        jitter = 1 + 0.002 * (begun**2 % 7)
        ms = sizes[0] / sizes[-1] * jitter * (0.4 if begun == {disturbed} else 1)
    elif command == "rounds":
        answer["taken_ms"] = [[[[ms, ms]] * length, [[1.0, 1.0]] * length][:count] for _ in answer["taken_ms"]]
    elif command == "read":
        for network, us in zip(answer["networks"], (round(450 * ms), 450)):
            np.save(network["readings_us"], np.full_like(np.load(network["readings_us"]), us))
"""
"""The smaller a network, the faster; but in one measurement all of it seems to be, and from another on it is gone."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def write_device(disturbed: int = 0, unplugged_at: int = 0) -> Path:
    """Write what is started in place of an interpreter. Returns the file that is there when the device is not."""
    unplugged = Path("unplugged").absolute()
    lie = DEVICE.format(unplugged=str(unplugged), unplugged_at=unplugged_at, disturbed=disturbed)
    Path("device").write_text(f"#!{sys.executable}\n{HONEST.format(lie=lie.strip())}")
    Path("device").chmod(0o755)
    return unplugged


def trials() -> list[Record]:
    return Results(Path("out")).trials()


def confirmed() -> set[int]:
    return {record.trial for record in without_repeats(trials()) if record.confirmed}


def smallest() -> set[int]:
    """The trials that are the fastest in truth: those with the fewest parameters."""
    able = eligible(trials())
    least = min(record.metrics["parameters"] for record in able)
    return {record.trial for record in able if record.metrics["parameters"] == least}


def weights() -> set[str]:
    return {file.stem for file in Path("out/networks").iterdir()}


@pytest.mark.slow
def test_a_lucky_trial_is_measured_again_before_it_is_named_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    """The third measurement after the unpruned network's is lucky; the device is lost while it is measured again."""
    Path("study.py").write_text(FILE)
    unplugged = write_device(disturbed=4, unplugged_at=8)  # unpruned, known, three trials; then the rounds
    options = ["study.py", "--results=out", "--keep-weights=best"]
    assert main(options) == 1
    assert "Measuring again, in turns, what may be the best (trial_0003), and known: 3" in capsys.readouterr().out
    lucky, *others = sorted(eligible(trials()), key=lambda record: record.metrics["latency_ratio"])
    assert lucky.trial == 3
    assert lucky.metrics["latency_ratio"] < min(record.metrics["latency_ratio"] for record in others)
    assert smallest().isdisjoint({lucky.trial})
    assert not confirmed()
    assert weights() == {"unpruned", "known", *(record.name for record in eligible(trials()))}

    unplugged.unlink()
    write_device()
    before = Path("out/trials.jsonl").read_text()
    assert main([*options, "--resume"]) == 0
    out = capsys.readouterr().out
    (best,) = smallest()
    assert f"The best is trial_{best:04d}, no longer trial_0003." in out
    assert Path("out/trials.jsonl").read_text().startswith(before)
    assert confirmed() == {lucky.trial, best}
    assert weights() == {"unpruned", "known", f"trial_{best:04d}"}
    again = next(record for record in trials() if record.trial == lucky.trial)
    evidence = again.measurements[CONFIRMED]
    assert len(evidence.repetitions or ()) == 3
    assert again.metrics["latency_ratio"] == evidence.intervals["latency_ratio"].ratio
    assert again.metrics["latency_ratio"] == pytest.approx(lucky.metrics["latency_ratio"] / 0.4, rel=0.02)
    assert sum(layer.ms for layer in again.layers) == pytest.approx(again.metrics["latency_ms"], rel=1e-4)
    assert again.pruned == lucky.pruned
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["chosen"] == best
    assert summary["rows"][-1]["metrics"] == next(record.metrics for record in trials() if record.trial == best)
    said = f"Measured again at the end, in turns with each other: known, trial_{best:04d}, trial_0003. "
    assert said in out
    assert said in Path("out/report.html").read_text()
    parameters = sum(value.numel() for value in load_network("out/best", trust_model=True).parameters())
    assert parameters == summary["rows"][-1]["metrics"]["parameters"]

    one, results = load_experiment(Path("study.py")), Results(Path("out"))
    standing = Standing(one.objective, [*results.baselines(), *trials()], "best", last_time(one, trials()))
    assert confirm(standing, results, Formula(fails_from=1), print) == []  # it is not confirmed twice

    assert main([*options, "--resume", "--trials=5"]) == 0  # one of which is as small as the best
    out = capsys.readouterr().out
    assert len(smallest()) == 2
    (names,) = re.findall(r"Measuring again, in turns, what may be the best \((.*)\), and known", out)
    assert {int(name.removeprefix("trial_")) for name in names.split(", ")} == smallest()
    (named,) = re.findall(r"The best is trial_(\d+)", out)
    assert int(named) in smallest()
    assert confirmed() == {lucky.trial, *smallest()}
    assert weights() == {"unpruned", "known", f"trial_{named}"}


def test_last_time_is_none_where_nothing_is_to_be_measured_again() -> None:
    latency: dict[str, object] = {"target": et.Minimise("total_latency_ms"), "benchmark": et.Benchmark()}
    again = Record(trial=2, confirmed=Confirmed("minimise total_latency_ms", "2026-11-27T11:00:00"))
    assert last_time(experiment(**latency), [Record(trial=3)]) == ""
    assert last_time(experiment(**latency), [Record(trial=3), again]) == "2026-11-27T11:00:00"
    assert last_time(experiment(**{**latency, "target": "maximise top1 where latency_ratio < 0.5"}), []) == ""
    for changes in (
        {"target": et.Maximise("top1")},
        {"target": "front of latency_ratio and top1"},
        {"benchmark": et.Benchmark(device="fake")},
    ):
        assert last_time(experiment(**{**latency, **changes}), [again]) is None
