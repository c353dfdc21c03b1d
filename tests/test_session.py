from pathlib import Path

import pytest
import torch

import edge_tune as et
from edge_tune import session, study
from edge_tune.errors import ExperimentError
from edge_tune.results import Results
from tests.devices import Formula
from tests.networks import experiment, small


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))


def work(one: et.Experiment) -> session._Pruning:
    loaded = study.load(one)
    return session._Pruning(study.prepare(loaded, lambda _: None), loaded.dataset)


def test_unpruned_network_that_guesses_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(small(10).state_dict(), tmp_path / "untrained.pt")
    given = experiment(weights=str(tmp_path / "untrained.pt"))
    trained = experiment(training=et.Retraining(epochs=1, lr=1e-9))
    for one, remedy in (
        (given, r"Check that the weights are of this network, for these classes in this order, .* std \(0\.229, "),
        (trained, r"It was trained for 1 epoch from lr 1e-09: train it longer, .*training=et\.Retraining\(\.\.\.\)"),
    ):
        guesses = r"the unpruned network must do better than guessing, but got: .*143 (validation )?images.*\. "
        with pytest.raises(ExperimentError, match=guesses + remedy):
            session._unpruned(work(one), Results(tmp_path / "new"), Formula())


def test_unpruned_network_that_has_learned_is_measured_once(tmp_path: Path) -> None:
    results, device = Results(tmp_path / "out"), Formula()
    report = session._unpruned(work(experiment()), results, device)
    assert report is not None
    assert (report.record.name, report.record.status, len(device.asked)) == ("unpruned", "finished", 1)
    results.create()
    results.add(report.record)
    assert session._unpruned(work(experiment()), results, device) is None
    assert len(device.asked) == 1
