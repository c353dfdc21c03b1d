"""HyperOpt's tree-structured Parzen estimators.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
"""

from collections.abc import Mapping
from heapq import nsmallest

from hyperopt import JOB_STATE_DONE, STATUS_OK, tpe
from hyperopt.base import trials_from_docs

from edge_tune.parameters import Parameter, Point
from edge_tune.search.suggesters.in_hyperopt import Document, Space
from edge_tune.search.suggesters.protocol import Outcome

OBSERVED = 500
"""HyperOpt looks at no more trials that have ended than these: the best, and the latest of the others."""

BEST = 25
"""HyperOpt calls no more trials good than these."""

GOOD = 0.25
"""HyperOpt calls this times the square root of the number of trials good."""


class Tpe:
    """Points like those that did well, and unlike the others, after some that are random.

    Trials that failed are left out, so that their regions count neither as good nor as bad; those that diverged count
    as bad.
    """

    is_exhaustive = False

    def __init__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int) -> None:
        self.space = Space(parameters, seed)
        self.random_first = min(20, max(5, trials // 4))
        self.documents: dict[int, Document] = {}
        self.told: set[int] = set()

    def suggest(self) -> Point | None:
        """Return a point; there is always another."""
        known = [self.documents[trial] for trial in sorted(self.documents.keys() - self._passed_over())]
        (document,) = tpe.suggest(
            [max(self.documents, default=0) + 1],
            self.space.domain,
            trials_from_docs(known, validate=False),
            self.space.seed(len(self.told)),
            n_startup_jobs=self.random_first,
            gamma=GOOD,
        )
        return self.space.point(document)

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Learn of a trial."""
        if not outcome.is_baseline:
            self.told.add(outcome.trial)
        if outcome.has_failed:
            self.documents.pop(outcome.trial, None)
            return
        document = self.documents.setdefault(outcome.trial, self.space.document(outcome.trial, point))
        if outcome.inactive:
            document = self.documents[outcome.trial] = self.space.document(outcome.trial, point, outcome.inactive)
        if outcome.score:
            document["state"] = JOB_STATE_DONE
            document["result"] = {"loss": outcome.score.for_search, "status": STATUS_OK}

    def _passed_over(self) -> set[int]:
        """Return the oldest of those that are not the best, so that a suggestion's cost has a bound.

        Which they are depends on which trials have ended, not on their order.
        """
        ended = {
            trial: one["result"]["loss"] for trial, one in self.documents.items() if one["state"] == JOB_STATE_DONE
        }
        if len(ended) <= OBSERVED:
            return set()
        best = set(nsmallest(BEST, ended, key=lambda trial: (ended[trial], trial)))
        return set(sorted(ended.keys() - best)[: BEST - OBSERVED])
