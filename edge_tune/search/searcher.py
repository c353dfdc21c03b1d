"""What is tried next: HyperOpt's suggestions or a grid's points, and no network twice.

Records are the only state: a searcher that is given those of an earlier session goes on as if there had been none.
"""

import itertools
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from heapq import nsmallest
from typing import Any

from hyperopt import JOB_STATE_DONE, JOB_STATE_ERROR, Trials
from hyperopt.fmin import generate_trial
from ray import tune
from ray.tune.search.hyperopt import HyperOptSearch

from edge_tune.experiment import Choice, Experiment, Point, PrunerGroup, Uniform
from edge_tune.records.results import Planned, Record
from edge_tune.records.scoring import Scorer
from edge_tune.search.points import count_points, grid_point, in_drawn_order, random_point
from edge_tune.search.repeats import Networks, Repeat
from edge_tune.search.trainable import Config, Planner, baseline_name, split_config, to_point

LOSS = "loss"
"""What HyperOpt minimises, which is not what the network loses."""

OBSERVED = 500
"""HyperOpt looks at no more trials that have ended than these: the best, and the latest of the others."""

BEST = 25
"""HyperOpt calls no more trials good than these."""

ASKED = 10
"""So many suggestions in a row whose networks were tried before are followed by a point drawn at random."""

DRAWN = 200
"""So many random points whose networks were all tried before end the search."""


def space(groups: Mapping[str, PrunerGroup]) -> dict[str, Any]:
    """Return the parameters that are left to search, in Ray Tune's terms."""
    parameters: dict[str, Any] = {}
    for label, group in groups.items():
        if isinstance(group.sparsity, Uniform) and group.sparsity.low < group.sparsity.high:
            parameters[label] = tune.uniform(group.sparsity.low, group.sparsity.high)
        if isinstance(group.sparsity, Choice) and len(group.sparsity.values) > 1:
            parameters[label] = tune.choice(list(group.sparsity.values))
        if len(group.structures) > 1:
            parameters[f"{label}:structure"] = tune.choice(list(group.structures))
    return parameters


def to_config(point: Point, groups: Mapping[str, PrunerGroup]) -> Config:
    """Return the config of a point: `to_point` backwards."""
    values = {**point.sparsities, **{f"{label}:structure": kind for label, kind in point.structures.items()}}
    return {key: values[key] for key in space(groups)}


def baseline_points(experiment: Experiment) -> list[Point]:
    """Return the points of the baselines, in their order."""
    structures = {label: group.structures[0] for label, group in experiment.pruner_groups.items()}
    return [Point(sparsities, structures) for sparsities in experiment.baselines.values()]


def count_trials(experiment: Experiment) -> int:
    """Return how many networks a study tries, baselines included; a grid may have fewer points than asked."""
    return len(experiment.baselines) + _count_searched(experiment)


def _count_searched(experiment: Experiment) -> int:
    trials = experiment.search.trials
    return min(trials, count_points(experiment.pruner_groups) or trials) if _is_grid(experiment) else trials


def _is_grid(experiment: Experiment) -> bool:
    return experiment.search.method == "grid"


class Observations(Trials):  # type: ignore[misc]  # HyperOpt has no types
    """HyperOpt's book of trials without those that failed and the oldest, so that a suggestion's cost has a bound.

    Which trials it holds depends on which have ended, not on their order: a resumed study looks at the same.
    """

    _dynamic_trials: list[dict[str, Any]]

    def refresh(self) -> None:
        """Leave out what is not looked at any more. HyperOpt calls this after each change."""
        documents = [document for document in self._dynamic_trials if document["state"] != JOB_STATE_ERROR]
        ended = [document for document in documents if document["state"] == JOB_STATE_DONE]
        if len(ended) > OBSERVED:
            best = {one["tid"] for one in nsmallest(BEST, ended, key=lambda one: (one["result"]["loss"], one["tid"]))}
            others = sorted(document["tid"] for document in ended if document["tid"] not in best)
            forgotten = set(others[: BEST - OBSERVED])
            documents = [document for document in documents if document["tid"] not in forgotten]
        self._dynamic_trials = documents
        super().refresh()


