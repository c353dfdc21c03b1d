import math
import random
from dataclasses import asdict

import pytest
from hyperopt import hp

import edge_tune as et
from edge_tune import parameters
from edge_tune.parameters import Axis, Bounds, Parameter

FREE = Bounds("{}", lambda _: True)
FRACTION = Bounds("0 <= {} < 1", lambda value: 0 <= value < 1)
SOUND: list[Parameter] = [
    et.Uniform(0.0, 0.99),
    et.Uniform(0.5, 0.5),
    et.LogUniform(1e-4, 0.3),
    et.Integer(2, 8),
    et.Integer(3, 3),
    et.Choice([0.0, 0.5, 0.9]),
    et.Choice(["filters", "channels"]),
    et.Choice(["alone"]),
]


@pytest.mark.parametrize("parameter", SOUND, ids=repr)
def test_a_parameter_holds_what_it_draws_and_what_comes_back_from_hyperopt_and_from_json(parameter: Parameter) -> None:
    drawn = [parameter.draw(random.Random(seed)) for seed in range(200)]
    assert all(value in parameter for value in [*drawn, parameter.default, *parameter.middle_and_end()])
    assert [parameter.from_hyperopt(parameter.to_hyperopt(value)) for value in drawn] == drawn
    assert parameter.is_fixed == (len(set(drawn)) == 1)
    assert parameters.from_json({"type": type(parameter).__name__, **_lists(asdict(parameter))}) == parameter  # type: ignore[call-overload]
    if not parameter.is_fixed:
        parameter.in_hyperopt("name", hp)
    if parameter.values is not None:
        assert set(drawn) == set(parameter.values)
    if parameter.limits:
        assert parameter.limits[0] <= min(map(float, drawn)) <= max(map(float, drawn)) <= parameter.limits[1]


def _lists(fields: dict[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def test_a_parameter_does_not_hold_what_lies_outside_or_is_of_another_type() -> None:
    for outside in (-0.01, 1.0, math.nan, math.inf, "0.5", None, True, [0.5]):
        assert outside not in et.Uniform(0.0, 0.99)
    for outside in (1, 9, 2.5, "3", True):
        assert outside not in et.Integer(2, 8)
    for outside in (0.25, "filters", [0.5]):
        assert outside not in et.Choice([0.0, 0.5])


@pytest.mark.parametrize(
    ("parameter", "bounds", "problem"),
    [
        (et.Uniform(0.5, 0.1), FRACTION, "rate must hold 0 <= low <= high < 1, but got Uniform(0.5, 0.1)."),
        (et.Uniform(0.5, 1), FRACTION, "rate must hold 0 <= low <= high < 1, but got Uniform(0.5, 1)."),
        (et.LogUniform(0, 0.5), FRACTION, "rate must hold 0 < low <= high, but got LogUniform(0, 0.5); use Uniform"),
        (et.Integer(0.5, 2), FREE, "rate must hold low <= high with whole numbers, but got Integer(0.5, 2)."),  # type: ignore[arg-type]
        (et.Choice([]), FREE, "rate must offer at least one value"),
        (et.Choice([0.5, 2.0]), FRACTION, "rate must hold 0 <= rate < 1, but got 2.0 in Choice."),
        (et.Choice([0.5, 0.5]), FRACTION, "rate must offer each value once"),
        (et.Choice(0.5), FREE, "rate must be a list of values, but got Choice(0.5)."),  # type: ignore[arg-type]
    ],
)
def test_a_parameter_says_what_is_wrong_with_it(parameter: Parameter, bounds: Bounds, problem: str) -> None:
    (found,) = parameter.problems("rate", bounds)
    assert found.startswith(problem)


def test_axes_show_fractions_whole_and_factors_in_equal_steps() -> None:
    assert et.Uniform(0.1, 0.9).axis == et.Choice([0.5, 0.2]).axis == Axis(0.0, 1.0)
    assert et.Integer(2, 8).axis == Axis(2, 8)
    assert et.LogUniform(0.001, 0.1).axis == Axis(0.001, 0.1, is_logarithmic=True)
    assert et.Choice(["a", "b"]).axis is None


@pytest.mark.parametrize(
    "plain", [None, 5, {}, {"type": "Uniform", "low": "0", "high": 1}, {"type": "Choice", "values": []}]
)
def test_what_is_no_parameter_in_json_is_none(plain: object) -> None:
    assert parameters.from_json(plain) is None


def test_names_are_short_where_they_differ_by_their_parts_alone() -> None:
    assert parameters.short_names(["a.sparsity", "b.1.sparsity"]) == {"a.sparsity": "a", "b.1.sparsity": "b.1"}
    assert parameters.short_names(["a.sparsity", "recipe.lr"]) == {"a.sparsity": "a.sparsity", "recipe.lr": "recipe.lr"}


def test_a_column_has_the_type_of_what_it_holds() -> None:
    assert parameters.column_type([None, 3]) is int
    assert parameters.column_type([3, 0.5, None]) is float
    assert parameters.column_type(["filters", None]) is str
