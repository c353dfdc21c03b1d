"""EdgeTune from Python: what the commands `run`, `report` and `export` do, for a script or a notebook.

study = et.run(experiment, results="results/mine")
study.trials.sort_values("latency_ratio")       # a pandas.DataFrame
network = study.network(study.best.trial)       # a torch.nn.Module
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tune import command
from edge_tune.convert.source import experiment_source
from edge_tune.display import console
from edge_tune.display.next_steps import next_lines
from edge_tune.errors import AllFailedError, ExperimentError, StudyError
from edge_tune.experiment import Experiment
from edge_tune.loading import without_secrets
from edge_tune.records.entries import Session
from edge_tune.records.results import Record, Results
from edge_tune.wording import listed

if TYPE_CHECKING:  # torch, pandas and the rest take seconds, which to look at a study's records does without
    import pandas as pd
    from torch import nn

    from edge_tune.report.data import StudyData

Say = Callable[[str], None]
REPORT = "report.html"


@dataclass(frozen=True)
class KeptStudy:
    """What a results folder holds, as it was when it was loaded.

    Attributes:
        folder: The results folder.
    """

    folder: Path

    @cached_property
    def _data(self) -> StudyData:
        from edge_tune.report.data import read

        return read([self.folder])[0]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, under its number; `records/tables.py` says what the columns are."""
        return _table([*self._data.trials, *self._data.dropped])

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """The same of the baselines; number 0 is the unpruned network."""
        return _table(self._data.baselines)

    @property
    def best(self) -> Record | None:
        """The record of the network to take by the study's target; None if no trial meets it."""
        return self._data.chosen

    @property
    def front(self) -> Sequence[Record]:
        """The records of the front that the target asks for, else of that of latency_ratio and top1, by the first."""
        ranking = self._data.ranking
        return ranking.front if ranking and ranking.front else self._data.front

    @cached_property
    def records(self) -> Mapping[int, Record]:
        """Number -> record of each baseline and each trial, repeats included."""
        every = [*self._data.records, *self._data.dropped]
        return {record.trial: record for record in sorted(every, key=lambda record: record.trial)}

    def network(self, trial: int, *, trust_model: bool = False) -> nn.Module:
        """Return a trained network, in inference mode, for float32 images [N, C, H, W].

        They are normalised as the study's: (RGB in 0..1 - mean) / std, by `Data.mean` and `Data.std`.

        Args:
            trial: The number of a trial or a baseline whose weights were kept.
            trust_model: Import the module of a network that is "package.module:function". Importing it runs its code,
                so say so only if you trust whoever wrote the folder.

        Raises:
            ExperimentError: There is no such trial, its weights were not kept, or the network's module must be trusted
                and is not.
        """
        from edge_tune.networks.of_study import trained_network

        if trial not in self.records:
            raise ExperimentError(
                f"{self.folder}: the trial must be one of its {len(self.records)}, such as "
                f"{next(reversed(self.records), 0)}, but got {trial!r}; study.trials shows all."
            )
        return trained_network(Results(self.folder), self.records[trial], trust_model=trust_model)


def run(
    experiment: Experiment,
    *,
    results: Path | str,
    resume: bool = False,
    warm_start: Sequence[Path | str] = (),
    say: Say = command.say,
) -> KeptStudy:
    """Run a study and return what it left; a study that was interrupted goes on with `resume=True`.

    Args:
        experiment: What an experiment file defines.
        results: The folder to write to, new or empty, or that of the study to resume.
        resume: Go on with the study in that folder, or extend it where `experiment` asks for more trials.
        warm_start: Results folders of earlier studies that teach a new one.
        say: Receives the lines that tell how far it is; printed, if nothing else is given.

    Raises:
        ExperimentError: Something does not fit; nothing was started.
        RetrainingError, BenchmarkError: The unpruned network could not be trained or measured; nothing was kept.
        StudyError: The study ended early, or no trial came through; what was written is kept.
        KeyboardInterrupt: The study was interrupted; what was written is kept.
    """
    found, taught_by = Results(Path(results)), [Path(folder) for folder in warm_start]
    check_folder(found, resume=resume, warm_start=taught_by)
    how = f"edge_tune.run(experiment, results={str(results)!r})"
    text = experiment_source(experiment, command=how, origin="Written by edge_tune.run.", notes=[])
    conduct(
        experiment,
        found,
        circumstances(experiment, None, how),
        without_secrets_of(experiment, text.encode()),
        say,
        warm_start=taught_by,
    )
    return load_study(found.folder)


