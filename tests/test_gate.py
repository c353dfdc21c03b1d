"""A trial that cannot become the best is not trained: said of single records, then in a study and its resumption."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_tune.objective_text import parse
from edge_tune.records.endings import GATE
from edge_tune.records.entries import Evidence, Ratio, Ratios, Reference, TimeSummary
from edge_tune.records.ranking import epochs_saved
from edge_tune.records.results import Record, Report, Results
from edge_tune.records.scoring import Scorer
from edge_tune.run import main
from edge_tune.search.gate import Gate
from edge_tune.search.rules import Rules
from edge_tune.search.stopping import StudyLimits
from edge_tune.search.trainable import as_result
from edge_tune.search.tune import Recorder
from tests.searching import searching, study
from tests.test_search import Heard

CONDITION = "minimise latency_ratio where top1 >= unpruned - 2"


def record(trial: int, ratio: float, top1: float, *, noise: float = 0.01, ms: float = 4.0, **changes: object) -> Record:
    """A trial whose unpruned network took `ms` in the same turns."""
    evidence = Evidence(
        ratios=Ratios(latency_ratio=Ratio(ratio, ratio - noise, ratio + noise)),
        reference=Reference(latency=TimeSummary(median=ms)),
    )
    metrics = {"latency_ratio": ratio, "latency_ms": ratio * ms, "top1": top1, "parameters": round(1e6 * ratio)}
    parts = {"trial": trial, "status": "finished", "metrics": metrics, "pruned": metrics}
    return Record(**{**parts, "measurements": {"pruned": evidence}, **changes})  # type: ignore[arg-type]


UNPRUNED = record(0, 1.0, 90.0, baseline="unpruned")
BEST = record(2, 0.5, 89.0)
SLOWER = record(3, 0.53, 95.0, status="running")


def test_a_network_slower_than_the_best_beyond_the_noise_is_not_trained_and_both_figures_are_told() -> None:
    gate = Gate(parse(CONDITION), [UNPRUNED, BEST])
    assert gate.why(SLOWER) == (
        "gate: latency_ratio 0.53 [0.52, 0.54] is above the latency_ratio 0.5 [0.49, 0.51] of trial_0002, which meets "
        "the conditions, and training does not change that"
    )
    assert gate.why(record(3, 0.51, 10.0, status="running")) is None  # the intervals overlap
    assert gate.why(record(3, 0.53, 10.0, noise=0.03, status="running")) is None
    assert gate.why(record(3, 0.40, 10.0, status="running")) is None


def test_what_cannot_be_chosen_ends_no_other_trial_and_a_baseline_is_never_ended() -> None:
    for other in (
        replace(BEST, baseline="half"),
        replace(BEST, status="stopped", stopped_by="asha"),
        replace(BEST, collapsed="one class"),
        record(2, 0.5, 87.9),  # misses the condition
    ):
        assert Gate(parse(CONDITION), [UNPRUNED, other]).why(SLOWER) is None
    assert Gate(parse(CONDITION), [UNPRUNED, BEST]).why(replace(SLOWER, baseline="half")) is None
    assert Gate(parse(CONDITION), [BEST]).why(SLOWER) is None  # who knows what the unpruned network reaches


def test_the_best_is_as_slow_as_the_slower_of_its_measurements() -> None:
    slow = record(2, 0.6, 89.0).measurements["pruned"]
    best = replace(BEST, measurements={"pruned": slow, "retrained": BEST.measurements["pruned"]})
    assert Gate(parse(CONDITION), [UNPRUNED, best]).why(SLOWER) is None


@pytest.mark.parametrize(
    "target", ["minimise latency_ratio", "maximise top1 where latency_ratio <= 0.6", "1 * latency_ratio + 1 * top1"]
)
def test_no_network_is_ended_for_being_slow_where_speed_alone_does_not_decide(target: str) -> None:
    assert Gate(parse(target), [UNPRUNED, BEST]).why(SLOWER) is None


def test_a_network_that_breaks_a_condition_on_latency_or_size_is_not_trained() -> None:
    gate = Gate(parse("maximise top1 where latency_ratio <= 0.5 and parameters < 520000"), [UNPRUNED])
    assert gate.why(SLOWER) == (
        "gate: latency_ratio 0.53 [0.52, 0.54] must hold latency_ratio <= 0.5, and training does not change that"
    )
    assert gate.why(record(3, 0.505, 10.0, status="running")) is None
    large = record(3, 0.5, 10.0, status="running")
    large = replace(large, metrics={**large.metrics, "parameters": 520000})
    assert gate.why(large) == "gate: parameters 520000 must hold parameters < 520000, and training does not change that"


def test_milliseconds_are_compared_by_their_ratios_and_judged_at_the_fastest_moment_of_the_host() -> None:
    gate = Gate(parse("minimise latency_ms where top1 >= 88"), [UNPRUNED, BEST])
    assert gate.why(record(3, 0.4, 90.0, ms=9.0, status="running")) is None  # 3.6 ms, but it is the faster network
    assert gate.why(record(3, 0.6, 90.0, ms=2.0, status="running")) is not None  # 1.2 ms, but it is the slower one
    limit = Gate(parse("maximise top1 where latency_ms <= 2"), [UNPRUNED])
    assert limit.why(record(3, 0.5, 90.0, ms=9.0, status="running")) is None  # 4.5 ms now, 2 when the host was fast
    assert limit.why(record(3, 0.6, 90.0, ms=9.0, status="running")) is not None


def test_gated_trials_lie_between_those_that_may_be_best_and_those_that_break_a_condition() -> None:
    gated = {"status": "stopped", "stopped_by": GATE}
    scorer = Scorer(parse(f"{CONDITION} and parameters <= 700000"), [UNPRUNED])
    order = [
        record(1, 0.5, 89.0),
        record(2, 0.69, 89.0),
        record(3, 0.6, 10.0, **gated),
        record(4, 0.65, 90.0, **gated),
        record(5, 0.8, 90.0, **gated),  # breaks a condition, and nobody knows whether the other one too
        record(6, 0.5, 60.0),
        record(7, 0.4, 60.0, status="stopped", stopped_by="hopeless"),
    ]
    scores = [scorer.score(one) for one in order]
    assert [score.rank for score in scores] == [0, 0, 1, 1, 2, 2, 3]
    assert scores == sorted(scores)
    for_search = [score.for_search for score in scores]
    assert for_search == sorted(set(for_search))


class Hearing(Heard):
    """Keeps the records of trials that ended."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def on_report(self, record: Record, checkpoint: bytes | None) -> None:  # type: ignore[override]
        assert record.status == "running"

    def on_end(self, record: Record, weights: bytes | None) -> None:
        self.records.append(record)


