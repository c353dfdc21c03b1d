"""Intervals of accuracies: what a sentence says is counted here image by image."""

import base64
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_tune.objective_text import parse
from edge_tune.records.accuracy import Known, difference, in_words, unsure_line
from edge_tune.records.choosing import rank
from edge_tune.records.entries import Answers
from edge_tune.records.jsonfiles import DamageError
from edge_tune.records.results import Record
from tests.studies import answered, record

RIGHT = np.random.default_rng(0).random(2003) < 0.93
LOST = RIGHT & (np.random.default_rng(1).random(2003) < 0.98)  # some that were right are wrong now
FOUND = LOST | (np.random.default_rng(2).random(2003) < 0.2)  # and others right


def known(right: NDArray[np.bool_], *, with_answers: bool = True) -> Known:
    answers = Answers.of(len(right), np.packbits(right).tobytes())
    return Known(100 * float(right.mean()), len(right), answers if with_answers else None)


def paired(mine: NDArray[np.bool_], other: NDArray[np.bool_], factor: float = 1.0) -> tuple[float, float]:
    """The mean of the differences image by image with one more of either sign, in points, and its deviation."""
    scores = np.array([*(mine.astype(int) - factor * other.astype(int)), 1, -factor])
    half = 1.959964 * scores.std() / math.sqrt(len(scores))
    return 100 * (scores.mean() - half), 100 * (scores.mean() + half)


@pytest.mark.parametrize("images", [1, 7, 8, 9, 2003])
def test_answers_count_the_bits_of_the_images_alone(images: int) -> None:
    mine, other = known(RIGHT[:images]).answers, known(FOUND[:images]).answers
    assert mine
    assert other
    assert (mine.correct, mine.alone(other)) == (RIGHT[:images].sum(), (RIGHT & ~FOUND)[:images].sum())
    assert len(base64.b64decode(mine.right)) == math.ceil(images / 8)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"images": 9, "right": "AA=="}, r"expected a bit for each of 9 images, got 1 bytes in `answers`"),
        ({"images": 9, "right": "?"}, r"expected base64 in `answers`"),
        ({"images": 0, "right": ""}, r"expected `int` >= 1 in `answers.images`"),
    ],
)
def test_record_with_damaged_answers_is_refused(answers: dict[str, object], says: str) -> None:
    with pytest.raises(DamageError, match=re.escape(says)):
        Record.from_entry({"trial": 1, "answers": answers})


@pytest.mark.parametrize(
    ("top1", "images", "text"),
    [
        (100.0, 10_000, "[99.96, 100.00]"),  # n / (n + 1.96 ** 2), so that 3.84 of 10,000 are left
        (0.0, 10_000, "[0.00, 0.04]"),
        (100.0, 1000, "[99.6, 100.0]"),
        (99.98, 10_000, "[99.93, 99.99]"),
    ],
)
def test_interval_never_looks_as_if_it_had_no_width(top1: float, images: int, text: str) -> None:
    assert Known(top1, images).text == text


def test_answers_come_back_from_a_file_and_are_of_the_last_epoch_alone() -> None:
    one = answered(record(2, {"layer_1": 0.5, "layer_2": 0.5}, "a", epochs=2), LOST)
    assert Record.from_entry(json.loads(one.to_json())) == one
    assert one.as_of(1).answers is None
    assert one.as_of(2).answers == one.answers
    assert len(one.to_json()) - len(replace(one, answers=None).to_json()) < 2003 / 6 + 50  # 6 bits a letter


def test_difference_goes_image_by_image_where_both_say_which_were_right() -> None:
    found, blind = difference(known(FOUND), known(RIGHT)), difference(known(FOUND), known(RIGHT, with_answers=False))
    assert (found.low, found.high) == pytest.approx(paired(FOUND, RIGHT))
    assert found.points == blind.points == pytest.approx(100 * (FOUND.mean() - RIGHT.mean()))
    assert (found.is_paired, blind.is_paired) == (True, False)
    assert blind.high - blind.low > 1.5 * (found.high - found.low)  # most answers are the same
    assert not difference(known(FOUND), known(RIGHT[:-1])).is_paired  # other images
    damaged = difference(Known(1e9, 9), Known(-1e9, 9))  # by hand, in the file
    assert (damaged.low < 100, damaged.high) == (True, pytest.approx(100.0))


def test_difference_in_words() -> None:
    low, high = paired(LOST, RIGHT)
    found = difference(known(LOST), known(RIGHT))
    assert in_words(found.points, found, " it") == (
        f"{100 * (RIGHT & ~LOST).sum() / 2003:.2f} points below it (95 % interval {-low:.2f} to {-high:.2f} below, the "
        "same 2,003 images)"
    )
    up = difference(known(RIGHT), known(LOST))
    assert up.bounds == f"{-high:.2f} to {-low:.2f} above"
    low, high = paired(FOUND, RIGHT)
    assert difference(known(FOUND), known(RIGHT)).bounds == f"{-low:.2f} below to {high:.2f} above"
    assert in_words(-1.0, None, " it") == "1.00 points below it"


