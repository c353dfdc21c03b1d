from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_tune as et
from edge_tune.display import console
from edge_tune.objective import Objective
from edge_tune.records.entries import Answers, Ratio
from edge_tune.records.ranking import Standing, imprecise_line
from edge_tune.records.results import Record
from edge_tune.records.verdict import Row, Verdict
from edge_tune.wording import duration
from tests.asked import asked
from tests.networks import experiment as make
from tests.studies import evidence

METRICS = {
    "latency_ratio": 0.5,
    "latency_ms": 2.0,
    "total_latency_ms": 2.5,
    "throughput_fps": 450.0,
    "top1": 90.0,
    "top5": 99.0,
    "loss": 0.5,
    "parameters": 12345.0,
    "macs": 1e6,
}
TEST = {"top1": 89.5, "top5": 98.75, "loss": 0.6}


def ratios(ratio: float, low: float, high: float) -> dict[str, Ratio]:
    return {name: Ratio(ratio, low, high) for name in ("latency_ratio", "total_latency_ratio")}


def answers_of(right: NDArray[np.bool_]) -> Answers:
    return Answers.of(len(right), np.packbits(right).tobytes())


UNPRUNED = Row(name="unpruned", trial=0, metrics=METRICS, test=TEST, ratios=ratios(1.001, 0.992, 1.015))
BEST = Row(
    name="best: trial_0007",
    trial=7,
    metrics={**METRICS, "latency_ms": 1.5},
    test=TEST,
    device_test_top1=89.25,
    ratios=ratios(0.75, 0.744, 0.757),
    reference={"latency_ms": 2.0, "total_latency_ms": 3.333},
)
RECORD = Record(
    trial=7,
    status="finished",
    metrics=METRICS,
    point=asked({"layer_1": 0.25, "layer_2": 0.5}, {"layer_1": "filters", "layer_2": "channels"}),
    seconds={"prune": 0.5, "measure": 1.25},
)


def study(target: et.Minimise | et.Maximise, structure: Any = ("filters", "channels")) -> et.Experiment:
    """An experiment of two groups, the second one of this structure."""
    kinds = {"layer_1": "filters", "layer_2": structure}
    groups = {
        label: et.PrunerGroup(kind, [f"{label}.weight"], sparsity=et.Uniform(0.0, 0.9)) for label, kind in kinds.items()
    }
    return make(target=target, pruner_groups=groups, baselines={})


def test_trial_line_says_what_came_of_which_point() -> None:
    line = console.trial_line(RECORD, study(et.Minimise("latency_ms")))
    expected = "top1 90.00, latency 2.000 ms, 1.8 s (layer_1 0.25 layer_2 0.50 channels)"
    assert line == f"trial_0007 finished: {expected}"
    assert "throughput_fps 450," in console.trial_line(RECORD, study(et.Maximise("throughput_fps")))


def test_trial_line_names_only_structures_that_are_searched() -> None:
    line = console.trial_line(RECORD, study(et.Minimise("latency_ms"), "channels"))
    assert line.endswith("(layer_1 0.25 layer_2 0.50)")


@pytest.mark.parametrize(
    ("status", "text"), [("stopped", "stopped, hopeless: why:"), ("failed", "failed: hopeless: why (")]
)
def test_trial_line_gives_the_reason(status: str, text: str) -> None:
    record = Record(trial=7, status=status, reason="hopeless: why", metrics=METRICS, point={"layer_1.sparsity": 0.5})  # type: ignore[arg-type]
    assert text in console.trial_line(record, study(et.Minimise("latency_ms")))


def test_progress_line_counts() -> None:
    hopeless = Record(trial=8, status="stopped", stopped_by="hopeless")
    standing = Standing(Objective.of(et.Maximise("top1")), [RECORD, hopeless])
    line = console.progress_line(standing, total=9, running=2, seconds_left=600.0)
    assert line == "[2/9 done, 2 running, 1 hopeless, best top1 90 (trial_0007), about 10 min left]"


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (600, "10 min"), (7200, "2.0 h")])
def test_duration_is_as_a_person_says_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_verdict_table_is_aligned_markdown_with_ratios_to_unpruned() -> None:
    same = replace(UNPRUNED, name="same", ratios=ratios(0.99, 0.985, 0.995))
    verdict = Verdict(rows=[UNPRUNED, BEST, same], chosen=7, better_in_both={}, endings={})
    lines = console.verdict_table(verdict).splitlines()
    assert console.verdict_table(replace(verdict, simulated=True)).startswith("| network (simulated) | val_top1")
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(console.COLUMNS)
    noise, best, tie = "1 (1.5 % noise)", "0.750 [0.744, 0.757]", "0.990 [0.985, 0.995] not distinguishable"
    assert cells[2] == ["unpruned", "90.00", "89.50", "98.75", "2.000", noise, "2.500", noise, "450", "12,345"]
    assert cells[3][4:] == ["1.500 of 2.000", best, "2.500 of 3.333", best, "450", "12,345"]
    assert cells[4][5] == cells[4][7] == tie


