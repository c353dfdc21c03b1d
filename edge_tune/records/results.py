"""The records of a study as plain files: append-only, so that what was reported stays reported.

trials.jsonl      one finished, stopped or failed trial a line; the last line of a trial counts
baselines.jsonl   the unpruned network and the known schedules, same form
started.jsonl     the points that trials began with, so that a resumed study runs them again
promoted.jsonl    the paused trials that were continued; each has another line in trials.jsonl then, which counts
earlier.jsonl     trials of earlier studies that taught this one, as this one learns from them
run.json          what was run: experiment, versions, device, seed, commit, command
networks/         weights of the finished trials worth keeping
checkpoints/      what the trials under way go on from if they are interrupted
layers/           where the time goes in those, one CSV a trial
"""

import csv
import fcntl
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from edge_tune.errors import ExperimentError, RetrainingError
from edge_tune.experiment import NAME
from edge_tune.files import write_atomically
from edge_tune.metrics import METRICS, RATIOS
from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED
from edge_tune.parameters import Point
from edge_tune.records.entries import (
    FORM,
    Answers,
    Computed,
    Count,
    Cut,
    EpochEntry,
    Evidence,
    LayerEntry,
    Metrics,
    Number,
    Run,
)
from edge_tune.records.jsonfiles import DamageError, Lines, converted, read_lines, read_object, to_json
from edge_tune.wording import counted

LOCK = ".lock"
RESTORE = "restore the file, or begin another study with --results"
OWN = frozenset(
    {
        LOCK,
        "run.json",
        "trials.jsonl",
        "baselines.jsonl",
        "started.jsonl",
        "promoted.jsonl",
        "earlier.jsonl",
        "summary.json",
        "experiment.py",
        "unpruned.onnx",
        "networks",
        "checkpoints",
        "layers",
        "best",
        "tensorboard",
    }
)
"""What a study writes into its folder, but for the report, which may be written anew at any time."""

Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Stop:
    """That a rule would end a trial, or has paused it: after which epoch, and why, for a person.

    Attributes:
        anew: Whether the trial began anew when it was continued, since its checkpoint had been let go.
    """

    rule: str
    epoch: Count
    reason: str
    anew: bool = False


