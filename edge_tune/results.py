"""The records of a study as plain files: append-only, so that what was reported stays reported.

trials.jsonl      one finished, stopped or failed trial a line
baselines.jsonl   the unpruned network and the known schedules, same form
started.jsonl     the points that trials began with, so that a resumed study runs them again
run.json          what was run: experiment, versions, device, seed, commit, command
networks/         weights of the finished trials worth keeping
checkpoints/      what the trials under way go on from if they are interrupted
layers/           where the time goes in those, one CSV a trial
"""

import csv
import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from edge_tune.errors import ExperimentError
from edge_tune.experiment import Structure

LOCK = ".lock"
RESTORE = "restore the file, or begin another study with --results"

Metrics = Mapping[str, float]
Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one trial.

    Attributes:
        trial: Number in the study; 0 is the unpruned network.
        baseline: Name of the known schedule this is, or None for a trial of the search.
        status: "running" only in what a trial reports on its way; never in a file.
        stopped_by: The rule that stopped it.
        attempts: How often it began: more than once if its process, or the study, was lost meanwhile.
        reason: Why it was stopped or failed, for a person.
        collapsed: Why its predictions are no better than chance, or None.
        epoch: Epochs of retraining finished.
        pruned: Every metric right after pruning (validation split).
        metrics: Every metric now: the accuracy of `epoch`, the last measurement.
        curve: One entry an epoch: epoch, lr, train_loss, top1, top5, loss, seconds.
        plan: What was asked and done to each weight.
        measurements: Stage -> the device's evidence for its figures.
        layers: Of the last measurement: name, type, kernel, ms, share.
        seconds: Stage -> seconds spent in it.
    """

    trial: int
    baseline: str | None = None
    status: Status = "running"
    stopped_by: Literal["hopeless", "asha", "time_limit"] | None = None
    reason: str | None = None
    collapsed: str | None = None
    sparsities: Mapping[str, float] = field(default_factory=dict)
    structures: Mapping[str, Structure] = field(default_factory=dict)
    epoch: int = 0
    pruned: Metrics = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    plan: Sequence[Mapping[str, Any]] = ()
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    node: str = ""
    started_at: str = ""
    ended_at: str = ""
    attempts: int = 1

    @property
    def name(self) -> str:
        """A name that sorts by number."""
        return self.baseline or f"trial_{self.trial:04d}"

    def to_json(self) -> str:
        """Return one line of JSON; a metric that is not finite is refused."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Record":
        """Return the record of a parsed line; fields of newer versions are dropped, null is the field's default."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in entry.items() if key in known and value is not None})


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
        """Tell whether a study was started here: its records are not to be mixed with another's."""
        files = ("run.json", "trials.jsonl", "baselines.jsonl", "started.jsonl")
        return any((self.folder / name).is_file() for name in files)

    def check(self) -> None:
        """Check that the files of the study that was started here can be read.

        Raises:
            ExperimentError: One cannot.
        """
        self.identity()
        self.trials()
        self.baselines()
        self.unfinished()

    def check_networks(self, kept: Iterable[Record]) -> None:
        """Check that the weights of these records are there, as far as they finished.

        Raises:
            ExperimentError: Some are not.
        """
        ExperimentError.raise_if(
            f"{file}: must hold the weights of {record.name}, whose record is kept, but there is no such file; "
            f"{RESTORE}."
            for record in {record.trial: record for record in kept if record.status == "finished"}.values()
            if not (file := self.network_file(record)).is_file()
        )

    def identity(self) -> dict[str, Any]:
        """Return what the sessions of the study have in common.

        Raises:
            ExperimentError: run.json is not there or does not say it.
        """
        file = self.folder / "run.json"
        if not file.is_file():
            raise ExperimentError(f"{file}: must be there beside the records of a study, but is not; {RESTORE}.")
        identity = self.read_json("run.json").get("identity")
        if not isinstance(identity, dict):
            raise ExperimentError(f"{file}: must say the study's identity, but got {identity!r}; {RESTORE}.")
        return identity

    def add(self, record: Record) -> None:
        """Append a record that has come to its end."""
        assert record.status != "running"
        _append(self.folder / ("baselines.jsonl" if record.baseline else "trials.jsonl"), record.to_json())

    def add_started(self, trial: int, config: Mapping[str, Any]) -> None:
        """Note that a trial begins."""
        _append(self.folder / "started.jsonl", json.dumps({"trial": trial, "config": config}))

    def trials(self) -> list[Record]:
        """Return the trials of the search that came to an end, by number."""
        return _read(self.folder / "trials.jsonl")

    def baselines(self) -> list[Record]:
        """Return the baselines that came to an end, by number."""
        return _read(self.folder / "baselines.jsonl")

    def count_unreadable(self) -> int:
        """Count the lines of both files that hold no record, such as one that a crash left unfinished."""
        files = (self.folder / "trials.jsonl", self.folder / "baselines.jsonl")
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files if file.is_file())
        return lines - sum(1 for file in files for _ in _entries(file))

    def unfinished(self) -> dict[int, dict[str, Any]]:
        """Return number -> point of the trials that began and left no record."""
        ended = {record.trial for record in (*self.trials(), *self.baselines())}
        started = _entries(self.folder / "started.jsonl")
        return {entry["trial"]: entry["config"] for entry in started if entry["trial"] not in ended}

    def attempts(self) -> dict[int, int]:
        """Return number -> how often the trial began."""
        return dict(Counter(entry["trial"] for entry in _entries(self.folder / "started.jsonl")))

    def checkpoint_file(self, trial: int) -> Path:
        """Return where the checkpoint of a trial is while it is under way."""
        return self.checkpoints / f"{trial:04d}.pt"

    def write_checkpoint(self, trial: int, content: bytes) -> None:
        """Keep what a trial goes on from instead of what was kept before."""
        self.checkpoints.mkdir(exist_ok=True)
        write_atomically(self.checkpoint_file(trial), content)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_atomically(self.folder / name, text.encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file of this folder.

        Raises:
            ExperimentError: It was cut short, or holds something else.
        """
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExperimentError(f"{self.folder / name}: must be JSON, but got: {error}; {RESTORE}.") from error
        if not isinstance(content, dict):
            raise ExperimentError(f"{self.folder / name}: must hold a JSON object, but got {content!r}; {RESTORE}.")
        return content

    def network_file(self, record: Record) -> Path:
        """Return where the weights of a finished trial are, if they are kept."""
        return self.networks / f"{record.name}.pt"

    def layers_file(self, record: Record) -> Path:
        """Return where the layers of a trial are, if they are kept."""
        return self.folder / "layers" / f"{record.name}.csv"

    def keep_networks(self, records: Iterable[Record]) -> None:
        """Delete the weights and layers of every trial that is not among `records`; write the layers of those."""
        records = list(records)
        kept = {file for record in records for file in (self.network_file(record), self.layers_file(record))}
        for file in (*self.networks.glob("*.pt"), *self.folder.glob("layers/*.csv")):
            if file not in kept:
                file.unlink()
        for record in records:
            if record.layers and not self.layers_file(record).exists():
                self.layers_file(record).parent.mkdir(exist_ok=True)
                write_atomically(self.layers_file(record), as_csv(record.layers).encode())


def now() -> str:
    """Return the time as records hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees all of it or none."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a file of JSON lines, but for one that a crash left unfinished or that is no entry."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "trial" in entry:
                yield entry


def _read(path: Path) -> list[Record]:
    records = {record.trial: record for record in map(Record.from_entry, _entries(path))}
    return [records[trial] for trial in sorted(records)]
