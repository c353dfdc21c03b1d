"""The trials that ASHA or the prediction has paused: which of them promises most, and which can go on where it was."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from edge_tune.records.endings import is_paused
from edge_tune.records.entries import Evidence
from edge_tune.records.results import Record, Results, Stop
from edge_tune.search.gate import Gate
from edge_tune.search.prediction import Outlook

KEPT = 20
"""So many paused trials keep their checkpoint: those that promise most. One has 8 bytes a parameter with SGD: its
weights and their momentum; 7 MB for an unpruned ResNet-56."""


def stops_of(record: Record, *, anew: bool) -> tuple[Stop, ...]:
    """Return all that a paused trial was paused by, the last of which it is continued after, or begins `anew`."""
    assert record.stopped_by
    return (*record.paused, Stop(record.stopped_by, record.epoch, record.reason or "", anew))


def let_go_before(results: Results) -> set[int]:
    """Return the paused trials of a study whose checkpoint was let go, and those continued that began anew."""
    continued = results.promoted()
    return results.begun_anew() | {
        record.trial
        for record in results.trials()
        if is_paused(record)
        and record.epoch
        and record.trial not in continued
        and not results.checkpoint_file(record.trial).is_file()
    }


class Paused:
    """The paused trials of a study, without what is large in their records.

    Args:
        let_go: The trials whose checkpoint was let go. One that was paused before its first epoch has none, and is not
            among them: it loses nothing.
    """

    def __init__(
        self, outlook: Outlook, gate: Gate, records: Iterable[Record] = (), let_go: Collection[int] = ()
    ) -> None:
        self.outlook, self.gate = outlook, gate
        self._records: dict[int, Record] = {}
        self._gone = set(let_go)
        for record in records:
            self.know(record)

    def know(self, record: Record) -> None:
        """Learn how a trial ended."""
        if is_paused(record):
            for_the_gate = {
                stage: Evidence(reference=evidence.reference, ratios=evidence.ratios)
                for stage, evidence in record.measurements.items()
            }
            self._records[record.trial] = replace(record, layers=(), measurements=for_the_gate)
        else:
            self.forget(record.trial)

    def forget(self, trial: int) -> None:
        """Learn that a trial is paused no more."""
        self._records.pop(trial, None)

    def ordered(self) -> list[Record]:
        """Return those that may still become the best by the gate, in their order by the objective.

        Those come first that promise most, as they are expected to end; or are now.
        """
        records = [record for _, record in sorted(self._records.items()) if not self.gate.why(record)]
        if not self.outlook.scorer.is_ready:
            return records
        keys = self.outlook.scorer.order([self.outlook.expected(record) for record in records])
        return [record for _, record in sorted(zip(keys, records, strict=True), key=lambda pair: pair[0])]

    def kept(self) -> list[Record]:
        """Return those that keep their checkpoint, in this order; one that was let go has none to keep."""
        return [record for record in self.ordered() if record.trial not in self._gone][:KEPT]

    def let_go(self) -> set[int]:
        """Return the trials that need not keep their checkpoint any more, each once."""
        if len(self._records.keys() - self._gone) <= KEPT:
            return set()
        others = self._records.keys() - self._gone - {record.trial for record in self.kept()}
        gone = {trial for trial in others if self._records[trial].epoch}
        self._gone |= gone
        return gone

    def begins_anew(self, trial: int) -> bool:
        """Tell whether the checkpoint was let go that a trial would go on from."""
        return trial in self._gone

    def best(self, affords: Callable[[int], bool]) -> Record | None:
        """Return the one that promises most among those whose remaining epochs can be afforded."""
        epochs = self.outlook.forecast.epochs
        return next((record for record in self.kept() if affords(epochs - record.epoch)), None)
