"""What a study came to: the networks to compare, each a row, and how the trials ended. summary.json holds it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED, Objective
from edge_tune.records.accuracy import Difference, Known, Split, difference, unsure_line
from edge_tune.records.alternatives import fastest_within, settled_line
from edge_tune.records.audit import Account, accounts
from edge_tune.records.choosing import Ranking, ranking_line
from edge_tune.records.endings import REPEAT
from edge_tune.records.entries import Answers, Count, Evidence, Images, Metrics, Ratio
from edge_tune.records.jsonfiles import converted, read_object
from edge_tune.records.ranking import (
    better_in_both,
    confirmed_line,
    endings,
    epochs_saved,
    failures,
    imprecise_line,
    last_measurement,
)
from edge_tune.records.remaining import remaining_line
from edge_tune.records.results import Record, Results
from edge_tune.wording import counted


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of the verdict.

    Attributes:
        name: As in the records, with what was done to it; to be shown, `key` tells the rows apart.
        epoch: Epochs of retraining that it had; 0 is right after pruning.
        metrics: Accuracy on validation and the device's measurements.
        test: top1, top5 and loss on the test split.
        device_test_top1: Of the exported network on the device; None where that was not asked.
        ratios: latency_ratio and total_latency_ratio as measured. Those of the unpruned network are to itself, and so
            the noise floor.
        reference: latency_ms and total_latency_ms of the unpruned network in the very turns of this measurement.
        is_precise: Whether the ratios are known as well as a measurement strives for.
        is_unpruned: Whether nothing was removed, so that this is the unpruned network, whose ratio is 1.
        images: How many images the validation split has; None in studies of earlier versions.
        answers: Which of them it is right for, as far as that is known.
        test_answers: The same of the test split.
    """

    name: str
    trial: Count
    epoch: Count = 0
    metrics: Metrics
    test: Metrics = field(default_factory=dict)
    device_test_top1: float | None = None
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    is_precise: bool = True
    is_unpruned: bool = False
    images: Images | None = None
    answers: Answers | None = None
    test_answers: Answers | None = None

    def top1(self, split: Split) -> Known | None:
        """Return its top1 on a split, with what is known of it; None if not even the number of images is."""
        metrics, answers = (self.metrics, self.answers) if split == "validation" else (self.test, self.test_answers)
        images = answers.images if answers else self.images if split == "validation" else None
        return Known(float(metrics["top1"]), images, answers) if images and "top1" in metrics else None

    def above(self, other: "Row", split: Split) -> Difference | None:
        """Return by how much its top1 lies above another network's, with the interval; None if that is not known."""
        mine, theirs = self.top1(split), other.top1(split)
        return difference(mine, theirs) if mine and theirs else None

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from every other network of the study: its trial, and how long that was retrained."""
        return self.trial, self.epoch


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The networks to compare, the chosen one last if there is one, and how the trials ended.

    Attributes:
        endings: As `ranking.endings` counts them.
        front: The trials of the front that an objective asks for, as `Ranking.front` has them.
        epochs_saved: How many epochs of retraining the gate has saved.
        accounts: What each rule that ends trials early has saved and cost.
        imprecise: A warning about the measurements, if one is due.
        confirmed: Whose latencies are those of several measurements, in a sentence; None if nobody's are.
        failures: Reason -> how many trials failed for it, the most frequent first.
        objective: What came of an objective that is more than one metric, in a sentence.
        simulated: Whether the figures follow from formulas.
        alternatives: The fastest networks within some points of the unpruned one, but for the chosen. They go by the
            validation split, and have no figures on the test split.
        unsure: Which conditions the chosen network may break within its interval, in a sentence.
        settled: That the search found nothing better for long, in a sentence.
        remaining: How much of the chosen network's time is that of layers that no group may prune, in a sentence.
        untouched: These layers.
    """

    rows: Sequence[Row]
    chosen: Count | None = None
    better_in_both: Mapping[str, Sequence[int]]
    endings: Mapping[str, int]
    front: Sequence[int] = ()
    epochs_saved: int = 0
    accounts: Sequence[Account] = ()
    imprecise: str | None = None
    confirmed: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    objective: str | None = None
    simulated: bool = False
    alternatives: Sequence[Row] = ()
    unsure: str | None = None
    settled: str | None = None
    remaining: str | None = None
    untouched: Sequence[str] = ()

    @property
    def trials(self) -> int:
        """How many networks the search tried."""
        return sum(count for ending, count in self.endings.items() if ending != REPEAT)

    @property
    def all_failed(self) -> bool:
        """Whether there were trials, and each failed."""
        return 0 < self.trials == self.endings["failed"]


def read_verdict(results: Results) -> Verdict | None:
    """Return the verdict that the end of a study wrote to summary.json; None if it has not come to its end.

    Raises:
        ExperimentError: The file is damaged.
    """
    advice = "restore the file, or remove it: the figures on the test split are then left out"
    try:
        return read_object(results.folder / "summary.json", lambda found: converted(found, Verdict), advice)
    except FileNotFoundError:
        return None