def test_verdict_table_marks_what_is_imprecise_and_names_the_unpruned_network() -> None:
    rough, whole = replace(BEST, is_precise=False), replace(BEST, is_unpruned=True)
    _, unpruned, first, second = console.verdict_cells(
        Verdict(rows=[replace(UNPRUNED, is_precise=False), rough, whole], chosen=None, better_in_both={}, endings={})
    )
    assert unpruned[4:6] == ("~2.000", "1 (~1.5 % noise)")
    assert first[4:6] == ("~1.500 of 2.000", "~0.750 [0.744, 0.757]")
    assert second[4:6] == ("1.500", "1 (the unpruned network)")


def measured(**parts: object) -> Record:
    reference = {"latency": {"median": 4.0}, "total_latency": {"median": 5.0}}
    return replace(RECORD, measurements={"pruned": evidence(reference=reference, **parts)})


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "latency 2.000 of 4.000 ms, 1.8 s"),
        ({"ratios": {"is_precise": True}, "stopped_by": "time"}, "latency 2.000 of 4.000 ms, 1.8 s"),
        ({"ratios": {"is_precise": False}}, "4.000 ms, imprecise: the time of its measurement was over, 1.8 s"),
        ({"stopped_by": "time"}, "4.000 ms, imprecise: the time of its measurement was over, 1.8 s"),
        ({"ratios": {"to_itself": True}}, "4.000 ms, the unpruned network, since nothing was removed, 1.8 s"),
    ],
    ids=["paired", "precise in spite of the time", "imprecise", "of an earlier version", "nothing removed"],
)
def test_trial_line_says_what_its_latency_is_worth(parts: dict[str, object], text: str) -> None:
    assert text in console.trial_line(measured(**parts), study(et.Minimise("latency_ms")))


def test_progress_line_says_about_where_the_best_is_imprecise() -> None:
    standing = Standing(Objective.of(et.Minimise("latency_ratio")), [measured(stopped_by="time")])
    line = console.progress_line(standing, total=9, running=2, seconds_left=None)
    assert "best latency_ratio about 0.5 (trial_0007)" in line


def test_verdict_lines_warn_once_of_imprecise_measurements() -> None:
    records = [measured(stopped_by="time"), measured(), measured(ratios={"is_precise": False})]
    warning = imprecise_line(records)
    assert warning
    assert warning.startswith("2 of 3 measurements are imprecise, marked ~: their time was over before the ratios were")
    endings = {"finished": 1, "hopeless": 0, "asha": 0, "failed": 0}
    verdict = Verdict(rows=[UNPRUNED], chosen=None, better_in_both={}, endings=endings, imprecise=warning)
    assert console.verdict_lines(verdict).count(warning) == 1
    assert imprecise_line([measured()]) is None


def test_verdict_lines_say_how_the_trials_ended_and_what_the_device_answers() -> None:
    verdict = Verdict(
        rows=[UNPRUNED, BEST],
        chosen=7,
        better_in_both={"unpruned": [7], "off_the_shelf": [7, 9]},
        endings={"finished": 5, "hopeless": 2, "asha": 1, "failed": 0},
    )
    assert console.verdict_lines(verdict) == [
        console.TO_READ,
        "2 of 8 trials beat off_the_shelf in both latency and val_top1.",
        "Trials: 5 finished, 2 stopped as hopeless, 1 stopped by ASHA, 0 failed.",
        "On the device the exported network has test_top1 89.25; in PyTorch 89.50.",
    ]
    one = replace(verdict, better_in_both={"x": [7]}, endings={"finished": 1, "hopeless": 0, "asha": 0, "failed": 0})
    assert console.verdict_lines(one)[1] == "1 of 1 trial beats x in both latency and val_top1."
    assert console.verdict_lines(replace(one, simulated=True))[0] == console.SIMULATED


def test_verdict_lines_tell_what_the_pruning_cost_apart_from_the_recipe() -> None:
    """89.50 of the unpruned network, 88.00 after retraining, 87.25 of the best."""
    alike = replace(UNPRUNED, name="unpruned, 3 epochs", trial=2, epoch=3, test={**TEST, "top1": 88.0})
    verdict = Verdict(
        rows=[UNPRUNED, alike, replace(BEST, test={**TEST, "top1": 87.25})],
        chosen=7,
        better_in_both={"unpruned": [], "unpruned_retrained": []},
        endings={"finished": 5, "hopeless": 2, "asha": 1, "failed": 0},
    )
    assert console.verdict_lines(verdict)[1] == (
        "What it cost: test_top1 -2.25 points to the unpruned network, -0.75 to the same after 3 epochs by the same "
        "recipe, which is the cost of the pruning itself."
    )
    assert not any(line.startswith("What") for line in console.verdict_lines(replace(verdict, chosen=None)))


