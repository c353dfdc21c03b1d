import traceback
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError

import edge_tune as et
from edge_tune.errors import BenchmarkError, RetrainingError
from edge_tune.records.results import Record, Report
from edge_tune.search import trainable
from edge_tune.search.rules import Rules
from edge_tune.search.stopping import StudyLimits
from edge_tune.search.tune import Recorder
from tests.asked import asked
from tests.networks import experiment
from tests.searching import finished, searching, study


class Heard:
    """A listener that keeps what became of each trial."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def on_start(self, trial: int, point: Mapping[str, Any], expected: object) -> None:
        raise AssertionError("nothing starts here")

    on_report = on_start
    on_wait = on_start
    on_repeat = on_start

    def on_note(self, note: str) -> None:
        """Take no note."""

    def on_step(self) -> None:
        """Take no note."""

    def on_lost(self, trial: int, reason: str) -> None:
        self.ends.append("lost")

    def on_end(self, record: Record, weights: bytes | None) -> None:
        assert record.ended_at  # a trial's own last report need not be its end
        self.ends.append(f"{record.status}: {record.reason}")


LOST = ObjectLostError("ab", None, "")
NO_STICK = BenchmarkError("no stick.")


def raised(cause: Exception) -> RayTaskError:
    """What Ray makes of an exception in an actor."""
    return RayTaskError("step", "\n".join(["ray::step()", *traceback.format_exception(cause)]), cause)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ActorDiedError(), "lost"),
        (raised(LOST), "lost"),
        (raised(NO_STICK), "failed: BenchmarkError: no stick."),
        (ActorDiedError(raised(LOST)), "lost"),
        (ActorDiedError(raised(NO_STICK)), "failed: edge_tune.errors.BenchmarkError: no stick."),
    ],
)
def test_what_ray_lost_is_run_again_and_what_a_trial_raised_is_its_end(
    error: Exception, end: str, tmp_path: Path
) -> None:
    one, heard = study(), Heard()
    searcher = searching(one)
    config = searcher.suggest("ray")
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    trial: Any = SimpleNamespace(trial_id="ray", config=config, pickled_error_file=str(tmp_path / "error.pkl"))
    Recorder(one, searcher, Rules(one), StudyLimits(None, 10), heard).on_trial_error(1, [trial], trial)
    assert heard.ends == [end]
    following = searcher.suggest("next")
    assert isinstance(following, dict)
    assert (following["trial"], following["attempt"]) == ((1, 2) if end == "lost" else (2, 1))


@pytest.mark.parametrize(("searched", "counted"), [(True, 1), (False, 3)])
def test_trials_that_diverge_end_no_study_whose_recipe_is_searched_once_another_was_retrained(
    searched: bool, counted: int, tmp_path: Path
) -> None:
    lr = et.LogUniform(0.01, 100.0) if searched else 0.1
    one, heard = study(baselines={}, retraining=et.Retraining(epochs=1, lr=lr)), Heard()
    searcher, limits = searching(one), StudyLimits(None, 10)
    recorder = Recorder(one, searcher, Rules(one), limits, heard)
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(raised(RetrainingError("the loss is nan."))))

    def fail() -> None:
        config = searcher.suggest("failing")
        trial: Any = SimpleNamespace(trial_id="failing", config=config, pickled_error_file=str(tmp_path / "error.pkl"))
        recorder.on_trial_error(1, [trial], trial)

    fail()  # who knows whether any rate survives
    config: Any = searcher.suggest("good")
    searcher.end(finished(config["trial"], config["point"], one, epoch=1))
    fail()
    fail()
    assert heard.ends == 3 * ["failed: RetrainingError: the loss is nan."]
    assert len(limits.failures) == counted


def test_trial_that_hangs_is_ended_by_the_time_of_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline, which no limit stops, may take longer than that in all."""
    seen: list[object] = []
    monkeypatch.setattr(trainable.faulthandler, "dump_traceback_later", lambda seconds, **_: seen.append(seconds))
    monkeypatch.setattr(trainable.faulthandler, "cancel_dump_traceback_later", lambda: seen.append("ended"))
    two = [Report(finished(trial, asked({"first": 0.1, "second": 0.1}), experiment())) for trial in (1, 2)]
    reports = iter(two)
    assert [trainable.next_report(reports, 10) for _ in two] == two
    assert seen == [80, "ended", 80, "ended"]
