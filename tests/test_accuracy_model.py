"""What accuracy is expected of pruned networks: of real ones first, then of made-up ones."""

import warnings

import numpy as np
import pytest

from benchmarks import accuracy
from edge_tune.search.accuracy_model import AccuracyModel


@pytest.mark.parametrize("seed", [0, 1])
def test_six_real_trials_tell_the_others_better_than_a_process_alone(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        trials = accuracy.resnet56(seed)
        error, order, inside = accuracy.judged(trials, 6, accuracy.by_trends)
        other, its_order, _ = accuracy.judged(trials, 6, accuracy.by_process)
    assert error < 1.2 < other
    assert order > 0.8 > its_order
    assert inside > 0.5


def test_loss_follows_what_goes_and_nothing_gone_loses_nothing() -> None:
    gone = np.random.default_rng(0).uniform(0, 0.9, (20, 2))
    trends = gone ** np.array([3, 2])
    figures = 90 - np.exp(-1 + trends @ np.array([3.0, 1.0]))
    model = AccuracyModel(1 - gone, trends, figures, 90.0)
    asked = np.array([[0.0, 0.0], [0.5, 0.5], [0.9, 0.9]])
    mean, deviation = model.predict(1 - asked, asked ** np.array([3, 2]))
    np.testing.assert_allclose(mean, 90 - np.exp(-1 + (asked ** np.array([3, 2])) @ np.array([3.0, 1.0])), atol=0.8)
    assert deviation[0] < deviation[2]


def test_what_is_believed_is_surer_and_no_better() -> None:
    gone = np.random.default_rng(1).uniform(0, 0.9, (6, 2))
    model = AccuracyModel(1 - gone, gone**3, 90 - 20 * gone.sum(axis=1), 90.0)
    there = np.array([[0.3, 0.8]])
    mean, deviation = model.predict(1 - there, there**3)
    believed_mean, believed_deviation = model.with_believed(1 - there, there**3).predict(1 - there, there**3)
    assert believed_mean == pytest.approx(mean, abs=0.5)
    assert believed_deviation < deviation


def test_figures_that_are_all_alike_are_expected_everywhere() -> None:
    model = AccuracyModel(np.eye(4), np.zeros((4, 0)), np.full(4, 80.0), 80.0)
    mean, deviation = model.predict(np.eye(4), np.zeros((4, 0)))
    np.testing.assert_allclose(mean, 80.0, atol=1e-3)
    assert np.isfinite(deviation).all()


def test_networks_better_than_the_unpruned_one_are_expected_too() -> None:
    gone = np.linspace(0, 0.9, 10)[:, None]
    figures = 91 - 10 * gone[:, 0] ** 3
    mean, _ = AccuracyModel(1 - gone, gone**3, figures, 90.0).predict(1 - gone, gone**3)
    assert mean[0] > 90
    assert np.all(np.diff(mean) < 0)
