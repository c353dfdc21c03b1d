"""How much a network loses with a part of it: classified without it, with batch norm estimated anew, not retrained.

What is lost so is more than what is lost after retraining, and other parts are there to make up for it: it ranks parts,
and promises nothing.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_tune.networks import blocks, datasets
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.networks.retraining import estimate_statistics
from edge_tune.records.entries import Effect
from edge_tune.records.kept import Kept

STATISTICS_IMAGES = 1024
"""At most so many training images give the batch-norm statistics."""

JUDGED_IMAGES = 1000
"""At most so many images of the validation split are classified."""

LEAST_IMAGES = 200
"""Fewer tell blocks apart by chance."""

AFFORDED_MACS = 1.3e11
"""Multiply-accumulates of the images that are judged without one part: 1,000 images of a ResNet-56 for CIFAR."""

BATCH_SIZE = 128


def afforded_images(macs: int) -> int:
    """Return how many images are judged, and give the statistics, of a network of so many MACs, so that it ends soon.

    Args:
        macs: Multiply-accumulates of one image.
    """
    return min(JUDGED_IMAGES, max(LEAST_IMAGES, int(AFFORDED_MACS / macs)))


class Probe:
    """Classifies what is left of one network, and remembers it in the cache: by network, images and what was removed.

    Args:
        network: The unpruned one, with its weights.
        onnx: The same network, by which it is known again: another definition may have the same weights.
        statistics_images: At most so many training images give the batch-norm statistics.
        judged_images: At most so many images of the validation split are classified.
    """

    def __init__(
        self,
        network: nn.Module,
        onnx: bytes,
        dataset: Dataset,
        statistics_images: int = STATISTICS_IMAGES,
        judged_images: int = JUDGED_IMAGES,
    ) -> None:
        self.train = _some(dataset.train, statistics_images)
        self.validation = _some(dataset.validation, judged_images)
        self.kept = Kept(_file(onnx, dataset, statistics_images, judged_images), Effect)

    def __contains__(self, removed: str) -> bool:
        """Tell whether it is remembered what the network does without this."""
        return removed in self.kept

    def __call__(self, removed: str, network: Callable[[], nn.Module]) -> Effect:
        """Return what a network does.

        Args:
            removed: Names what it lacks, so that it is known again.
            network: Makes it, which is only done if nothing is remembered.

        Raises:
            ExperimentError: What was found cannot be kept.
        """
        return self.kept(removed, lambda: self.effect(network()))

    def effect(self, network: nn.Module) -> Effect:
        """Return what a network does, which is not remembered."""
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


def _file(onnx: bytes, dataset: Dataset, statistics_images: int, judged_images: int) -> Path:
    sha256 = hashlib.sha256(f"{dataset.digest} {statistics_images} {judged_images} {BATCH_SIZE}".encode())
    sha256.update(onnx)
    return datasets.cache_folder() / "sensitivity" / f"{sha256.hexdigest()[:16]}.json"
