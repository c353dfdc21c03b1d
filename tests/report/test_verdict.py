import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tune.objective_text import parse
from edge_tune.records.entries import Ratio
from edge_tune.records.jsonfiles import to_json
from edge_tune.records.results import Record
from edge_tune.records.verdict import Row, Verdict
from edge_tune.report import comparison, data, sections, verdict
from edge_tune.report.blocks import Html
from edge_tune.report.style import Axes
from tests.studies import answered, evidence, record, run, write_files

RATIOS = {name: Ratio(0.6, 0.57, 0.63) for name in ("latency_ratio", "total_latency_ratio")}
METRICS = {"top1": 90.0, "top5": 99.0, "latency_ms": 2.0, "latency_ratio": 1.0, "throughput_fps": 400.0}
UNPRUNED = Row(name="unpruned", trial=0, metrics=METRICS, test={"top1": 88.0})
CHOSEN = Row(
    name="best: trial_0003",
    trial=3,
    metrics={"top1": 81.0, "top5": 99.0, "latency_ms": 1.0, "latency_ratio": 0.6, "throughput_fps": 600.0},
    test={"top1": 66.0},
    ratios=RATIOS,
)


def study(tmp_path: Path, trials: list[Record], baselines: list[Record] | None = None) -> data.StudyData:
    unpruned = record(0, {}, "a", baseline="unpruned")
    write_files(tmp_path, baselines if baselines is not None else [unpruned], trials)
    return data.read([tmp_path])[0]


def even(trial: int, sparsity: float, **changes: Any) -> Record:
    return record(trial, {"layer_1": sparsity, "layer_2": sparsity}, "a", **changes)


def test_sentences_tell_the_cost_of_the_pruning_apart_from_the_recipe(tmp_path: Path) -> None:
    alike = record(1, {}, "a", baseline="unpruned_retrained", epochs=2)
    found = study(tmp_path, [even(2, 0.5, epochs=2)], [record(0, {}, "a", baseline="unpruned"), alike])
    # after retraining, top1 = 95 - 20 * sparsity (tests/studies.py): 85 against 95
    assert verdict.sentences(found)[1] == (
        "The unpruned network was retrained by the same recipe (2 epochs): against that, the chosen network's top1 "
        "lies 10.00 points below on the validation split, which is what the pruning itself cost."
    )
    assert found.known_schedules == []


def test_changes_by_hand() -> None:
    found = verdict.changes(CHOSEN, UNPRUNED)
    assert found["val_top1"] == verdict.Change(81.0, pytest.approx(-10.0), -9.0)
    assert found["test_top1"] == verdict.Change(66.0, pytest.approx(-25.0), -22.0)
    # Milliseconds and throughput are of different moments: no difference of them is formed.
    assert not {"throughput_fps", "latency_ms", "total_latency_ms"} & set(found)
    # By the ratio, measured in turns, the latency fell by 40 %, whatever the milliseconds of other moments say.
    ratio = found["latency_ratio"]
    assert (ratio.percent, ratio.low, ratio.high) == pytest.approx((-40.0, -43.0, -37.0))
    assert "parameters" not in found


def test_change_from_a_schedule_is_the_quotient_of_the_ratios() -> None:
    schedule = replace(UNPRUNED, trial=1, ratios={"latency_ratio": Ratio(0.75, 0.75, 0.75)})
    found = verdict.changes(CHOSEN, schedule)
    # Against a ratio that is known exactly, the interval is the chosen network's own, over 0.75.
    change = found["latency_ratio"]
    expected = [100 * (bound / 0.75 - 1) for bound in (0.6, 0.57, 0.63)]
    assert [change.percent, change.low, change.high] == pytest.approx(expected)
    assert "total_latency_ratio" not in found