def test_verdict_tells_how_well_accuracies_are_known() -> None:
    """Of 200 validation images the unpruned network is right for the first 180, the best for 170 of these and 2 others.

    Wilson's bounds solve |share - p| = 1.96 (p (1 - p) / n) ** 0.5; those of a difference are a mean's and its
    deviation's, with one image more that either alone is right for. On the test split both are right for the same 179.
    """
    right = np.arange(200) < 180
    best = right & (np.arange(200) >= 10) | (np.arange(200) >= 198)
    tested = answers_of(np.arange(200) < 179)
    rows = [
        replace(row, answers=answers_of(bits), metrics={**row.metrics, "top1": bits.mean() * 100}, test_answers=tested)
        for row, bits in ((UNPRUNED, right), (BEST, best))
    ]
    alike = replace(rows[0], name="unpruned, 3 epochs", trial=2, epoch=3, answers=None, images=200)
    other = replace(rows[1], name="fastest within 1 point: trial_0009", trial=9, test={}, test_answers=None)
    verdict = Verdict(
        rows=[rows[0], alike, rows[1]],
        alternatives=[other],
        chosen=7,
        better_in_both={},
        endings={"finished": 5, "hopeless": 2, "asha": 1, "failed": 0},
        unsure="Not sure.",
        settled="Settled.",
        remaining="Remaining.",
    )
    _, unpruned, _, chosen, fastest = console.verdict_cells(verdict)
    assert unpruned[1:3] == ("90.00 [85.1, 93.4]", "89.50 [84.5, 93.0]")
    assert chosen[1] == "86.00 [80.5, 90.1]"
    assert fastest[:4] == ("fastest within 1 point: trial_0009", "86.00 [80.5, 90.1]", "not read", "not read")
    _, paired, cost, *rest = console.verdict_lines(verdict)
    assert paired == (
        "val_top1 of the best: 4.00 points below unpruned [-7.55, -0.37]; 4.00 points below unpruned, 3 epochs "
        "[-10.47, +2.44]; in brackets, the 95 % interval, over the same 200 images and 200 images, not compared "
        "one by one, since a record does not say which were right."
    )
    assert cost == (
        "What it cost: test_top1 +0.00 points [-1.37, +1.37] to the unpruned network, +0.00 [-1.37, +1.37] to the same "
        "after 3 epochs by the same recipe, which is the cost of the pruning itself. In brackets, the 95 % interval, "
        "over the same 200 images."
    )
    assert rest[1:4] == ["Not sure.", "Settled.", "Remaining."]


def test_verdict_lines_say_why_trials_failed_and_that_some_were_repeats() -> None:
    verdict = Verdict(
        rows=[UNPRUNED],
        chosen=None,
        better_in_both={},
        endings={"finished": 0, "hopeless": 0, "asha": 0, "failed": 12, "repeat": 4},
        failures={"no stick.": 6, "diverged.": 3, "lost.": 1, "a": 1, "b": 1},
    )
    assert console.verdict_lines(verdict)[1:] == [
        "Trials: 0 finished, 0 stopped as hopeless, 0 stopped by ASHA, 12 failed.",
        "Another 4 gave networks that had been tried, and took their records over.",
        "6 failed: no stick.",
        "3 failed: diverged.",
        "1 failed: lost.",
        "2 failed for other reasons, which stand in trials.jsonl.",
        "No trial finished better than chance, so there is no best network.",
    ]
    assert "All trials of the search failed (12)" in console.all_failed(verdict)


def test_repeat_line_names_the_trial_whose_record_it_is() -> None:
    repeat = replace(RECORD, trial=9, baseline=None, same_as=7, seconds={})
    line = console.repeat_line(repeat, "trial_0007", study(et.Minimise("latency_ms")))
    figures = "finished: top1 90.00, latency 2.000 ms (layer_1 0.25 layer_2 0.50 channels)"
    assert line == f"trial_0009 gives the network of trial_0007 and takes its record over, {figures}"
    failed = replace(repeat, status="failed", reason="no stick.")
    assert "takes its record over, failed: no stick. (" in console.repeat_line(
        failed, "half", study(et.Minimise("latency_ms"))
    )


def test_progress_line_counts_repeats_if_there_are_any() -> None:
    standing = Standing(Objective.of(et.Maximise("top1")), [RECORD, replace(RECORD, trial=9, same_as=RECORD.trial)])
    assert ", 1 repeated, " in console.progress_line(standing, total=9, running=2, seconds_left=None)