class Searcher(HyperOptSearch):
    """HyperOpt's TPE in Ray Tune, that starts from planned points and from an earlier session, and repeats nothing.

    Suggestions depend on the seed and the results only: a study that was interrupted and resumed
    between two trials goes on with the very suggestions that it would have made. A trial whose
    process was lost is suggested again, under its number; for HyperOpt it never ended.

    A point whose network was tried before, or is tried now, is not suggested to Ray: it has a number and takes the
    other's record over, HyperOpt is told the outcome, and the next point is looked at. It does not count as one of
    `Search(trials=...)`.

    Args:
        planner: Tells the networks of points.
        ended: Records of an earlier session; they teach, and are not suggested again. That of the unpruned network, to
            compare with, too.
        unfinished: Number -> config of the trials that an earlier session began and did not end.
        attempts: Number -> how often an earlier session began the trial.

    Attributes:
        exhausted: Why there is no other network to try, or None.
    """

    def __init__(
        self,
        experiment: Experiment,
        planner: Planner,
        ended: Sequence[Record] = (),
        unfinished: Mapping[int, Config] | None = None,
        attempts: Mapping[int, int] | None = None,
    ) -> None:
        search, self.groups = experiment.search, experiment.pruner_groups
        super().__init__(
            space=self.convert_search_space(space(self.groups)),
            metric=LOSS,
            mode="min",
            n_initial_points=2**31 if search.method == "random" else min(20, max(5, search.trials // 4)),
            random_state_seed=search.seed,
        )
        self._hpopt_trials = Observations()
        self.experiment, self.planner = experiment, planner
        self.networks = Networks()
        self.repeats: list[Record] = []
        self.waits: list[Repeat] = []
        self.exhausted: str | None = None
        self.attempts = Counter(attempts or {})
        self.lost: dict[int, Any] = {}
        self.names: dict[int, str] = {}
        self.scorer = Scorer(experiment.objective)
        self.undecided: list[tuple[str, Record]] = []
        self.begun = self.repeats_in_a_row = 0
        points = enumerate(baseline_points(experiment), 1)
        baselines = {number: to_config(point, self.groups) for number, point in points}
        done = {record.trial for record in ended}
        waiting = {**baselines, **(unfinished or {})}
        self.waiting = deque(sorted((number, config) for number, config in waiting.items() if number not in done))
        self.next_number = max([0, *baselines, *done, *waiting]) + 1
        for record in sorted(ended, key=lambda record: record.trial):
            if record.trial:
                self._replay(record)
            else:
                self.scorer.know(record)  # the unpruned network is no point
        drawn = self.next_number - 1 - len(baselines)
        for _ in range(drawn):
            self._skip_a_suggestion()
        self.is_grid = _is_grid(experiment)
        size = (count_points(self.groups) or 0) if self.is_grid else 0
        self.grid = itertools.islice(in_drawn_order(size, search.seed), drawn, None)

    def suggest(self, trial_id: str) -> Config | str | None:  # type: ignore[override]  # its annotation forgets two
        """Return the next point, its number and attempt; None while the last ones run, then FINISHED."""
        while (drawn := self._draw(trial_id)) is not None:
            number, config = drawn
            if self._begins(trial_id, number, config):
                self.attempts[number] += 1
                self.names[number] = trial_id
                return {**config, "trial": number, "attempt": self.attempts[number]}
        return None if self._live_trial_mapping else self.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing from Ray: `end` brings the record, and `run_again` what has none."""

    def run_again(self, trial_id: str, config: Config) -> None:
        """Have the trial of a lost process begin once more, before any new one."""
        number, point = split_config(config)
        self.lost[number] = self._live_trial_mapping.pop(trial_id)
        self.waiting.appendleft((number, point))

    def end(self, record: Record) -> None:
        """Learn from a trial that ended; have its record taken over by those that wait for it and by those to come."""
        self._learn(self.names.pop(record.trial), record)
        for repeat in self.networks.end(record):
            self._take_over(repeat, record)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune writes it to files that are never read, and the records are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing, for the same reason."""

    def take_news(self) -> tuple[list[Repeat], list[Record]]:
        """Return the trials that wait for another's record, and the records that were taken over, each once."""
        news = self.waits, self.repeats
        self.waits, self.repeats = [], []
        return news

    def _draw(self, trial_id: str) -> tuple[int, Config] | None:
        """Return the next number and its point, which HyperOpt now knows under `trial_id`; None: there is none."""
        if self.waiting:
            number, config = self.waiting.popleft()
            if number in self.lost:
                self._live_trial_mapping[trial_id] = self.lost.pop(number)
            else:
                self._enter(trial_id, config)
            return number, config
        if self.begun >= _count_searched(self.experiment) or self._is_exhausted():
            return None
        if (new := self._new_point(trial_id)) is None:
            return None
        self.next_number += 1
        return self.next_number - 1, new

    def _new_point(self, trial_id: str) -> Config | None:
        if not self.is_grid and self.repeats_in_a_row < ASKED:
            return super().suggest(trial_id) or {}
        if (point := self._next_of_grid() if self.is_grid else self._untried_point()) is None:
            return None
        config = to_config(point, self.groups)
        self._enter(trial_id, config)
        return config

    def _next_of_grid(self) -> Point | None:
        number = next(self.grid, None)
        if number is not None:
            return grid_point(self.groups, number)
        self.exhausted = f"the grid is exhausted: each of its {count_points(self.groups)} points was looked at"
        return None

    def _untried_point(self) -> Point | None:
        """Return a random point that gives a network which the search has not come upon; its number decides it."""
        self._skip_a_suggestion()
        generator = random.Random(f"{self.experiment.search.seed} {self.next_number}")
        for _ in range(DRAWN):
            point = random_point(self.groups, generator)
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

    def _skip_a_suggestion(self) -> None:
        """Draw the random number that a suggestion takes: a resumed study goes on with the one after it."""
        self.rstate.randint(2**31 - 1)

    def _begins(self, trial_id: str, number: int, config: Config) -> bool:
        """Tell whether a trial is to begin: its network is a new one, or it is a baseline or a lost trial."""
        if self.networks.is_under_way(number):
            return True
        point = to_point(config, self.groups)
        is_baseline = baseline_name(self.experiment, number) is not None
        planned = self.planner(point, is_baseline=is_baseline)
        if not is_baseline and self._repeats(trial_id, number, point, planned):
            return False
        self.networks.begin(number, planned.digest)
        return True

    def _repeats(self, trial_id: str, number: int, point: Point, planned: Planned) -> bool:
        """Tell whether another trial has or had this network; then this one takes its record over, now or later."""
        record, other = self.networks.record(planned.digest), self.networks.trying(planned.digest)
        self._count(planned.digest, repeats=bool(record or other))
        if not (record or other):
            return False
        self._live_trial_mapping[_name(number)] = self._live_trial_mapping.pop(trial_id)
        if record:
            self._take_over(Repeat(number, record.trial, point, planned), record)
        elif other:
            repeat = Repeat(number, other, point, planned)
            self.networks.waiting.setdefault(planned.digest, []).append(repeat)
            self.waits.append(repeat)
        return True

    def _count(self, digest: str, *, repeats: bool) -> None:
        """Count a network that the search came upon."""
        self.networks.searched.add(digest)
        self.begun += not repeats
        self.repeats_in_a_row = self.repeats_in_a_row + 1 if repeats else 0

    def _take_over(self, repeat: Repeat, record: Record) -> None:
        own = repeat.take_over(record)
        self._learn(_name(repeat.trial), own)
        self.networks.know(own, repeat.planned.digest)
        self.repeats.append(own)

    def _replay(self, record: Record) -> None:
        """Learn what an earlier session found, as if it were found now."""
        point = Point(record.sparsities, record.structures)
        self._enter(_name(record.trial), to_config(point, self.groups))
        self._learn(_name(record.trial), record)
        digest = self.planner.digest(record)
        self.networks.know(record, digest)
        if not record.baseline:
            self._count(digest, repeats=record.same_as is not None)

    def _learn(self, trial_id: str, record: Record) -> None:
        """Tell HyperOpt how a trial ended, once the baselines are known that the objective compares with."""
        self.scorer.know(record)
        self.undecided.append((trial_id, record))
        if not self.scorer.is_ready:
            return
        decided, self.undecided = self.undecided, []
        for name, one in decided:
            if one.status == "failed":
                super().on_trial_complete(name, error=True)
            else:
                super().on_trial_complete(name, {LOSS: self.scorer.score(one).for_search})

    def _enter(self, trial_id: str, config: Config) -> None:
        """Enter a point that HyperOpt did not suggest, as if it had."""
        values = dict(config)
        self._convert_categories_to_indices(values)
        (number,) = self._hpopt_trials.new_trial_ids(1)
        document = generate_trial(number, values)
        self._hpopt_trials.insert_trial_doc(document)
        self._hpopt_trials.refresh()
        self._live_trial_mapping[trial_id] = (number, document)


def _name(number: int) -> str:
    """Return the name under which HyperOpt knows a trial that Ray does not know."""
    return f"trial {number}"
