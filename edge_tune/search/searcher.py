"""What is tried next: baselines, what an earlier session left, then what the method of search suggests; nothing twice.

Records are the only state: a searcher that is given those of an earlier session goes on as if there had been none.
"""

import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from ray.tune.search import Searcher as RaySearcher

from edge_tune.errors import StudyError, first_line
from edge_tune.experiment import Experiment
from edge_tune.objective import FrontOf
from edge_tune.parameters import Point
from edge_tune.records.entries import Metrics, left_out
from edge_tune.records.results import Planned, Record
from edge_tune.records.scoring import Score, Scorer
from edge_tune.search import suggesters
from edge_tune.search.budget import Budget
from edge_tune.search.paused import Paused
from edge_tune.search.points import count_points, random_point
from edge_tune.search.repeats import Networks, Repeat
from edge_tune.search.suggesters.protocol import LearnsOfParts, Outcome, Problem
from edge_tune.search.trainable import Config, Planner, baseline_name

ASKED = 10
"""So many suggestions in a row whose networks were tried before are followed by a point drawn at random."""

DRAWN = 200
"""So many random points whose networks were all tried before end the search."""

TRIED_FIRST = 3
"""So many of the best points of earlier studies are tried first, but no more than a quarter of the trials."""

SKIPPED = 10_000
"""So many points in a row of a method that suggests each once, all of networks that were tried, end the search."""


def count_trials(experiment: Experiment) -> int | None:
    """Return how many networks a study tries, baselines included; a grid may have fewer points than asked.

    None: as many as its epochs afford.
    """
    if experiment.search.trials is None:
        return None
    return len(experiment.baseline_names) + _count_searched(experiment)


def _count_searched(experiment: Experiment) -> int:
    """Return how many networks are tried at most: one for each epoch where the epochs alone are limited."""
    trials = experiment.search.trials or experiment.search.epochs
    assert trials is not None  # the experiment was checked
    if experiment.search.method == "grid":
        return min(trials, count_points(experiment.parameters) or trials)
    return trials


