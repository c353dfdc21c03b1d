"""Records as TensorBoard shows them: a run a network with its curves and its line in HParams, and one of the study.

00_unpruned, 01_NAME, ...   the baselines
study                       a card of text, the main plots, and the columns of HParams
trial_0002, ...             the trials
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorboardX import SummaryWriter

from edge_tune.display import hparams
from edge_tune.display.hparams import SECTIONS, Parameters, tag
from edge_tune.display.plots import pictures
from edge_tune.objective import Objective
from edge_tune.records.results import Record

STUDY = "study"


class TensorBoard:
    """Writes one run a network below `folder`, under names that sort.

    A run is begun anew, from all that its record holds, when a session first hears of it and when its epochs start
    over: what an attempt that was interrupted wrote is removed, so that no curve goes back in time.
    """

    def __init__(self, folder: Path, parameters: Parameters) -> None:
        self.folder, self.parameters = folder, parameters
        self.open: dict[int, _OpenRun] = {}

    def add(self, record: Record) -> None:
        """Write the epochs that are new in a record; one that has ended also gets its line in HParams."""
        run = self.open.get(record.trial)
        if run is None or (record.status == "running" and record.epoch <= run.written):
            run = self.open[record.trial] = _OpenRun(self._begin(run_name(record)))
        for epoch, metrics in points(record):
            if epoch > run.written:
                _write(run.writer, metrics, epoch)
        run.written = record.epoch
        if record.status != "running":
            if record.metrics:
                for summary in hparams.row(record, run_name(record), self.parameters):
                    run.writer.file_writer.add_summary(summary)
            self.open.pop(record.trial).writer.close()
        run.writer.flush()

    def add_study(self, card: str, records: Sequence[Record], objective: Objective) -> None:
        """Write the study's card, plots and columns in place of those there are."""
        writer = self._begin(STUDY)
        writer.file_writer.add_summary(hparams.columns(self.parameters))
        writer.add_text(STUDY, card)
        for name, picture in pictures(records, objective).items():
            writer.add_image(f"{STUDY}/{name}", picture, dataformats="HWC")
        writer.close()

    def _begin(self, name: str) -> SummaryWriter:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return SummaryWriter(str(self.folder / name))


@dataclass
class _OpenRun:
    writer: SummaryWriter
    written: int = -1


def run_name(record: Record) -> str:
    """Return a name by which baselines come first, then the study, then trials, by number."""
    return f"{record.trial:02d}_{record.name}" if record.baseline else record.name


def points(record: Record) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epoch and metrics: right after pruning, then each epoch with what was measured in it."""
    yield 0, dict(record.pruned)
    for entry in record.curve:
        measured = _retrained(record) if entry.epoch == record.epoch else {}
        yield entry.epoch, {**measured, "lr": entry.lr, "train_loss": entry.train_loss, **entry.metrics}


def _retrained(record: Record) -> Mapping[str, float]:
    """Return what the device said after the last epoch of a record."""
    measured = record.metrics.items() if "retrained" in record.measurements else ()
    return {metric: value for metric, value in measured if metric not in SECTIONS}


def _write(writer: SummaryWriter, metrics: Mapping[str, float], epoch: int) -> None:
    for metric, value in metrics.items():
        writer.add_scalar(tag(metric), value, epoch)