def conduct(
    experiment: Experiment,
    results: Results,
    about: Session,
    source: bytes,
    say: Say,
    *,
    simulated_epoch_s: float | None = None,
    promote: int | None = None,
    warm_start: Sequence[Path] = (),
) -> None:
    """Run a study, say what it came to, and write its report; arguments and errors are those of `search.session.run`.

    Raises:
        AllFailedError: No trial came through.
    """
    from edge_tune.report.page import write_report
    from edge_tune.search import session
    from edge_tune.search.cluster import versions

    about = replace(about, versions=versions())
    verdict = session.run(experiment, results, about, source, say, simulated_epoch_s, promote, warm_start)
    say("")
    say(console.verdict_table(verdict))
    for line in (*console.verdict_lines(verdict), *_places(results), *next_lines(results, verdict)):
        say(line)
    try:
        write_report([results.folder], results.folder / REPORT)
    except OSError as error:
        raise StudyError(f"{results.folder / REPORT}: must be written, but got {error.strerror}.") from error
    say(f"Report, for a browser: {results.folder / REPORT}")
    if verdict.all_failed:
        raise AllFailedError(console.all_failed(verdict))


def check_folder(results: Results, *, resume: bool, warm_start: Sequence[Path] = ()) -> None:
    """Check that a study may begin in this folder, or go on, and be taught by earlier ones.

    Raises:
        ExperimentError: It may not.
    """
    if warm_start and resume:
        raise ExperimentError(
            "--warm-start: teaches a study when it begins, but got --resume as well; leave it out: a study that was "
            "taught keeps what it learned."
        )
    exists = results.exists()
    if resume and not exists:
        raise ExperimentError(f"{results.folder}: --resume needs a study that was started here, but there is none.")
    if resume:
        results.check()
    elif exists:
        raise ExperimentError(
            f"{results.folder}: the results folder must be new, but holds a study; resume it with --resume "
            f"(resume=True), or choose another folder with --results."
        )
    elif others := results.others():
        raise ExperimentError(
            f"{results.folder}: the results folder must be new or empty, but holds {listed(others)}; choose "
            f"another folder with --results."
        )


def circumstances(experiment: Experiment, file: str | None, started_by: str) -> Session:
    """Return what run.json says of how a study was started.

    Args:
        file: The experiment file, if there is one.
        started_by: The command.
    """
    return Session(
        experiment_file=file,
        command=os.fsdecode(without_secrets_of(experiment, os.fsencode(started_by))),
        commit=_commit(),
        host=platform.node(),
    )


def without_secrets_of(experiment: Experiment, text: bytes) -> bytes:
    """Return a text that may hold the URL of the weights, with as much of that as others may know."""
    url = experiment.weights
    return text.replace(url.encode(), without_secrets(url).encode()) if url else text


def load_study(folder: Path | str) -> KeptStudy:
    """Return what a results folder holds, of a study that ended, was interrupted or still runs.

    Args:
        folder: The results folder of one study.

    Raises:
        ExperimentError: It holds no study.
    """
    study = KeptStudy(Path(folder))
    study.records  # noqa: B018 - read now, so that a folder without a study is refused here
    return study


def _table(records: Sequence[Record]) -> pd.DataFrame:
    from edge_tune.records.tables import table

    return table(sorted(records, key=lambda record: record.trial)).to_pandas().set_index("trial")


def _commit() -> str | None:
    """Return the commit of this checkout, with "+" when files differ from it; None outside of one.

    A package that is installed may stand in another project's checkout.
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _places(results: Results) -> list[str]:
    lines = [f"Best network: {results.folder / 'best'}"] if (results.folder / "best").is_dir() else []
    return [*lines, f"Curves and HParams: {command.tool('tensorboard')} --logdir {results.folder / 'tensorboard'}"]
