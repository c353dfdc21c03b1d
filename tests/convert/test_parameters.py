import re
from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.errors import ExperimentError
from tests.convert.files import QUIET, sweep


@pytest.mark.parametrize(
    "name",
    [
        "layer_3.1",
        "Layer-3.1",
        "layer31_sparsity",
        "desired_sparsity_layer_3.1",
        "pruners.layer_3.1.desired_sparsity",
        "pruner_layer_3.1",
    ],
)
def test_parameter_is_matched_to_the_pruner_it_is_named_after(tmp_path: Path, name: str) -> None:
    found, notes = sweep(tmp_path, f"{name}: {{min: 0.0, max: 0.5}}")
    assert (found.ranges, notes) == ({"layer_3.1": et.Uniform(0.0, 0.5)}, [])


def test_nested_parameters_are_found(tmp_path: Path) -> None:
    nested = "pruning: {parameters: {layer_3.9: {values: [0.1]}}}\n  retraining: {parameters: {lr: {value: 1e-2}}}"
    with pytest.raises(
        ExperimentError, match=r"given.yaml:1: parameters must give a range .* got \['pruning.layer_3.9'"
    ):
        sweep(tmp_path, nested)
    found, notes = sweep(tmp_path, nested.replace("3.9", "3.1"))
    assert (found.ranges, notes) == ({"layer_3.1": et.Choice([0.1])}, [])
    assert found.settings["lr"].value == 0.01


@pytest.mark.parametrize(
    ("parameter", "expected", "note"),
    [
        ("{value: 0.3}", et.Choice([0.3]), None),
        ("{values: [0.0, 0.5]}", et.Choice([0.0, 0.5]), None),
        (
            "{values: [0.5, 0.5, 1.0, x]}",
            et.Choice([0.5]),
            "given.yaml:2: each value of 'layer_3.1' must be a sparsity",
        ),
        (
            "{values: [0, 0.5], probabilities: [0.1, 0.9]}",
            et.Choice([0, 0.5]),
            "given.yaml:2: probabilities of 'layer_3.1'",
        ),
        ("{min: 0.1, max: 0.5, distribution: uniform}", et.Uniform(0.1, 0.5), None),
        (
            "{min: 0.0, max: 1.0}",
            et.Uniform(0.0, 0.99),
            "given.yaml:2: the range of 'layer_3.1' must hold .* got 0.0 to 1.0; 0",
        ),
        ("{min: -1, max: 0.4}", et.Uniform(0.0, 0.4), "given.yaml:2: the range of 'layer_3.1' must hold"),
        (
            "{min: 10, max: 90}",
            et.Uniform(0.0, 0.99),
            "given.yaml:2: the range of 'layer_3.1' must hold sparsities, fractions from 0 to 0.99, but got 10 to 90",
        ),
        ("{min: 0.4, max: 0.1}", et.Uniform(0.1, 0.4), "given.yaml:2: the range of 'layer_3.1' must hold"),
        (
            "{min: 0, max: 0.9, q: 0.1, distribution: q_uniform}",
            et.Uniform(0.0, 0.9),
            "given.yaml:2: q_uniform of 'layer_3.1' becomes uniform without steps",
        ),
        (
            "{min: 0.01, max: 0.9, distribution: log_uniform_values}",
            et.Uniform(0.01, 0.9),
            "given.yaml:2: log_uniform_values of 'layer_3.1' becomes uniform",
        ),
        (
            "{min: -3, max: -1, distribution: log_uniform}",
            et.Uniform(0.0, 0.99),
            "given.yaml:2: the distribution of 'layer_3.1' is not carried over",
        ),
        (
            "{mu: 0.5, sigma: 0.1, distribution: normal}",
            et.Uniform(0.0, 0.99),
            "given.yaml:2: the distribution of 'layer_3.1' is not carried over: .* but got 'normal'",
        ),
    ],
)
def test_range_is_that_of_the_parameter(
    tmp_path: Path, parameter: str, expected: et.Uniform | et.Choice, note: str | None
) -> None:
    found, notes = sweep(tmp_path, f"layer_3.1: {parameter}")
    assert found.ranges == {"layer_3.1": expected}
    assert len(notes) == (note is not None)
    assert note is None or re.match(note.replace("(", r"\("), notes[0])


@pytest.mark.parametrize("given", ["{min: 0, max: 1}", "{min: 0, max: 1, distribution: int_uniform}"])
def test_range_of_whole_numbers_is_noted(tmp_path: Path, given: str) -> None:
    found, (drawn, narrowed) = sweep(tmp_path, f"layer_3.1: {given}")
    assert found.ranges == {"layer_3.1": et.Uniform(0.0, 0.99)}
    assert drawn.startswith("given.yaml:2: int_uniform of 'layer_3.1' becomes uniform: W&B draws whole numbers alone")
    assert "the range of 'layer_3.1' must hold" in narrowed


@pytest.mark.parametrize("q", ["0.5", "-0.1"])
def test_grid_whose_steps_give_nothing_is_noted(tmp_path: Path, q: str) -> None:
    given = f"layer_3.1: {{min: 0.1, max: 0.3, q: {q}, distribution: q_uniform}}\n  filter_pruner_70: {{value: 0.5}}"
    found, notes = sweep(tmp_path, given, f"method: grid\n{QUIET}")
    assert found.ranges.get("layer_3.1") in (None, et.Uniform(0.1, 0.3))
    assert "of 'layer_3.1'" in notes[0]


def test_grid_takes_the_steps_of_q_uniform(tmp_path: Path) -> None:
    found, notes = sweep(
        tmp_path,
        "layer_3.1: {min: 0.1, max: 0.3, q: 0.1, distribution: q_uniform}\n  filter_pruner_70: {values: [0.0, 0.5]}",
        "method: grid\nmetric: {name: val_acc, goal: maximize}\n",
    )
    assert found.ranges["layer_3.1"] == et.Choice([0.1, 0.2, 0.3])
    assert (found.method, found.trials, notes) == ("grid", 6, [])


@pytest.mark.parametrize(
    ("parameter", "note"),
    [
        ("lr: {min: 0.01, max: 0.1}", "parameter 'lr' is not carried over: EdgeTune searches sparsities only"),
        ("epochs: {values: [10, 20]}", "parameter 'epochs' is not carried over: EdgeTune searches sparsities only"),
        ("batch-size: {value: many}", "parameter 'batch-size' is not carried over: EdgeTune searches sparsities only"),
        ("optimizer: {value: adam}", "parameter 'optimizer' is not carried over: it names none of ['filter_pruner_70'"),
        ("Layer_31: {value: 0.1}", "parameter 'Layer_31' is not carried over: it must name one pruner of its own"),
    ],
)
def test_parameter_that_is_not_carried_over_is_noted(tmp_path: Path, parameter: str, note: str) -> None:
    found, (said,) = sweep(tmp_path, f"layer_3.1: {{min: 0.1, max: 0.3}}\n  {parameter}")
    assert (list(found.ranges), found.settings) == (["layer_3.1"], {})
    assert said.startswith(f"given.yaml:3: {note}")
