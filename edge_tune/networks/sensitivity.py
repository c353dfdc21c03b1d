"""How much a network loses with a part of it: classified without it, with batch norm estimated anew, not retrained.

What is lost so is more than what is lost after retraining, and other parts are there to make up for it: it ranks parts,
and promises nothing.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_tune.errors import ExperimentError
from edge_tune.files import write_atomically
from edge_tune.networks import blocks, datasets
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.networks.retraining import estimate_statistics
from edge_tune.records.entries import Effect
from edge_tune.records.jsonfiles import converted

STATISTICS_IMAGES = 1024
"""At most so many training images give the batch-norm statistics."""

JUDGED_IMAGES = 1000
"""At most so many images of the validation split are classified."""

BATCH_SIZE = 128


class Probe:
    """Classifies what is left of one network, and remembers it in the cache: by network, images and what was removed.

    Args:
        network: The unpruned one, with its weights.
    """

    def __init__(self, network: nn.Module, dataset: Dataset) -> None:
        self.train = _some(dataset.train, STATISTICS_IMAGES)
        self.validation = _some(dataset.validation, JUDGED_IMAGES)
        self.file = _file(network, dataset)
        self.known = _read(self.file)

    def __call__(self, removed: str, network: Callable[[], nn.Module]) -> Effect:
        """Return what a network does.

        Args:
            removed: Names what it lacks, so that it is known again.
            network: Makes it, which is only done if nothing is remembered.

        Raises:
            ExperimentError: What was found cannot be kept.
        """
        if removed not in self.known:
            self.known[removed] = self._effect(network())
            plain = {name: asdict(effect) for name, effect in self.known.items()}
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.file, json.dumps(plain, indent=1).encode())
            except OSError as error:
                raise ExperimentError(
                    f"{self.file.parent}: what is found out about the network must be kept there, but got "
                    f"{error.strerror}; name another folder by the variable EDGE_TUNE_CACHE."
                ) from error
        return self.known[removed]

    def _effect(self, network: nn.Module) -> Effect:
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)
        estimate_statistics(network, self.train.batches(BATCH_SIZE))
        evaluation = evaluate(network, self.validation)
        return Effect(evaluation.top1, evaluation.loss, evaluation.images)


def effects_of_blocks(
    network: nn.Module, names: Sequence[str], probe: Probe, say: Callable[[str], None]
) -> Mapping[str, Effect]:
    """Return block -> what the network does without this one block, that without which it loses least first.

    Args:
        say: Receives a line for each block.
    """
    found = {}
    for number, name in enumerate(names, start=1):
        found[name] = probe(f"block {name}", lambda name=name: blocks.without(network, [name]))  # type: ignore[misc]
        say(f"  without {name} ({number} of {len(names)}): top1 {found[name].top1:.1f}, loss {found[name].loss:.3f}")
    return dict(sorted(found.items(), key=lambda item: item[1].loss))


def _some(split: Split, most: int) -> Split:
    """Return at most so many images of a split, drawn alike wherever they are drawn."""
    if len(split) <= most:
        return split
    return split.take(np.sort(np.random.default_rng(0).permutation(len(split))[:most]))


def _file(network: nn.Module, dataset: Dataset) -> Path:
    sha256 = hashlib.sha256(f"{dataset.digest} {STATISTICS_IMAGES} {JUDGED_IMAGES} {BATCH_SIZE}".encode())
    for name, value in network.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.numpy().tobytes())
    return datasets.cache_folder() / "sensitivity" / f"{sha256.hexdigest()[:16]}.json"


def _read(file: Path) -> dict[str, Effect]:
    try:
        return converted(json.loads(file.read_bytes()), dict[str, Effect])
    except (FileNotFoundError, ValueError):  # nothing is remembered, or half of it: it is found again
        return {}