def test_sentences_say_what_was_found(tmp_path: Path) -> None:
    baselines = [record(0, {}, "a", baseline="unpruned"), even(1, 0.5, baseline="off_the_shelf")]
    # ratio = 1 - 0.6 * sparsity, top1 = 98 - 95 * sparsity ** 2 (tests/studies.py), intervals of 0.01 either way
    found = verdict.sentences(study(tmp_path, [even(2, 0.6), even(3, 0.4)], baselines))
    assert found == [
        "trial_0002 is 1.56 times as fast as the unpruned network (latency_ratio 0.640, 95 % interval 0.630 to 0.650), "
        "at 63.80 % top1 on the validation split, 34.20 points below the unpruned network on validation.",
        "Against off_the_shelf, its latency is 8.6 % lower (95 % interval \N{MINUS SIGN}10.5 to \N{MINUS SIGN}6.6 %), "
        "and its validation top1 lies 10.45 points below it.",
        "0 of 2 trials beat off_the_shelf in both latency_ratio and validation top1.",
    ]


def test_sentences_name_the_trials_that_beat_a_schedule_and_how_surely(tmp_path: Path) -> None:
    schedule = even(1, 0.5, baseline="off_the_shelf")
    worse = replace(schedule, metrics={**schedule.metrics, "top1": 40.0})
    close, clear = even(2, 0.51), even(3, 0.6)  # intervals from 0.684 and from 0.63 on; the schedule's from 0.69
    found = verdict.sentences(study(tmp_path, [close, clear], [record(0, {}, "a", baseline="unpruned"), worse]))
    assert found[-1] == (
        "2 of 2 trials beat off_the_shelf in both latency_ratio and validation top1: trial_0003, trial_0002; "
        "1 by more than their intervals overlap."
    )
    found = verdict.sentences(study(tmp_path, [clear], [record(0, {}, "a", baseline="unpruned"), worse]))
    assert found[-1].endswith("validation top1: trial_0003, by more than their intervals overlap.")


def test_sentences_do_not_claim_a_difference_within_the_noise(tmp_path: Path) -> None:
    found = verdict.sentences(study(tmp_path, [even(2, 0.01)]))
    assert found[0].startswith(
        "trial_0002 cannot be told from the unpruned network by its latency (latency_ratio 0.994"
    )


def test_sentences_say_that_a_measurement_was_imprecise(tmp_path: Path) -> None:
    one = even(2, 0.6)
    late = {name: replace(found, stopped_by="time") for name, found in one.measurements.items()}
    found = verdict.sentences(study(tmp_path, [replace(one, measurements=late)]))
    assert "0.630 to 0.650; imprecise, since the time of its measurement was over)" in found[0]
    assert found[-1].startswith("1 of 2 measurements are imprecise, marked ~: ")


def test_sentences_name_the_unpruned_network_where_nothing_was_removed(tmp_path: Path) -> None:
    one = even(2, 0.0)
    same = {"ratio": 1.0, "low": 1.0, "high": 1.0}
    ratios = {"latency_ratio": same, "total_latency_ratio": same, "to_itself": True}
    found = verdict.sentences(study(tmp_path, [replace(one, measurements={"pruned": evidence(ratios=ratios)})]))
    assert found[0].startswith("trial_0002 removes nothing: it is the unpruned network, at 98.00 % top1")


@pytest.mark.parametrize(("target", "said"), [("latency_ms", True), ("latency_ratio", False)])
def test_sentences_say_when_the_milliseconds_misled(tmp_path: Path, target: str, said: bool) -> None:
    slow, fast = even(2, 0.2), even(3, 0.6)
    lucky = replace(slow, metrics={**slow.metrics, "latency_ms": 0.1})  # measured while the host was idle
    write_files(tmp_path, [record(0, {}, "a", baseline="unpruned")], [lucky, fast], target=target)
    found = verdict.sentences(data.read([tmp_path])[0])
    warning = "By latency_ratio, trial_0003 is faster: 0.640, 95 % interval 0.630 to 0.650, at 63.80 % validation top1."
    assert any(text.endswith(warning) for text in found) == said


@pytest.mark.parametrize(("value", "text"), [(1.25, "+1.2"), (-3.0, "\N{MINUS SIGN}3.0"), (-0.01, "+0.0")])
def test_signed_shows_a_minus_as_wide_as_a_plus_and_none_of_zero(value: float, text: str) -> None:
    assert verdict.signed(value, 1) == text