@dataclass(frozen=True)
class Confirmed:
    """That a trial was measured again, in turns with the others that might have been the best.

    Attributes:
        objective: By which they might, as text.
        at: When, in ISO 8601.
    """

    objective: str
    at: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one trial.

    Attributes:
        trial: Number in the study; 0 is the unpruned network.
        baseline: Name of the known schedule this is, or None for a trial of the search.
        status: "running" only in what a trial reports on its way; never in a file.
        stopped_by: The rule that stopped it: "hopeless", "asha", "predicted", "time_limit", "gate"; a newer version may
            know others.
        audit: What would have ended it, had it not been drawn to be trained all the same.
        paused: What had paused it each time before it was continued; `attempts` leaves these beginnings out.
        predictions: When -> metric -> the figure at its end that was expected then: SUGGESTED, PRUNED.
        confirmed: That its latencies are those of several measurements at the end of the study; None if they are not.
        same_as: The trial whose network this one's point gives, and whose record it took over; None if it ran itself.
        attempts: How often it began: more than once if its process, or the study, was lost meanwhile.
        reason: Why it was stopped or failed, for a person.
        collapsed: Why its predictions are no better than chance, or None.
        point: The name of each parameter -> its value; empty for the unpruned network.
        epoch: Epochs of retraining finished.
        pruned: Every metric right after pruning (validation split).
        metrics: Every metric now: the accuracy of `epoch`, the last measurement.
        answers: Which images of the validation split that accuracy is made of; None where it follows from a formula,
            and in the records of earlier versions.
        curve: One entry an epoch.
        plan: What was asked and done to each weight.
        measurements: Stage -> the device's evidence for its figures.
        layers: Of the last measurement.
        seconds: Stage -> seconds spent in it. A trial classifies while the device measures its pruned network: of
            "queue" and "measure" only what it waits for after that counts, so that the stages add up to its time.
        node: The host that it ran on.
        compute: What it computed on; None in older records.
        started_at: When it began, ISO 8601 with the offset from UTC.
        ended_at: When it ended.
    """

    trial: Count
    baseline: str | None = None
    status: Status = "running"
    stopped_by: str | None = None
    reason: str | None = None
    collapsed: str | None = None
    point: Mapping[str, Number | str] = field(default_factory=dict)
    epoch: Count = 0
    pruned: Metrics = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    answers: Answers | None = None
    curve: Sequence[EpochEntry] = ()
    plan: tuple[Cut, ...] = ()
    measurements: Mapping[str, Evidence] = field(default_factory=dict)
    layers: Sequence[LayerEntry] = ()
    seconds: Metrics = field(default_factory=dict)
    node: str = ""
    compute: Computed | None = None
    started_at: str = ""
    ended_at: str = ""
    attempts: Count = 1
    same_as: Count | None = None
    audit: Stop | None = None
    paused: tuple[Stop, ...] = ()
    predictions: Mapping[str, Metrics] = field(default_factory=dict)
    confirmed: Confirmed | None = None

    @property
    def name(self) -> str:
        """A name that sorts by number."""
        return self.baseline or f"trial_{self.trial:04d}"

    @property
    def epochs_trained(self) -> int:
        """Epochs of retraining in all: of a trial that was paused and began anew, those before it too."""
        return self.epoch + sum(stop.epoch for stop in self.paused if stop.anew)

    @property
    def label(self) -> str:
        """The name for people: that of the unpruned network which was retrained says so."""
        if self.baseline == UNPRUNED_RETRAINED and self.epoch:
            return f"{UNPRUNED}, {counted(self.epoch, 'epoch')}"
        return self.name

    @property
    def diverged(self) -> bool:
        """Whether it failed because a loss was no finite number any more: by its recipe, not by the host."""
        return self.status == "failed" and str(self.reason).startswith(f"{RetrainingError.__name__}: ")

    def to_json(self) -> str:
        """Return one line of JSON; a metric that is not finite is refused."""
        return to_json(self)

    def as_of(self, epoch: int) -> "Record":
        """Return what was known of the trial after `epoch` epochs, at most those that it had.

        Not every epoch measures everything: a metric is what it was last, and after the last epoch the record's own.
        """
        curve = [entry for entry in self.curve if entry.epoch <= epoch]
        is_whole = len(curve) == len(self.curve)
        known: dict[str, Number] = dict(self.pruned)
        for entry in curve:
            known |= entry.metrics
        if is_whole:
            known |= self.metrics
        answers = self.answers if is_whole else None
        return replace(self, epoch=curve[-1].epoch if curve else 0, curve=curve, metrics=known, answers=answers)

    @classmethod
    def from_entry(cls, entry: object) -> "Record":
        """Return the record of a parsed line; fields of newer versions are dropped, null is the field's default.

        Raises:
            DamageError: It is no record; the text says what is wrong, and where in the line.
        """
        if not isinstance(entry, Mapping):
            raise DamageError(f"expected an object with the fields of a record, got {type(entry).__name__}")
        record = converted({key: value for key, value in entry.items() if value is not None}, cls)
        for time in (record.started_at, record.ended_at, record.confirmed.at if record.confirmed else ""):
            _check_time(time)
        if record.baseline is not None and not NAME.fullmatch(record.baseline):
            raise DamageError(f"a baseline's name names its files, so it must not be {record.baseline[:100]!r}")
        return record


@dataclass(frozen=True)
class Started:
    """A line of started.jsonl: a trial began.

    Attributes:
        point: What it was begun with.
        expected: What the method of search expected of it, by metric; None if it said nothing.
    """

    trial: Count
    point: Mapping[str, Number | str]
    expected: Metrics | None = None

    @classmethod
    def from_entry(cls, entry: object) -> "Started":
        """Return what a parsed line says.

        Raises:
            DamageError: It is another one.
        """
        return converted(entry, cls)


@dataclass(frozen=True)
class Promoted:
    """A line of promoted.jsonl: a paused trial is continued.

    Attributes:
        anew: Whether it begins anew, since its checkpoint was let go.
    """

    trial: Count
    anew: bool = False

    @classmethod
    def from_entry(cls, entry: object) -> "Promoted":
        """Return what a parsed line says.

        Raises:
            DamageError: It is another one.
        """
        return converted(entry, cls)


@dataclass(frozen=True)
class Report:
    """What a trial says of itself.

    Attributes:
        record: What is known so far.
        weights: The network's, once the trial has finished.
        checkpoint: What the trial can go on from if its process is lost; after an epoch of retraining.
    """

    record: Record
    weights: bytes | None = None
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Planned:
    """What the network of a point is, known before it is made.

    Attributes:
        digest: Equal for points that give the same network.
        plan: What is asked and done to each weight, as records hold it.
        inactive: Parameters that make no difference, because the blocks with all that they speak of are left out.
    """

    digest: str
    plan: tuple[Cut, ...]
    inactive: frozenset[str] = frozenset()


class Results:
    """The folder of one study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.networks = folder / "networks"
        self.checkpoints = folder / "checkpoints"
        self._created: list[Path] = []

    def create(self) -> None:
        """Make the folder and check that files can be written there.

        Raises:
            ExperimentError: They cannot.
        """
        try:
            self._created = [folder for folder in (self.networks, *self.networks.parents) if not folder.exists()]
            self.networks.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ExperimentError(
                f"{self.folder}: the results folder must be writable, but got {error.strerror}; "
                f"choose another with --results."
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands from running the same study meanwhile; the system lets go when this process ends.

        Raises:
            ExperimentError: Another one runs it, or the file system cannot tell.
        """
        with (self.folder / LOCK).open("a") as file:  # over NFS, only what is open for writing can be locked
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ExperimentError(
                    f"{self.folder}: a study must be run by one command at a time, but another one runs it now; wait "
                    f"for it, or stop it first."
                ) from error
            except OSError as error:
                self.discard_if_empty()
                raise ExperimentError(
                    f"{self.folder}: the results folder must be on a file system that locks files, but got "
                    f"{error.strerror}; choose another with --results."
                ) from error
            yield

    def discard_if_empty(self) -> None:
        """Remove the folders that `create` made if nothing was written to them."""
        with suppress(OSError):  # not empty
            if self.folder in self._created:
                (self.folder / LOCK).unlink(missing_ok=True)
            for folder in self._created:
                folder.rmdir()

    def exists(self) -> bool:
        """Tell whether a study was started here: its records are not to be mixed with another's.

        Raises:
            ExperimentError: The system does not let one look.
        """
        files = ("run.json", "trials.jsonl", "baselines.jsonl", "started.jsonl")
        try:
            return any((self.folder / name).is_file() for name in files)
        except OSError as error:
            raise ExperimentError(
                f"{self.folder}: the results folder must be accessible, but got {error.strerror}; choose another."
            ) from error

    def others(self) -> list[str]:
        """Return the names of what lies in the folder though no study was started there."""
        if self.exists() or not self.folder.is_dir():
            return []
        left = {LOCK} if any(self.networks.glob("*")) else {LOCK, self.networks.name}  # of a study ended at once
        return sorted(path.name for path in self.folder.iterdir() if path.name not in left)

    def require(self) -> None:
        """Check that a study was started here, and that its files lie here.

        Raises:
            ExperimentError: There is none, or a link leads out of the folder, which whoever sent it may have made.
        """
        if not self.exists():
            raise ExperimentError(
                f"{self.folder}: must be the results folder of a study, but holds no run.json; give the folder that "
                f"the run named."
            )
        home = os.path.realpath(self.folder)
        ExperimentError.raise_if(
            f"{path}: must lie in the results folder, but is a link to {place}; replace it by the file itself."
            for path in (*self.folder.iterdir(), *self.networks.glob("*"), *self.checkpoints.glob("*"))
            if path.is_symlink() and not Path(place := os.path.realpath(path)).is_relative_to(home)
        )

    def check(self) -> None:
        """Check that a resumed study can go on from the files here; lines that are damaged are left out.

        Raises:
            ExperimentError: It cannot.
        """
        self.require()
        self.identity()
        self.earlier()
        records = [*self.trials(), *self.baselines()]
        ExperimentError.raise_if(
            f"{self.folder}: the record of {record.name}, which {record.status}, must hold every figure, but lacks "
            f"{', '.join(missing)}; remove its line, and the trial runs again."
            for record in records
            if (missing := _missing(record))
        )
        self._check_points({record.trial for record in records})

    def _check_points(self, ended: set[int]) -> None:
        """Check that no trial has lost its point: one that began, and whose line in started.jsonl is damaged."""
        lines = self._started()
        known = ended | {entry.trial for entry in lines.parts}
        lost = next((trial for trial in range(1, max(known, default=0)) if trial not in known), None)
        if lines.problems and lost:
            raise ExperimentError(
                f"{lines.problems[0].removesuffix(' left out.')} without it, nobody knows the point of trial {lost}, "
                f"which has no record; {RESTORE}."
            )

    def check_networks(self, kept: Iterable[Record]) -> None:
        """Check that the weights of these records are there and whole, as far as they finished.

        Raises:
            ExperimentError: Some are not.
        """
        ExperimentError.raise_if(
            f"{self.network_file(record)}: must hold the weights of {record.name}, whose record is kept, but "
            f"{damage}; {RESTORE}."
            for record in {record.trial: record for record in kept if record.status == "finished"}.values()
            if (damage := _damage(self.network_file(record)))
        )

    def run(self) -> Run:
        """Return what was run.

        Raises:
            ExperimentError: It is not there, damaged, or of another version.
        """
        file = self.folder / "run.json"
        try:
            run = read_object(file, Run.from_entry, RESTORE)
        except FileNotFoundError as error:
            raise ExperimentError(
                f"{file}: must be there beside the records of a study, but is not; {RESTORE}."
            ) from error
        if run.form != FORM:
            form = "older and says none" if run.form is None else f"of form {run.form}"
            raise ExperimentError(
                f"{file}: must be of a study that this version of EdgeTune can read (form {FORM}), but is {form}; use "
                f"the version that ran it, or begin another study with --results."
            )
        return run

    def identity(self) -> Mapping[str, object]:
        """Return what the sessions of the study have in common.

        Raises:
            ExperimentError: run.json is not there or does not say it.
        """
        identity = self.run().identity
        if identity is None:
            raise ExperimentError(
                f"{self.folder / 'run.json'}: must say the study's identity, but does not; {RESTORE}."
            )
        return identity

    def add(self, record: Record) -> None:
        """Append a record that has come to its end."""
        assert record.status != "running"
        _append(self.folder / ("baselines.jsonl" if record.baseline else "trials.jsonl"), record.to_json())

    def add_started(self, trial: int, point: Point, expected: Metrics | None = None) -> None:
        """Note that a trial begins, and what the method of search expects of it."""
        _append(self.folder / "started.jsonl", to_json(Started(trial, point, expected)))

    def add_promoted(self, trial: int, *, anew: bool) -> None:
        """Note that a paused trial is continued: it is under way again until another record of it is added."""
        _append(self.folder / "promoted.jsonl", to_json(Promoted(trial, anew)))

    def write_earlier(self, records: Sequence[Record]) -> None:
        """Keep what earlier studies teach; nothing is written where they teach nothing."""
        if records:
            lines = "".join(f"{record.to_json()}\n" for record in records)
            write_atomically(self.folder / "earlier.jsonl", lines.encode())

    def earlier(self) -> list[Record]:
        """Return what earlier studies taught when this one began.

        Raises:
            ExperimentError: Some of it is gone, without which other points would be suggested.
        """
        expected = sum(taught.trials for taught in self.run().taught_by) if self.exists() else 0
        lines = self._records("earlier.jsonl")
        if len(lines.parts) != expected:
            raise ExperimentError(
                f"{self.folder / 'earlier.jsonl'}: must hold the {counted(expected, 'trial')} of earlier studies that "
                f"taught this one, but holds {len(lines.parts)}; {RESTORE}."
            )
        return lines.parts

    def promoted(self) -> dict[int, Record]:
        """Return number -> record of the paused trials that are under way again, as they were when they were paused."""
        times = Counter(entry.trial for entry in self._promoted().parts)
        return {record.trial: record for record in self.trials() if times[record.trial] > len(record.paused)}

    def begun_anew(self) -> set[int]:
        """Return the trials whose checkpoint had been let go when they were continued."""
        return {entry.trial for entry in self._promoted().parts if entry.anew}

    def trials(self) -> list[Record]:
        """Return the trials of the search that came to an end, by number."""
        return _by_number(self._records("trials.jsonl"))

    def baselines(self) -> list[Record]:
        """Return the baselines that came to an end, by number."""
        return _by_number(self._records("baselines.jsonl"))

    def problems(self) -> list[str]:
        """Return a sentence for each line that is damaged, such as one that a crash left unfinished."""
        files = (self._records("baselines.jsonl"), self._records("trials.jsonl"), self._started(), self._promoted())
        return [problem for lines in files for problem in lines.problems]

    def unfinished(self) -> dict[int, Point]:
        """Return number -> point of the trials that began and left no record, or none since they were continued."""
        ended = {record.trial for record in (*self.trials(), *self.baselines())} - self.promoted().keys()
        return {entry.trial: dict(entry.point) for entry in self._started().parts if entry.trial not in ended}

    def expected(self) -> dict[int, Metrics]:
        """Return number -> what the method of search expected of a trial, of those of which it said something."""
        return {entry.trial: entry.expected for entry in self._started().parts if entry.expected}

    def attempts(self) -> dict[int, int]:
        """Return number -> how often the trial began."""
        return dict(Counter(entry.trial for entry in self._started().parts))

    def _records(self, name: str) -> Lines[Record]:
        return read_lines(self.folder / name, Record.from_entry)

    def _started(self) -> Lines[Started]:
        return read_lines(self.folder / "started.jsonl", Started.from_entry)

    def _promoted(self) -> Lines[Promoted]:
        return read_lines(self.folder / "promoted.jsonl", Promoted.from_entry)

    def checkpoint_file(self, trial: int) -> Path:
        """Return where the checkpoint of a trial is while it is under way."""
        return self.checkpoints / f"{trial:04d}.pt"

    def write_checkpoint(self, trial: int, content: bytes) -> None:
        """Keep what a trial goes on from instead of what was kept before."""
        self.checkpoints.mkdir(exist_ok=True)
        write_atomically(self.checkpoint_file(trial), content)

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file whole or not at all."""
        write_atomically(self.folder / name, f"{to_json(content, indent=2)}\n".encode())

    def network_file(self, record: Record) -> Path:
        """Return where the weights of a finished trial are, if they are kept."""
        return self.networks / f"{record.name}.pt"

    def layers_file(self, record: Record) -> Path:
        """Return where the layers of a trial are, if they are kept."""
        return self.folder / "layers" / f"{record.name}.csv"

    def keep_networks(self, kept: Iterable[Record], among: Iterable[Record]) -> None:
        """Delete the weights and layers of those `among` that are not `kept`; write the layers of those that are.

        Whatever else lies there is not the study's, and stays.
        """
        by_name = {record.name: record for record in kept}
        for record in among:
            if record.name not in by_name:
                self.network_file(record).unlink(missing_ok=True)
                self.layers_file(record).unlink(missing_ok=True)
        for record in by_name.values():
            if record.layers and not self.layers_file(record).exists():
                self.layers_file(record).parent.mkdir(exist_ok=True)
                write_atomically(self.layers_file(record), as_csv([asdict(layer) for layer in record.layers]).encode())


def now() -> str:
    """Return the time as records hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _append(path: Path, line: str) -> None:
    """Append a line, closing one that a crash left unfinished, and push it to the disk."""
    with path.open("ab+") as file:
        if file.tell() and not _ends_with_newline(path):
            file.write(b"\n")
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _by_number(lines: Lines[Record]) -> list[Record]:
    records = {record.trial: record for record in lines.parts}
    return [records[trial] for trial in sorted(records)]


def _check_time(text: str) -> None:
    """Raise DamageError unless a text is empty or a time."""
    try:
        if text:
            datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise DamageError(f"expected a time in ISO 8601, got {text[:100]!r}") from error


def _missing(record: Record) -> list[str]:
    """Return the figures that the record of a trial with figures lacks."""
    if record.status == "failed":
        return []
    intervals = record.measurements.get("pruned", Evidence()).intervals
    parts = {"": record.metrics, "pruned ": record.pruned, "the interval of ": intervals}
    needed = {"": METRICS, "pruned ": METRICS, "the interval of ": RATIOS}
    return [what + metric for what, held in parts.items() for metric in needed[what] if metric not in held]


def _damage(file: Path) -> str | None:
    """Return what is wrong with a file that torch.save wrote, which is a zip archive with checksums, or None."""
    if not file.is_file():
        return "there is no such file"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        return f"it is damaged ({error})"
    return f"it is damaged ({broken})" if broken else None