class Searcher(RaySearcher):
    """Hands Ray Tune one trial after another, and the method of search what came of each.

    Suggestions depend on the seed and the results only: a study that was interrupted and resumed
    between two trials goes on with the very suggestions that it would have made. A trial whose
    process was lost is suggested again, under its number; for the method of search it runs all the while.

    A point whose network was tried before, or is tried now, is not suggested to Ray: it has a number and takes the
    other's record over, the method of search is told the outcome, and the next point is looked at. It does not count as
    one of `Search(trials=...)`.

    Args:
        planner: Tells the networks of points.
        ended: Records of an earlier session; they teach, and are not suggested again, but for those `continued`. That
            of the unpruned network, to compare with, too.
        unfinished: Number -> point of the trials that an earlier session began and did not end.
        attempts: Number -> how often an earlier session began the trial.
        continued: Those of the unfinished that were paused, and are to be trained to their end. Until they come to it,
            their records teach as they were then.
        paused: What may be continued if epochs are left that no other trial can take; None: nothing.
        earlier: Records of earlier studies, with numbers below 0: they teach, and the best of them are tried first.
        expected: Number -> what the method of search expected of trials of an earlier session.

    Attributes:
        expected: The same of all trials of which it said something.
        exhausted: Why there is no other network to try, or None.
        has_retrained: Whether any trial, a baseline's too, has come through an epoch of retraining and did not fail.
    """

    def __init__(
        self,
        experiment: Experiment,
        planner: Planner,
        ended: Sequence[Record] = (),
        unfinished: Mapping[int, Point] | None = None,
        attempts: Mapping[int, int] | None = None,
        continued: Collection[int] = (),
        paused: Paused | None = None,
        earlier: Sequence[Record] = (),
        expected: Mapping[int, Metrics] | None = None,
    ) -> None:
        super().__init__()
        self.continued, self.paused = set(continued), paused
        self.expected = dict(expected or {})
        self.budget = Budget(experiment, ended)
        self.promotions: list[Record] = []
        self.experiment, self.planner = experiment, planner
        self.networks = Networks()
        self.repeats: list[Record] = []
        self.waits: list[Repeat] = []
        self.exhausted: str | None = None
        self.has_retrained = False
        self.attempts = Counter(attempts or {})
        self.running: set[str] = set()
        self.lost: set[int] = set()
        self.names: dict[int, str] = {}
        self.scorer = Scorer(experiment.objective)
        self.suggester = suggesters.make(
            experiment,
            Problem(
                experiment=experiment,
                scorer=self.scorer,
                plan=lambda point: planner(point, is_baseline=False),
                shape=planner.shape,
                importances=planner.importances,
            ),
        )
        self.earlier = list(earlier)
        self.first_points: Sequence[Point] = ()
        self.undecided: list[Record] = []
        self.ranked: dict[int, tuple[Record, Score | None]] = {}  # of a front: slim records, and the score last told
        self.begun = self.repeats_in_a_row = 0
        baselines = dict(enumerate(map(experiment.baseline_point, experiment.baseline_names), 1))
        done = {record.trial for record in ended} - self.continued
        waiting = {**baselines, **(unfinished or {})}
        self.waiting = deque(
            sorted(((number, point) for number, point in waiting.items() if number not in done), key=lambda one: one[0])
        )
        self.next_number = max([0, *baselines, *done, *waiting]) + 1
        for record in sorted(ended, key=lambda record: record.trial):
            if record.trial:
                self._replay(record)
            else:
                self.scorer.know(record)  # the unpruned network is no point
        self._teach()

    def suggest(self, trial_id: str) -> Config | str | None:  # type: ignore[override]  # its annotation forgets two
        """Return the next point, its number and attempt; None while the last ones run, then FINISHED.

        Raises:
            StudyError: The method of search fails, or suggests what is no point of the search space.
        """
        while (drawn := self._draw()) is not None:
            number, point = drawn
            if self._begins(number, point):
                self.attempts[number] += 1
                self.names[number] = trial_id
                self.running.add(trial_id)
                if not self._is_baseline(number):
                    self.budget.begin(number, anew=self.paused is not None and self.paused.begins_anew(number))
                return {"trial": number, "attempt": self.attempts[number], "point": dict(point)}
        return None if self.running else self.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing from Ray: `end` brings the record, and `run_again` what has none."""

    def run_again(self, config: Config) -> None:
        """Have the trial of a lost process begin once more, before any new one."""
        number = config["trial"]
        self.running.discard(self.names.pop(number))
        self.lost.add(number)
        self.waiting.appendleft((number, config["point"]))

    def end(self, record: Record) -> None:
        """Learn from a trial that ended; have its record taken over by those that wait for it and by those to come."""
        self.running.discard(self.names.pop(record.trial))
        self.budget.know(record)
        self._learn(record)
        for repeat in self.networks.end(record):
            self._take_over(repeat, record)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: Ray Tune's files are never read, and the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing, for the same reason."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, for the same reason."""
        return {}

    def take_news(self) -> tuple[list[Repeat], list[Record]]:
        """Return the trials that wait for another's record, and the records that were taken over, each once."""
        news = self.waits, self.repeats
        self.waits, self.repeats = [], []
        return news

    def take_promotions(self) -> list[Record]:
        """Return the paused trials that are continued from now on, as they were paused, each once."""
        taken, self.promotions = self.promotions, []
        return taken

    def take_notes(self) -> list[str]:
        """Return the sentences for the user that the method of search has left, each once; most leave none."""
        notes: list[str] = getattr(self.suggester, "notes", [])
        taken = list(notes)
        notes.clear()
        return taken

    def _draw(self) -> tuple[int, Point] | None:
        """Return the next number and its point, which the method of search now knows; None: there is none."""
        if self.waiting:
            number, point = self.waiting.popleft()
            if number in self.lost:
                self.lost.discard(number)
                return number, point
        else:
            if (new := self._next()) is None:
                return self._promotion()
            number, point = self.next_number, new
            self.next_number += 1
        if number not in self.continued:
            self._tell_begun(number, point)
        return number, point

    def _next(self) -> Point | None:
        """Return the point of another trial, if the study has one to try and can afford it."""
        if self.begun >= _count_searched(self.experiment) or not self.budget.affords(self.budget.of_a_trial):
            return None
        return None if self._is_exhausted() else self._new_point()

    def _promotion(self) -> tuple[int, Point] | None:
        """Return the paused trial that is continued next, with the epochs that are left; its outcome is told anew."""
        if self.budget.epochs is None or self.paused is None:
            return None
        if (record := self.paused.best(self.budget.affords)) is None:
            return None
        self.paused.forget(record.trial)
        self.promotions.append(record)
        self.continued.add(record.trial)
        return record.trial, record.point

    def _teach(self) -> None:
        """Tell the method of search what earlier studies found, once that can be scored; note the best points."""
        if not self.scorer.is_ready or not self.earlier:
            return
        earlier, self.earlier = self.earlier, []
        whole = [one for one in earlier if self.experiment.objective.metrics_in(one.metrics)]
        scores = self.scorer.scores(whole)
        for record in earlier:
            if record.trial in scores:
                self._keep_ranked(record, scores[record.trial])
                self._tell_ended(record, scores[record.trial])
            elif isinstance(self.suggester, LearnsOfParts):
                self.suggester.tell_part(dict(record.point), record)
        if not getattr(self.suggester, "learns", True):
            return
        best = sorted(
            (one for one in whole if scores[one.trial].rank == 0), key=lambda one: (scores[one.trial], -one.trial)
        )
        points = {self.planner(one.point, is_baseline=False).digest: dict(one.point) for one in reversed(best)}
        most = min(TRIED_FIRST, max(1, self.experiment.planned_trials // 4))
        self.first_points = list(reversed(points.values()))[:most]

    def _new_point(self) -> Point | None:
        place = self.next_number - 1 - len(self.experiment.baseline_names)
        if place < len(self.first_points):
            return self.first_points[place]
        if not self.suggester.is_exhaustive and self.repeats_in_a_row >= ASKED:
            return self._untried_point()
        method = self.experiment.search.method
        if self.repeats_in_a_row >= SKIPPED:
            self.exhausted = f"the {method} is exhausted: {SKIPPED} points in a row gave networks that were tried"
            return None
        if (point := self._suggestion()) is None:
            size = count_points(self.experiment.parameters)
            points = (
                "there is nothing else that it suggests" if size is None else f"each of its {size} points was looked at"
            )
            self.exhausted = f"the {method} is exhausted: {points}"
        return point

    def _suggestion(self) -> Point | None:
        """Return what the method of search suggests, once it was looked at.

        Raises:
            StudyError: It fails, or suggests what is no point of the search space.
        """
        method, parameters = self.experiment.search.method, self.experiment.parameters
        self._tell_scores()
        try:
            point = self.suggester.suggest()
        except (Exception, SystemExit) as error:
            raise StudyError(
                f"the search method {method!r} must suggest a point, but raised {type(error).__name__}: "
                f"{first_line(error)}."
            ) from error
        if point is None:
            return None
        if not isinstance(point, Mapping) or point.keys() != parameters.keys():
            raise StudyError(
                f"the search method {method!r} must suggest a value for each of {list(parameters)}, but suggested "
                f"{point!r}."
            )
        for name, parameter in parameters.items():
            if point[name] not in parameter:
                raise StudyError(
                    f"the search method {method!r} must suggest {name} within {parameter.shown}, but suggested "
                    f"{point[name]!r}."
                )
        if expected := getattr(self.suggester, "expected", None):
            self.expected[self.next_number] = dict(expected)
        return {name: parameter.taken(point[name]) for name, parameter in parameters.items()}

    def _untried_point(self) -> Point | None:
        """Return a random point that gives a network which the search has not come upon; its number decides it."""
        generator = random.Random(f"{self.experiment.search.seed} {self.next_number}")
        for _ in range(DRAWN):
            point = random_point(self.experiment.parameters, generator)
            if self.planner(point, is_baseline=False).digest not in self.networks.searched:
                return point
        self.exhausted = f"the space is exhausted: each of {DRAWN} points drawn at random gave a network that was tried"
        return None

    @cached_property
    def size(self) -> int | None:
        """How many different networks the points give, if that can be counted."""
        return self.planner.count()

    def _is_exhausted(self) -> bool:
        """Tell whether there is no other network; nobody asks before a network came again."""
        if self.repeats_in_a_row and self.size is not None and len(self.networks.searched) >= self.size:
            self.exhausted = f"the space is exhausted: each network that its points give was tried, {self.size} in all"
        return self.exhausted is not None

    def _begins(self, number: int, point: Point) -> bool:
        """Tell whether a trial is to begin: its network is a new one, or it is a baseline or a lost trial."""
        if self.networks.is_under_way(number):
            return True
        is_baseline = self._is_baseline(number)
        planned = self.planner(point, is_baseline=is_baseline)
        if number in self.continued:
            self.networks.reopen(planned.digest)
        elif not is_baseline and self._repeats(number, point, planned):
            return False
        self.networks.begin(number, planned.digest)
        return True

    def _repeats(self, number: int, point: Point, planned: Planned) -> bool:
        """Tell whether another trial has or had this network; then this one takes its record over, now or later."""
        record, other = self.networks.record(planned.digest), self.networks.trying(planned.digest)
        self._count(planned.digest, repeats=bool(record or other))
        if record:
            self._take_over(Repeat(number, record.trial, point, planned), record)
        elif other:
            repeat = Repeat(number, other, point, planned)
            self.networks.waiting.setdefault(planned.digest, []).append(repeat)
            self.waits.append(repeat)
        return bool(record or other)

    def _count(self, digest: str, *, repeats: bool) -> None:
        """Count a network that the search came upon."""
        self.networks.searched.add(digest)
        self.begun += not repeats
        self.repeats_in_a_row = self.repeats_in_a_row + 1 if repeats else 0

    def _take_over(self, repeat: Repeat, record: Record) -> None:
        own = repeat.take_over(record)
        self._learn(own)
        self.networks.know(own, repeat.planned.digest)
        self.repeats.append(own)

    def _replay(self, record: Record) -> None:
        """Learn what an earlier session found, as if it were found now."""
        self._tell_begun(record.trial, record.point)
        self._learn(record)
        digest = self.planner.digest(record)
        self.networks.know(record, digest)
        if not record.baseline:
            self._count(digest, repeats=record.same_as is not None)

    def _tell_begun(self, number: int, point: Point) -> None:
        self._tell(point, Outcome(trial=number, is_baseline=self._is_baseline(number)))

    def _tell(self, point: Point, outcome: Outcome) -> None:
        """Tell the method of search of a trial; what it does with the point is its own.

        Raises:
            StudyError: It fails.
        """
        if not point:  # the unpruned network's
            return
        try:
            self.suggester.tell(dict(point), outcome)
        except (Exception, SystemExit) as error:
            raise StudyError(
                f"the search method {self.experiment.search.method!r} must take what is told of trial {outcome.trial}, "
                f"but raised {type(error).__name__}: {first_line(error)}."
            ) from error

    def _learn(self, record: Record) -> None:
        """Tell the method of search how a trial ended, once the objective's baselines are known."""
        self.scorer.know(record)
        self.has_retrained |= record.status != "failed" and record.epoch > 0
        self.undecided.append(record)
        if not self.scorer.is_ready:
            return
        decided, self.undecided = self.undecided, []
        self._teach()
        for one in decided:
            score = self._score(one)
            self._tell_ended(one, score)
            if score is not None:
                self._keep_ranked(one, score)

    def _keep_ranked(self, record: Record, score: Score) -> None:
        """Keep what is needed to rank a trial of a front anew."""
        if isinstance(self.experiment.objective.goal, FrontOf):
            self.ranked[record.trial] = replace(record, curve=(), layers=()), score

    def _tell_ended(self, record: Record, score: Score | None) -> None:
        self._tell(
            record.point,
            Outcome(
                trial=record.trial,
                is_baseline=record.baseline is not None or record.trial < 0,
                record=record,
                score=score,
                inactive=self._inactive(record),
            ),
        )

    def _inactive(self, record: Record) -> frozenset[str]:
        """Return the parameters that made no difference to a trial."""
        if record.trial > 0 and not left_out(record.plan):
            return frozenset()
        return self.planner(record.point, is_baseline=record.baseline is not None).inactive

    def _tell_scores(self) -> None:
        """Tell the method of search the scores that have changed because other trials ended: those of a front."""
        if not self.ranked:
            return
        scores = self.scorer.scores([record for record, _ in self.ranked.values()])
        for trial, (record, told) in self.ranked.items():
            if scores[trial] != told:
                self.ranked[trial] = record, scores[trial]
                self._tell_ended(record, scores[trial])

    def _score(self, record: Record) -> Score | None:
        """Return how good a trial is; None if it failed, unless it diverged, which is worse than all others."""
        if record.status == "failed" and not (record.diverged and self.scorer.objective.metrics_in(record.metrics)):
            return None
        return self.scorer.score(record)

    def _is_baseline(self, number: int) -> bool:
        return baseline_name(self.experiment, number) is not None