def test_sentences_on_a_study_without_a_choice(tmp_path: Path) -> None:
    assert verdict.sentences(study(tmp_path, [])) == ["No trial has come to an end yet, so there is nothing to choose."]
    ruined = even(2, 0.9, collapsed="why")
    assert verdict.sentences(study(tmp_path, [ruined]))[0].startswith("Of 1 trial, none finished better than chance")


def test_sentences_begin_with_what_the_objective_chose(tmp_path: Path) -> None:
    study(tmp_path, [even(2, 0.6), even(3, 0.4)])
    (chosen,) = data.read([tmp_path], parse("maximise top1"))
    first, second = verdict.sentences(chosen)
    assert first.startswith("maximise top1: trial_0003, top1 82.8")
    assert second.startswith("trial_0003 is 1.32 times as fast")
    (none,) = data.read([tmp_path], parse("maximise top1 where top1 > 99"))
    assert verdict.sentences(none)[1] == "So no network is chosen."


def test_rows_take_their_test_figures_from_the_summary(tmp_path: Path) -> None:
    schedule = even(1, 0.5, baseline="off_the_shelf", epochs=2)
    one = study(tmp_path, [even(2, 0.6, epochs=2)], [record(0, {}, "a", baseline="unpruned"), schedule])
    tested = [
        Row(name="a name of another version", trial=1, epoch=2, metrics={}, test={"top1": 80.5}),
        Row(name="best", trial=2, epoch=2, metrics={}, test={"top1": 70}),
    ]
    rows = verdict.rows(replace(one, verdict=Verdict(rows=tested, better_in_both={}, endings={})))
    assert [(row.name, row.test.get("top1")) for row in rows] == [
        ("unpruned", None),
        ("off_the_shelf, not retrained", None),
        ("off_the_shelf, 2 epochs", 80.5),
        ("best: trial_0002", 70),
    ]
    assert rows[1].metrics == schedule.pruned
    assert rows[2].metrics == schedule.metrics


def test_endings_line_counts(tmp_path: Path) -> None:
    trials = [even(2, 0.1), even(3, 0.2), even(4, 0.3, status="stopped", stopped_by="time_limit")]
    assert verdict.endings_line(study(tmp_path, trials)) == "3 trials: 2 finished, 1 stopped by its time limit."


def test_a_trial_that_took_a_record_over_is_no_further_network(tmp_path: Path) -> None:
    schedule = even(1, 0.5, baseline="off_the_shelf")
    repeats = [even(3, 0.61, same_as=2), even(4, 0.62, same_as=2), even(5, 0.5, same_as=1)]
    found = study(tmp_path, [even(2, 0.6), *repeats], [record(0, {}, "a", baseline="unpruned"), schedule])
    assert [trial.trial for trial in found.trials] == [2, 5]  # the baseline has no other place among the trials
    assert (found.tried, found.repeats) == (1, 3)
    assert verdict.endings_line(found) == (
        "1 trial: 1 finished. Another 3 gave networks that had been tried, and took their records over."
    )
    assert "0 of 1 trial beat off_the_shelf" in verdict.sentences(found)[-1]


def test_sentences_give_the_interval_of_the_differences_over_the_same_images(tmp_path: Path) -> None:
    """Of 400 images the unpruned network misses 40, its retrained one 20 of these, the best all 40 and 12 more.

    The bounds are a mean's and its deviation's, with one image more that either alone is right for. The schedule, whose
    record is an older one's, is right for as many as the unpruned network; Newcombe's bounds follow from Wilson's.
    """
    images = np.arange(400)
    unpruned = answered(record(0, {}, "a", baseline="unpruned"), images >= 40)
    alike = answered(record(1, {}, "a", baseline="unpruned_retrained", epochs=2), images >= 20)
    schedule = replace(unpruned, trial=2, baseline="half", answers=None)
    best = answered(even(3, 0.6, epochs=2), images >= 52)
    one = study(tmp_path, [best], [unpruned, alike, schedule])
    first, second, third, _ = verdict.sentences(one)
    known = "(95 % interval 4.79 to 1.18 below, the same 400 images)"
    assert first.endswith(f", 3.00 points below the unpruned network on validation {known}.")
    below = "8.00 points below on the validation split (95 % interval 10.69 to 5.23 below, the same 400 images)"
    assert f"the chosen network's top1 lies {below}, which is what the pruning itself cost." in second
    assert third.endswith(
        "its validation top1 lies 3.00 points below it (95 % interval 7.46 below to 1.45 above, 400 images, not "
        "compared one by one, since a record does not say which were right)."
    )
    table = comparison.networks_table(one, verdict.rows(one))
    cells = dict(zip(table.head, next(row for row in table.rows if row[0] == "val top1 (%)"), strict=True))
    assert cells["best: trial_0003"] == "87.00<small>[83.3, 89.9]</small>"
    assert cells["\N{GREEK CAPITAL LETTER DELTA} from unpruned"] == (
        "\N{MINUS SIGN}3.00 points<small>[\N{MINUS SIGN}4.79, \N{MINUS SIGN}1.18]</small>"
    )
    assert "(Bonett and Price, image by image; Newcombe, where a record does not say which" in table.caption


