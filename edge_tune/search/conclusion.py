"""What a study comes to: the chosen network and the baselines on the test split, and best/.

The test split is read here and nowhere else, once for each network that is shown.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_tune.networks import onnx_export, pruning, stored
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate, score
from edge_tune.networks.images import Split
from edge_tune.records.choosing import rank, ranking_line
from edge_tune.records.ranking import (
    Row,
    Verdict,
    better_in_both,
    endings,
    evidence,
    failures,
    imprecise_line,
    last_measurement,
)
from edge_tune.records.results import Record, Results
from edge_tune.search.study import Study
from edge_tune.wording import counted


class Converter(Protocol):
    """What the device's owner does besides measuring."""

    def predict(self, onnx: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [N, num_classes] of images [N, C, H, W]."""

    def convert(self, onnx: bytes) -> tuple[bytes, bytes]:
        """Return OpenVINO IR: xml, bin."""


def conclude(study: Study, dataset: Dataset, results: Results, converter: Converter | None) -> Verdict:
    """Test the baselines and the best network, write best/ and summary.json, return the verdict.

    Args:
        converter: The device; None if it computes nothing, then there is no IR and no test on it.
    """
    trials, baselines = results.trials(), results.baselines()
    rows = [row for record in baselines for row in _baseline_rows(study, dataset, results, record)]
    ranking = rank(study.experiment.objective, [*baselines, *trials])
    chosen = ranking.best
    if chosen:
        rows.append(_write_best(study, dataset, results, converter, chosen))
    verdict = Verdict(
        rows=rows,
        chosen=chosen.trial if chosen else None,
        better_in_both={record.name: [trial.trial for trial in better_in_both(trials, record)] for record in baselines},
        endings=endings(trials),
        imprecise=imprecise_line([*baselines, *trials]),
        failures=failures(trials),
        objective=None if ranking.objective.is_a_metric else ranking_line(ranking),
    )
    results.write_json("summary.json", asdict(verdict))
    return verdict


def _baseline_rows(study: Study, dataset: Dataset, results: Results, record: Record) -> Iterator[Row]:
    if record.status != "finished":
        return
    plan = pruning.plan_from_json(record.plan)
    network = pruning.prune(study.network(), plan, study.coupled)
    label = f"{record.name}, not retrained" if plan else record.name
    yield Row(
        name=label,
        trial=record.trial,
        metrics=record.pruned,
        test=_test(network, dataset.test),
        **evidence(record.measurements["pruned"]),
    )
    if record.epoch:
        network = _network(study, results, record)
        label = f"{record.name}, {counted(record.epoch, 'epoch')}"
        yield Row(
            name=label,
            trial=record.trial,
            metrics=record.metrics,
            test=_test(network, dataset.test),
            **evidence(last_measurement(record)),
        )


def _write_best(study: Study, dataset: Dataset, results: Results, converter: Converter | None, record: Record) -> Row:
    network = _network(study, results, record)
    onnx = onnx_export.to_onnx(network, study.input_shape)
    row = Row(
        name=f"best: {record.name}",
        trial=record.trial,
        metrics=record.metrics,
        test=_test(network, dataset.test),
        device_test_top1=_device_top1(converter, onnx, dataset.test) if converter else None,
        **evidence(last_measurement(record)),
    )
    stored.write_network(
        results.folder / "best",
        network=_description(study, record),
        weights=results.network_file(record).read_bytes(),
        onnx=onnx,
        ir=converter.convert(onnx) if converter else None,
        metrics=figures(row, record),
    )
    return row


def figures(row: Row, record: Record) -> dict[str, Any]:
    """Return the content of metrics.json."""
    return {**asdict(row), "record": json.loads(record.to_json())}


def _network(study: Study, results: Results, record: Record) -> nn.Module:
    return stored.rebuild(_description(study, record), results.network_file(record).read_bytes())


def _description(study: Study, record: Record) -> dict[str, Any]:
    plan = pruning.plan_from_json(record.plan)
    return stored.describe(study.experiment.model, study.num_classes, study.input_shape, plan)


def _test(network: nn.Module, split: Split) -> dict[str, float]:
    evaluation = evaluate(network, split)
    return {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss}


def _device_top1(converter: Converter, onnx: bytes, split: Split) -> float:
    """Classify the test split on the device, in pieces that fit in memory."""
    logits, labels = [], []
    for images, truth in split.batches(1000):
        logits.append(torch.tensor(converter.predict(onnx, images.numpy())))
        labels.append(truth)
    return score(torch.cat(logits), torch.cat(labels)).top1