def verdict_of(
    baselines: Sequence[Record],
    trials: Sequence[Record],
    ranking: Ranking,
    rows: Sequence[Row],
    *,
    epochs: int,
    simulated: bool = False,
    untouched: Sequence[str] = (),
) -> Verdict:
    """Return what a study came to.

    Args:
        ranking: Of its trials by its objective.
        rows: As `rows_of` makes them, tested.
        epochs: Of the retraining of a trial that comes to its end.
        untouched: Layers that no group may prune.
    """
    return Verdict(
        rows=rows,
        chosen=ranking.best.trial if ranking.best else None,
        better_in_both={record.name: [trial.trial for trial in better_in_both(trials, record)] for record in baselines},
        endings=endings(trials),
        front=[record.trial for record in ranking.front],
        epochs_saved=epochs_saved(trials, epochs),
        accounts=accounts(ranking.objective, baselines, trials, epochs),
        imprecise=imprecise_line([*baselines, *trials]),
        confirmed=confirmed_line([*baselines, *trials]),
        failures=failures(trials),
        objective=None if ranking.objective.is_a_metric else ranking_line(ranking),
        simulated=simulated,
        alternatives=alternatives_of(ranking.objective, rows, baselines, trials, ranking.best),
        unsure=unsure_line(ranking, baselines),
        settled=settled_line(ranking, trials),
        remaining=remaining_line(ranking.best, untouched) if ranking.best else None,
        untouched=list(untouched),
    )


def rows_of(baselines: Iterable[Record], chosen: Record | None) -> list[Row]:
    """Return the networks to compare, the chosen one last: of each baseline that finished, before and after retraining.

    The unpruned network comes first, then the same retrained. They hold no figures on the test split.
    """
    ordered = sorted(baselines, key=lambda record: record.baseline not in (UNPRUNED, UNPRUNED_RETRAINED))
    found = [row for record in ordered if record.status == "finished" for row in _baseline_rows(record)]
    found += [row_of(chosen, f"best: {chosen.name}")] if chosen else []
    return _of_as_many_images(found, found)


def alternatives_of(
    objective: Objective,
    rows: Sequence[Row],
    baselines: Iterable[Record],
    trials: Sequence[Record],
    chosen: Record | None,
) -> list[Row]:
    """Return the fastest networks within some points of the unpruned one, but for the chosen.

    Args:
        rows: As `rows_of` makes them.
    """
    unpruned = next((record for record in baselines if record.trial == 0), None)
    within = fastest_within(objective, unpruned, trials, chosen) if unpruned else {}
    found = [
        row_of(record, f"fastest within {points}: {record.name}")
        for points, record in within.items()
        if chosen is None or record.trial != chosen.trial
    ]
    return _of_as_many_images(found, [*rows, *found])


def _of_as_many_images(rows: Iterable[Row], known: Iterable[Row]) -> list[Row]:
    """Return rows that say how many images they are of, if any does that is known: each has classified the same."""
    images = next((row.images for row in known if row.images), None)
    return [replace(row, images=images) for row in rows]


def row_of(record: Record, name: str) -> Row:
    """Return a network as its trial left it, without figures on the test split."""
    return _row(record, name, record.epoch, record.metrics, last_measurement(record))


def with_test_figures(rows: Iterable[Row], verdict: Verdict | None) -> list[Row]:
    """Return the rows with the figures on the test split that the end of the study found for them, if it has ended."""
    tested = {row.key: row for row in (verdict.rows if verdict else ())}
    return [_tested(row, tested[row.key]) if row.key in tested else row for row in rows]


def _tested(row: Row, found: Row) -> Row:
    return replace(row, test=found.test, test_answers=found.test_answers, device_test_top1=found.device_test_top1)


def _baseline_rows(record: Record) -> Iterator[Row]:
    if record.baseline == UNPRUNED_RETRAINED:
        yield row_of(record, record.label)
        return
    label = f"{record.name}, not retrained" if record.trial else record.name
    if not record.epoch:
        yield row_of(record, label)
    else:
        before = replace(record, answers=None)
        yield _row(before, label, 0, record.pruned, record.measurements.get("pruned", Evidence()))
        yield row_of(record, f"{record.name}, {counted(record.epoch, 'epoch')}")


def _row(record: Record, name: str, epoch: int, metrics: Metrics, evidence: Evidence) -> Row:
    return Row(
        name=name,
        trial=record.trial,
        epoch=epoch,
        metrics=metrics,
        ratios=evidence.intervals,
        reference=evidence.reference_ms,
        is_precise=evidence.is_precise,
        is_unpruned=evidence.is_unpruned,
        images=record.answers.images if record.answers else None,
        answers=record.answers,
    )
