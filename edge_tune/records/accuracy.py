"""How well accuracies are known: intervals of top1 and of its differences, and whether a condition is surely kept.

The choice goes by the point figures; what stands here says how far they may be trusted. Of two networks that answered
the same images, the images count that one alone is right for. Where a record does not say which these are, as those of
earlier versions do not, the two are compared as if of different images, which gives a wider interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_tune.objective import Condition
from edge_tune.records import proportions
from edge_tune.records.choosing import Ranking
from edge_tune.records.entries import Answers
from edge_tune.records.results import Record

Split = Literal["validation", "test"]


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
        """The interval in brackets."""
        low, high = self.interval
        return f"[{low:.1f}, {high:.1f}]"


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


def difference(mine: Known, other: Known) -> Difference:
    """Return how far one top1 is from another, with its interval: Bonett and Price's, or Newcombe's without pairs."""
    points = mine.top1 - other.top1
    if mine.answers and other.answers and mine.images == other.images:
        alone = mine.answers.alone(other.answers), other.answers.alone(mine.answers)
        low, high = proportions.paired_difference(*alone, mine.images)
        return Difference(points, 100 * low, 100 * high, mine.images, is_paired=True)
    low, high = proportions.difference(mine.counts, other.counts)
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
    unsure = [
        f"{condition.metric} {condition.sign} {condition.bound.text} (it may lie {reach})"
        for condition in ranking.objective.conditions
        if condition.metric == "top1" and (reach := _beyond(condition, known, by_name.get(condition.bound.of or "")))
    ]
    if not unsure:
        return None
    return (
        f"The choice goes by the figures themselves. With {known.images:,} validation images it is not sure "
        f"that {best.name} keeps {' and '.join(unsure)}; more validation images would tell, by a larger "
        f"Data(validation_fraction=...) of another study."
    )


def _beyond(condition: Condition, best: Known, of: Record | None) -> str | None:
    """Return how far beyond its bound a condition's figure may lie within its interval; None if not beyond."""
    bound = condition.bound
    if bound.of is None:
        low, high = best.interval
    elif of is None or "top1" not in of.metrics:
        return None
    else:
        other = validation_top1(of) or Known(float(of.metrics["top1"]), best.images)
        if bound.factor == 1:
            found = difference(best, other)
            low, high = found.low, found.high
        else:
            low, high = (100 * end for end in proportions.difference(best.counts, other.counts, bound.factor))
    if condition.sign in (">=", ">"):
        return f"{bound.offset - low:.2f} points below that" if low < bound.offset else None
    return f"{high - bound.offset:.2f} points above that" if high > bound.offset else None
