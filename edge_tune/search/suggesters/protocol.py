"""What a method of search is: it suggests points, and is told what becomes of them.

Everything else is done once, around it (searcher.py): numbers, baselines, lost trials, networks that were tried
before, and what an earlier session found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edge_tune.experiment import Experiment
from edge_tune.parameters import Parameter, Point
from edge_tune.records.results import Planned, Record
from edge_tune.records.scoring import Score, Scorer
from edge_tune.records.shapes import NetworkShape
from edge_tune.search.coding import Importances


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of a trial.

    Attributes:
        trial: Its number; trials are numbered in the order in which they are suggested, baselines before. Those of
            earlier studies that teach this one have numbers below 0, and are told of before the first suggestion.
        is_baseline: Whether its point was given, not suggested: that of a baseline, or of an earlier study.
        record: How it ended, with every metric; None while it runs.
        score: How good that is by the study's objective, the smaller the better, as soon as it can be said, and where
            the objective is a front, as good as the other trials let it be; None if the
            trial failed by what its point has no part in. A trial that diverged failed too, but has a score, which is
            worse than that of any that did not.
        inactive: Parameters that made no difference to it: those of weights that are all in blocks that were left out.
    """

    trial: int
    is_baseline: bool = False
    record: Record | None = None
    score: Score | None = None
    inactive: frozenset[str] = frozenset()

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a result, so that its point counts neither as good nor as bad."""
        return self.record is not None and self.record.status == "failed" and self.score is None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a method of search may know of a study besides its parameters, if it asks for it.

    Attributes:
        experiment: What is searched; its objective among others.
        scorer: Knows the metrics of the baselines, of the unpruned network too, as soon as they are known.
        plan: Point -> what its network is.
        shape: Returns the layers of the unpruned network; None if nobody knows them.
        importances: Of the slices of a group's weights.
    """

    experiment: Experiment
    scorer: Scorer
    plan: Callable[[Point], Planned]
    shape: Callable[[], NetworkShape | None]
    importances: Importances


@runtime_checkable
class Suggester(Protocol):
    """A method of search.

    What it suggests must follow from its parameters, its seed and the outcomes that it was told, in whatever order: a
    study that is resumed makes a new one, tells it the outcomes of the earlier session, and goes on with the very
    points that it would have had.

    It may have `notes`, a list of sentences: they are told to the user and taken from it. It may have `expected`, a
    mapping from metrics to what it expects of the point that it suggested last: it is kept in the trial's record. It
    may have `learns`: if that is False, nothing that came of a trial changes what it suggests, and the best points of
    earlier studies are not tried before its own.
    """

    @property
    def is_exhaustive(self) -> bool:
        """Whether it suggests every point once. If not, it may be followed by a random point when it repeats itself."""

    def suggest(self) -> Point | None:
        """Return the next point, a value within the range of every parameter; None if there is no other.

        Asked again before it was told anything, it suggests the same.
        """

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Learn that a trial begins with a point, or how it ended: each trial is told of twice, by its number.

        A trial that was paused and continued ends, and is told of, once more.
        Where the objective is a front, it is told of again before a suggestion when its score has changed, with a
        record that lacks curve and layers.

        Its point need not have been suggested: baselines, points of an earlier session, random points.
        """


@runtime_checkable
class LearnsOfParts(Protocol):
    """A method of search that learns of latency and accuracy each by itself."""

    def tell_part(self, point: Point, record: Record) -> None:
        """Learn of a trial of an earlier study of which only some metrics are comparable: those that the record has."""


class MakesSuggester(Protocol):
    """What makes a method of search, such as its class."""

    def __call__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int) -> Suggester:
        """Return one that was told nothing yet.

        Args:
            parameters: Name -> what the search may choose; some may have a single value.
            seed: From 0 to 2**32 - 1.
            trials: How many networks the study tries, if each is trained to its end.
        """


class MakesSuggesterOfProblem(Protocol):
    """What makes a method of search that knows more: it is recognised by its argument `problem`."""

    def __call__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int, problem: Problem) -> Suggester:
        """Return one that was told nothing yet; the rest is as in `MakesSuggester`."""