def line(condition: str, best: NDArray[np.bool_], unpruned: Record) -> str | None:
    trial = answered(record(2, {"layer_1": 0.5, "layer_2": 0.5}, "a"), best)
    return unsure_line(rank(parse(f"minimise latency_ratio where {condition}"), [unpruned, trial]), [unpruned])


def test_unsure_line_tells_of_the_conditions_that_the_interval_reaches_past() -> None:
    unpruned = answered(record(0, {}, "a", baseline="unpruned"), RIGHT)
    low, _ = paired(LOST, RIGHT)
    lost = 100 * float((RIGHT & ~LOST).sum()) / 2003
    margin = (-low - lost) / 2  # half of the interval below is left, so that it takes about four times the images
    assert line(f"top1 >= unpruned - {lost + margin}", LOST, unpruned) == (
        "The choice goes by the figures themselves. With 2,003 validation images it is not sure that trial_0002 keeps "
        f"top1 >= unpruned - {lost + margin:g} (it may lie {margin:.2f} points below that); about 4.0 times as many "
        "would tell, should the figures stay as they are (a larger Data(validation_fraction=...) of another study)."
    )
    fourfold = [np.tile(bits, 4) for bits in (LOST, RIGHT)]
    assert paired(fourfold[0], fourfold[1])[0] == pytest.approx(-lost - margin, abs=0.03)
    assert "more than 20 times as many" in (line(f"top1 >= unpruned - {lost + 0.001}", LOST, unpruned) or "")
    assert line(f"top1 >= unpruned - {-low + 0.01}", LOST, unpruned) is None  # beyond the interval's end
    assert line("latency_ratio <= 0.99", LOST, unpruned) is None
    assert line("top1 >= unpruned + 50", LOST, unpruned) is None  # there is no best


def test_unsure_line_of_a_condition_that_is_just_kept_or_missed_by_nothing_that_is_shown() -> None:
    """Of 200 images, 180 and 176 are right: 2 points less; (4 + 1.96 * (6 - 16 / 202) ** 0.5) / 202 at the worst."""
    bits = np.arange(200)
    unpruned = answered(record(0, {}, "a", baseline="unpruned"), bits < 180)
    for condition, below in (("top1 >= unpruned - 2", "2.34"), ("top1 >= 88", "5.23")):
        assert (line(condition, bits < 176, unpruned) or "").endswith(
            f"keeps {condition} (it may lie {below} points below that); no number of images would tell, should the "
            "figures stay as they are, since a figure lies at its bound."
        )
    assert line("top1 >= unpruned - 4.34", bits < 176, unpruned) is None  # it may be 4.341 points less
    assert "; about 1.1 times as many would tell" in (line("top1 >= unpruned - 4.3", bits < 176, unpruned) or "")


def test_unsure_line_of_a_number_a_share_and_an_older_study() -> None:
    unpruned = answered(record(0, {}, "a", baseline="unpruned"), RIGHT)
    share, n = float(LOST.mean()), len(LOST)
    bound = 100 * share - 0.1
    low = (share + 1.9207 / n - 1.96 * math.sqrt(share * (1 - share) / n + 0.9604 / n**2)) / (1 + 3.8415 / n)  # Wilson
    told = line(f"top1 > {bound}", LOST, unpruned)
    assert f"top1 > {bound:g} (it may lie {bound - 100 * low:.2f} points below that)" in (told or "")
    assert line(f"top1 > {100 * low - 0.01}", LOST, unpruned) is None
    keeps, low = 100 * share - 98 * float(RIGHT.mean()), paired(LOST, RIGHT, 0.98)[0]
    assert low < 0 < keeps
    told = line("top1 >= 0.98 * unpruned", LOST, unpruned)  # of a share of its top1, image by image too
    assert f"top1 >= 0.98 * unpruned (it may lie {-low:.2f} points below that)" in (told or "")
    older = replace(unpruned, answers=None)
    assert "top1 >= unpruned - 3 (" in (line("top1 >= unpruned - 3", LOST, older) or "")  # Newcombe's is wider
    assert line("top1 >= unpruned - 3", LOST, unpruned) is None
    blind = record(2, {"layer_1": 0.5, "layer_2": 0.5}, "a")
    assert unsure_line(rank(parse("minimise latency_ratio where top1 >= 1"), [unpruned, blind]), [unpruned]) is None
