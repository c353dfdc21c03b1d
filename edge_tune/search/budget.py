"""A study's budget of epochs: what was spent, and what those trials may take that run now."""

from collections.abc import Iterable

from edge_tune.experiment import Experiment
from edge_tune.records.results import Record


class Budget:
    """Counts the epochs of retraining of all trials but the baselines, over all sessions of a study.

    A trial begins only if it can come to its end: so a budget is never exceeded, but by trials that were continued on
    demand. Of one that began anew then, the epochs before count too. What a lost process had trained since its last
    checkpoint is not counted.
    """

    def __init__(self, experiment: Experiment, records: Iterable[Record] = ()) -> None:
        self.epochs = experiment.search.epochs
        self.of_a_trial = experiment.retraining.epochs
        self._spent: dict[int, int] = {}
        self._running: dict[int, int] = {}
        for record in records:
            self.know(record)

    def begin(self, trial: int, *, anew: bool = False) -> None:
        """Set aside what a trial may take that begins, or goes on from where it was paused, unless it begins `anew`."""
        self._running[trial] = self.of_a_trial - (0 if anew else self._spent.get(trial, 0))

    def know(self, record: Record) -> None:
        """Count a trial that ended."""
        self._running.pop(record.trial, None)
        if record.baseline is None and record.same_as is None:
            self._spent[record.trial] = record.epochs_trained

    @property
    def spent(self) -> int:
        """Epochs of the trials that have ended."""
        return sum(self._spent.values())

    @property
    def left(self) -> int:
        """Epochs that no trial that has ended took."""
        return max(0, (self.epochs or 0) - self.spent)

    def affords(self, epochs: int) -> bool:
        """Tell whether another trial may take so many epochs, beside those that run."""
        if self.epochs is None:
            return True
        return self.spent + sum(self._running.values()) + epochs <= self.epochs
