"""What a study comes to: the chosen network and the baselines on the test split, and best/.

The test split is read here and nowhere else, once for each network that is shown.
"""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_tune.networks import onnx_export, pruning, stored
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate, score
from edge_tune.networks.images import Split
from edge_tune.networks.layer_shapes import network_shape
from edge_tune.records.choosing import rank
from edge_tune.records.jsonfiles import plain
from edge_tune.records.results import Record, Results
from edge_tune.records.verdict import Row, Verdict, rows_of, verdict_of
from edge_tune.search.study import Study


class Converter(Protocol):
    """What the device's owner does besides measuring."""

    def predict(self, onnx: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [N, num_classes] of images [N, C, H, W]."""

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Return OpenVINO IR: xml, bin; None if the device's runtime has no such thing."""


def conclude(study: Study, dataset: Dataset, results: Results, converter: Converter | None) -> Verdict:
    """Test the baselines and the best network, write best/ and summary.json, return the verdict.

    Args:
        converter: The device; None if it computes nothing, then there is no IR and no test on it.
    """
    trials, baselines = results.trials(), results.baselines()
    ranking = rank(study.experiment.objective, [*baselines, *trials])
    chosen, records = ranking.best, {record.trial: record for record in (*baselines, *trials)}
    rows = []
    for row in rows_of(baselines, chosen):
        record = records[row.trial]
        network = _network(study, results, record, row.epoch)
        tested = _tested(row, network, dataset.test)
        if record is chosen:
            tested = _write_best(study, dataset, results, converter, tested, record, network)
        rows.append(tested)
    epochs = study.experiment.retraining.epochs
    verdict = verdict_of(baselines, trials, ranking, rows, epochs=epochs, untouched=untouched(study))
    results.write_json("summary.json", verdict)
    return verdict


def _write_best(
    study: Study,
    dataset: Dataset,
    results: Results,
    converter: Converter | None,
    row: Row,
    record: Record,
    network: nn.Module,
) -> Row:
    """Write best/ and return the row of the chosen network, tested on the device too."""
    onnx = onnx_export.to_onnx(network, study.input_shape)
    row = replace(row, device_test_top1=_device_top1(converter, onnx, dataset.test) if converter else None)
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
    """Return the content of metrics.json, in which the record holds the answers."""
    return {**plain(replace(row, answers=None, test_answers=None)), "record": plain(record)}


def _network(study: Study, results: Results, record: Record, epoch: int) -> nn.Module:
    """Return the network of a row: right after pruning, or as its trial left it."""
    if epoch < record.epoch:
        return pruning.prune(study.network(), record.plan, study.coupled)
    return stored.rebuild(_description(study, record), results.network_file(record).read_bytes())


def _description(study: Study, record: Record) -> stored.Description:
    how = study.train.normalisation
    return stored.Description(
        study.experiment.model, study.num_classes, study.input_shape, record.plan, how.mean, how.std
    )


def _tested(row: Row, network: nn.Module, split: Split) -> Row:
    found = evaluate(network, split)
    test = {"top1": found.top1, "top5": found.top5, "loss": found.loss}
    return replace(row, test=test, test_answers=found.answers)


def untouched(study: Study) -> list[str]:
    """Return the layers that no group may prune, in the network's order."""
    experiment = study.experiment
    shape = network_shape(study.network(), experiment.pruners, study.coupled, study.granularity)
    blocks = [f"{block}." for group in experiment.block_groups.values() for block in group.blocks]
    return [
        layer.name
        for layer in shape.layers
        if not (layer.outputs.cuts or layer.inputs.cuts or f"{layer.name}.".startswith(tuple(blocks)))
    ]


def _device_top1(converter: Converter, onnx: bytes, split: Split) -> float:
    """Classify the test split on the device, in pieces that fit in memory."""
    logits, labels = [], []
    for images, truth in split.batches(1000):
        logits.append(torch.tensor(converter.predict(onnx, images.numpy())))
        labels.append(truth)
    return score(torch.cat(logits), torch.cat(labels)).top1
