import numpy as np
import pytest

from edge_tune.parameters import Axis
from edge_tune.report.importance import Importance, importance
from edge_tune.report.statistics import Floats

LINEAR = Axis(0.0, 1.0)


def of(metric: Floats, **parameters: Floats) -> Importance | None:
    return importance(parameters, dict.fromkeys(parameters, LINEAR), metric)


def test_importance_finds_the_shares_of_variance() -> None:
    # y = 2a + b of independent uniforms: the shares of variance are 4/5 and 1/5; c is a bystander, d was never varied.
    generator = np.random.default_rng(4)
    a, b, c = generator.random((3, 120))
    found = of(2 * a + b, a=a, b=b, c=c, d=np.full(120, 0.3))
    assert found is not None
    assert found.n == 120
    assert found.explained > 0.95
    middles = {name: share.middle for name, share in found.shares.items()}
    assert middles == {
        "a": pytest.approx(0.8, abs=0.1),  # of 128 pairs of points
        "b": pytest.approx(0.2, abs=0.1),
        "c": pytest.approx(0.0, abs=0.01),
        "d": 0.0,
    }
    assert all(share.low <= share.middle <= share.high for share in found.shares.values())


def test_importance_of_two_that_act_together_counts_for_both() -> None:
    # Of y = (a - 1/2)(b - 1/2), neither alone decides anything: each has all of the variance.
    a, b = np.random.default_rng(1).random((2, 150))
    found = of((a - 0.5) * (b - 0.5), a=a, b=b)
    assert found is not None
    assert [share.middle for share in found.shares.values()] == pytest.approx([1.0, 1.0], abs=0.25)


def test_importance_is_less_sure_of_fewer_trials() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.random((2, 120))
    y = a + b + 0.1 * generator.normal(size=120)
    many, few = of(y, a=a, b=b), of(y[:12], a=a[:12], b=b[:12])
    assert many is not None
    assert few is not None
    assert few.shares["a"].high - few.shares["a"].low > many.shares["a"].high - many.shares["a"].low


def test_importance_takes_a_logarithmic_axis_as_such() -> None:
    a = np.logspace(-3, 0, 40)
    found = importance({"a": a}, {"a": Axis(1e-3, 1.0, is_logarithmic=True)}, np.sin(2 * np.log(a)))
    assert found is not None
    assert found.explained > 0.9


def test_importance_is_withheld_when_there_is_nothing_to_learn_from() -> None:
    few = np.linspace(0, 1, 9)
    assert of(few, a=few) is None
    assert of(np.ones(50), a=np.linspace(0, 1, 50)) is None
    assert of(np.linspace(0, 1, 50), a=np.ones(50)) is None


def test_importance_says_when_it_predicts_nothing() -> None:
    a, b, y = np.random.default_rng(5).random((3, 200))
    found = of(y, a=a, b=b)
    assert found is not None
    assert found.explained < 0.2
