"""EdgeTune from Python: what the commands `run`, `report` and `export` do, for a script or a notebook.

study = et.run(experiment, results="results/mine")
study.trials.sort_values("latency_ratio")       # a pandas.DataFrame
network = study.network(study.best.trial)       # a torch.nn.Module
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tune.errors import ExperimentError

if TYPE_CHECKING:  # torch, pandas and the rest take seconds, which to look at a study's records does without
    import pandas as pd
    from torch import nn

    from edge_tune.records.results import Record
    from edge_tune.report.data import StudyData


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
        """Return a trained network, in inference mode, for float32 images [N, C, H, W] that are normalised.

        Args:
            trial: The number of a trial or a baseline whose weights were kept.
            trust_model: Import the module of a network that is "package.module:function". Importing it runs its code,
                so say so only if you trust whoever wrote the folder.

        Raises:
            ExperimentError: There is no such trial, its weights were not kept, or the network's module must be trusted
                and is not.
        """
        from edge_tune.networks.of_study import trained_network
        from edge_tune.records.results import Results

        if trial not in self.records:
            raise ExperimentError(
                f"{self.folder}: the trial must be one of its {len(self.records)}, such as "
                f"{next(reversed(self.records), 0)}, but got {trial!r}; study.trials shows all."
            )
        return trained_network(Results(self.folder), self.records[trial], trust_model=trust_model)


def load_study(folder: Path | str) -> KeptStudy:
    """Return what a results folder holds, of a study that ended, was interrupted or still runs.

    Raises:
        ExperimentError: It holds no study.
    """
    study = KeptStudy(Path(folder))
    study.records  # noqa: B018 - read now, so that a folder without a study is refused here
    return study


def _table(records: Sequence[Record]) -> pd.DataFrame:
    from edge_tune.records.tables import table

    return table(sorted(records, key=lambda record: record.trial)).to_pandas().set_index("trial")