def test_table_sets_the_fastest_within_some_points_beside_the_best(tmp_path: Path) -> None:
    """top1 = 98 - 95 * sparsity ** 2 (tests/studies.py): 97.05, 94.2 and 90.4 of 98."""
    trials = [even(2, 0.1), even(3, 0.2), even(4, 0.28)]
    one = study(tmp_path, trials)
    assert comparison.networks_table(one, verdict.rows(one)).head[:4] == [
        "",
        "best: trial_0004",
        "fastest within 1 and 2 points: trial_0002",
        "fastest within 5 points: trial_0003",
    ]
    text = sections.study_sections(one, Axes.of([one]), 0, 0)[0].blocks[-1]
    assert isinstance(text, Html)
    for what in ("trial_0004, the chosen network", "trial_0002, fastest within 1 and 2 points"):
        assert f"{what}, cannot be taken out, since its weights were not kept" in text.text
    assert f"-m edge_tune.report {tmp_path} --objective &#x27;minimise latency_ratio where top1" in text.text
    (otherwise,) = data.read([tmp_path], parse("maximise top1 where latency_ratio < 0.9"))
    assert otherwise.chosen
    assert otherwise.chosen.trial == 3
    assert [row.trial for row in verdict.alternatives(otherwise)] == [2]


def test_table_of_studies_says_what_stands_below_a_top1(tmp_path: Path) -> None:
    """Wilson's bounds of 36 of 40 images solve |0.9 - p| = 1.96 (p (1 - p) / 40) ** 0.5."""
    known = study(tmp_path / "known", [answered(even(2, 0.2), np.arange(40) < 36)])
    older = study(tmp_path / "older", [even(2, 0.2)])
    table = comparison.studies_table([older, known])
    column = table.head.index("val top1 (%)")
    assert [row[column] for row in table.rows] == ["94.20", "90.00<small>[76.9, 96.0]</small>"]
    told = "Below a top1 stands its 95 % interval (Wilson)."
    assert [told in comparison.studies_table([one]).caption for one in (older, known)] == [False, True]


def test_study_that_was_resumed_and_interrupted_is_to_go_on(tmp_path: Path) -> None:
    """Its first session ended with one trial, and wrote so; of the 300 that the second one was to try, one ended."""
    unpruned, trials = record(0, {}, "a", baseline="unpruned"), [even(2, 0.1), even(3, 0.2)]
    write_files(tmp_path, [unpruned], trials)
    entry = {**run(), "search": {"method": "hyperopt", "trials": 300}}
    (tmp_path / "run.json").write_text(json.dumps(entry))
    for ended, what, count in ((2, "To try more networks", 600), (1, "To go on, if it was interrupted", 300)):
        summary = Verdict(rows=[], better_in_both={}, endings={"finished": ended, "failed": 0})
        (tmp_path / "summary.json").write_text(to_json(summary))
        (one,) = data.read([tmp_path])
        text = sections.study_sections(one, Axes.of([one]), 0, 0)[0].blocks[-1]
        assert isinstance(text, Html)
        assert f"<li>{what}:<pre>" in text.text
        assert f"--trials={count} --resume" in text.text
