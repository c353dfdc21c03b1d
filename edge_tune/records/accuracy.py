"""How well accuracies are known: intervals of top1 and of its differences, and whether a condition is surely kept.

The choice goes by the point figures; what stands here says how far they may be trusted. Of two networks that answered
the same images, the images count that one alone is right for. Where a record does not say which these are, as those of
earlier versions do not, the two are compared as if of different images, which gives a wider interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_tune.objective import Condition
from edge_tune.records import proportions
from edge_tune.records.choosing import Ranking
from edge_tune.records.entries import Answers
from edge_tune.records.results import Record

Split = Literal["validation", "test"]

TOLD = 0.005
"""Points by which an interval must reach past a bound for that to be told: fewer are shown as 0.00."""

COARSE = 0.1
"""An interval that is narrower, in points, is told by hundredths; report/page.js does so too."""

MOST_TIMES = 20
"""So many times the images at most are told: more are hardly to be had, and need not tell either."""


@dataclass(frozen=True)
class Known:
    """A top1 in percent, over so many images.

    Attributes:
        answers: Which images it is made of; None if that is not known.
    """

    top1: float
    images: int
    answers: Answers | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """The images that the network is right for, and all."""
        if self.answers:
            return self.answers.correct, self.images
        return round(max(0.0, min(self.top1, 100.0)) * self.images / 100), self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (Wilson), in percent."""
        low, high = proportions.wilson(*self.counts)
        return 100 * low, 100 * high

    @property
    def text(self) -> str:
        """The interval in brackets, by hundredths where tenths would be too coarse to show that it has a width."""
        low, high = self.interval
        digits = 1 if high - low >= COARSE else 2
        return f"[{low:.{digits}f}, {high:.{digits}f}]"


@dataclass(frozen=True)
class Difference:
    """By how many points a top1 lies above another one, and the 95 % interval.

    Attributes:
        is_paired: Whether the networks were compared image by image.
    """

    points: float
    low: float
    high: float
    images: int
    is_paired: bool

    @property
    def over(self) -> str:
        """What the interval is of, in words."""
        if self.is_paired:
            return f"the same {self.images:,} images"
        return f"{self.images:,} images, not compared one by one, since a record does not say which were right"

    @property
    def bounds(self) -> str:
        """The interval in words: "2.20 to 0.60 below", "1.20 below to 0.40 above"."""
        if self.high <= 0:
            return f"{-self.low:.2f} to {abs(self.high):.2f} below"
        if self.low >= 0:
            return f"{self.low:.2f} to {self.high:.2f} above"
        return f"{-self.low:.2f} below to {self.high:.2f} above"


def validation_top1(record: Record) -> Known | None:
    """Return a network's top1 on validation with what is known of it; None if it is not known how many images it is of.

    That is so of formulas, and of the records of earlier versions.
    """
    if record.answers is None or "top1" not in record.metrics:
        return None
    return Known(float(record.metrics["top1"]), record.answers.images, record.answers)


def difference(mine: Known, other: Known, factor: float = 1.0) -> Difference:
    """Return how far one top1 is from `factor` times another, with its interval.

    That is Bonett and Price's, or Newcombe's where the networks cannot be compared image by image.
    """
    points = mine.top1 - factor * other.top1
    if mine.answers and other.answers and mine.images == other.images:
        alone = mine.answers.alone(other.answers), other.answers.alone(mine.answers)
        both = mine.answers.correct - alone[0]
        low, high = proportions.paired_difference(*alone, mine.images, factor, both)
        return Difference(points, 100 * low, 100 * high, mine.images, is_paired=True)
    low, high = proportions.difference(mine.counts, other.counts, factor)
    return Difference(points, 100 * low, 100 * high, min(mine.images, other.images), is_paired=False)


def points_text(points: float) -> str:
    """Return a difference in words."""
    return f"{abs(points):.2f} points {'below' if points < 0 else 'above'}"


def in_words(points: float, found: Difference | None, whom: str = "") -> str:
    """Return a difference of top1 in words, with its interval where that is known.

    Args:
        whom: The other network, with a blank before it.
    """
    text = points_text(points) + whom
    return f"{text} (95 % interval {found.bounds}, {found.over})" if found else text


def unsure_line(ranking: Ranking, baselines: Sequence[Record]) -> str | None:
    """Return a sentence on the conditions that the best keeps by its figures, and its intervals do not; None if none.

    Args:
        baselines: Of the study, whose answers may be needed.
    """
    best = ranking.best
    known = validation_top1(best) if best else None
    if best is None or known is None:
        return None
    by_name = {record.name: record for record in baselines}
    asked = [condition for condition in ranking.objective.conditions if condition.metric == "top1"]
    found = {one: _reach(one, known, by_name.get(one.bound.of or "")) for one in asked}
    unsure = {one: reach for one, reach in found.items() if reach and reach.beyond >= TOLD}
    if not unsure:
        return None
    told = [
        f"{one.metric} {one.sign} {one.bound.text} (it may lie {reach.beyond:.2f} points "
        f"{'above' if one.sign in ('<', '<=') else 'below'} that)"
        for one, reach in unsure.items()
    ]
    return (
        f"The choice goes by the figures themselves. With {known.images:,} validation images it is not sure that "
        f"{best.name} keeps {' and '.join(told)}; {_more(max(reach.times for reach in unsure.values()))}."
    )


def _more(times: float) -> str:
    """Return how many times the images would tell, should the figures stay as they are; infinite: no number would."""
    if math.isinf(times):
        return "no number of images would tell, should the figures stay as they are, since a figure lies at its bound"
    times = math.ceil(10 * times - 1e-6) / 10  # fewer would not
    more = f"about {times:.1f}" if times <= MOST_TIMES else f"more than {MOST_TIMES}"
    return (
        f"{more} times as many would tell, should the figures stay as they are (a larger "
        f"Data(validation_fraction=...) of another study)"
    )


@dataclass(frozen=True)
class _Reach:
    """How far the interval of a figure reaches past a bound that the figure keeps, in points.

    Attributes:
        times: So many times the images would end the interval at the bound: its width goes with their square root.
            Infinite where the figure lies at the bound.
    """

    beyond: float
    times: float


def _reach(condition: Condition, best: Known, of: Record | None) -> _Reach | None:
    """Return how far the interval reaches past a condition's bound; None where that cannot be told."""
    bound, figure = condition.bound, best.top1
    if bound.of is None:
        low, high = best.interval
    elif of is None or "top1" not in of.metrics:
        return None
    else:
        other = validation_top1(of) or Known(float(of.metrics["top1"]), best.images)
        found = difference(best, other, bound.factor)
        figure, low, high = found.points, found.low, found.high
    to_the_end, margin = (figure - low, figure - bound.offset)
    if condition.sign in ("<", "<="):
        to_the_end, margin = high - figure, bound.offset - figure
    return _Reach(to_the_end - margin, (to_the_end / margin) ** 2 if margin > 1e-9 else math.inf)