def test_trial_that_is_ended_leaves_a_record_with_the_rule_and_the_reason() -> None:
    one = study(target="minimise latency_ratio where top1 >= 80", baselines={})
    rules, heard, searcher = Rules(one), Hearing(), searching(one)
    recorder = Recorder(one, searcher, rules, StudyLimits(None, 10), heard)
    stops = []
    for name, ratio, top1 in (("a", 0.5, 70.0), ("b", 0.6, 90.0), ("c", 0.7, 90.0), ("d", 0.55, 90.0)):
        config: Any = searcher.suggest(name)
        trial: Any = SimpleNamespace(trial_id=name, config=config)
        begun = record(config["trial"], ratio, top1, status="running", point=config["point"])
        for report in (begun, replace(begun, status="finished", epoch=1)):
            result = as_result(Report(report))
            stops.append(rules.gate(name, result))
            recorder.on_trial_result(1, [trial], trial, result)
            if stops[-1]:
                break
        recorder.on_trial_complete(1, [trial], trial)
    assert stops == [False, False, False, False, True, False, False]  # the third is slower than the second
    assert [(one.status, one.stopped_by, one.epoch) for one in heard.records] == [
        ("finished", None, 1),
        ("finished", None, 1),
        ("stopped", GATE, 0),
        ("finished", None, 1),
    ]
    assert str(heard.records[2].reason).startswith(
        "gate: latency_ratio 0.7 [0.69, 0.71] is above the latency_ratio 0.6"
    )
    assert epochs_saved(heard.records, 1) == 1


FILE = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    target="minimise latency_ratio where top1 >= 75",
    retraining=et.Retraining(epochs=3, lr=0.05),
    search=et.Search("hyperopt", trials=14, seed=1, max_concurrent_trials=1),
)
"""


def ends(folder: Path) -> list[tuple[object, ...]]:
    return [
        (one.trial, one.stopped_by, one.reason, one.epoch, dict(one.point), dict(one.metrics))
        for one in Results(folder).trials()
    ]


@pytest.mark.slow
def test_study_trains_nothing_that_cannot_become_the_best_and_goes_on_so_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("study.py").write_text(FILE)
    assert main(["study.py", "--simulate=0", "--results=whole"]) == 0
    out = capsys.readouterr().out
    best, gated = float("inf"), 0
    for one in Results(Path("whole")).trials():  # in the order in which they ran
        ratio = one.metrics["latency_ratio"]  # a formula has no noise
        assert (one.stopped_by == GATE) == (ratio > best)
        assert one.epoch == (0 if one.stopped_by == GATE else 3)
        gated += one.stopped_by == GATE
        if one.status == "finished" and one.metrics["top1"] >= 75:
            best = min(best, ratio)
    assert 3 <= gated <= 12
    saved = f"Another {gated} were not trained, or no further, since they could not become the best, whatever training "
    assert f"{saved}did: {3 * gated} epochs of retraining saved." in out
    shutil.copytree("whole", "half")
    for name, lines in (("trials", 6), ("started", 8)):  # a baseline and seven trials began
        file = Path("half", f"{name}.jsonl")
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))
    assert main(["study.py", "--simulate=0", "--results=half", "--resume"]) == 0
    assert ends(Path("half")) == ends(Path("whole"))
