"""What every trial of a study shares: prepared once on the driver, sent once to each node."""

import hashlib
import io
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_tune.benchmark import granularity
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.errors import ExperimentError
from edge_tune.experiment import AUTO, Benchmark, BlockGroup, Experiment, Group
from edge_tune.loading import without_secrets
from edge_tune.networks import (
    checking,
    datasets,
    finding,
    gradients,
    losses,
    models,
    onnx_export,
    pruning,
    sensitivity,
    stored,
    training,
)
from edge_tune.networks.couplings import Couplings
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.importance import Basis
from edge_tune.networks.tracing import Shape
from edge_tune.networks.weights import Pretrained, is_download, load_pretrained, load_weights, read_weights
from edge_tune.records.entries import Effect
from edge_tune.wording import counted, listed

Say = Callable[[str], None]
MeasureGranularity = Callable[[Benchmark], granularity.GranularityVerdict]


@dataclass(frozen=True)
class Study:
    """The experiment, the unpruned network and the images. The test split stays on the driver.

    Attributes:
        weights: The unpruned network's `state_dict`, as the bytes of a file.
        coupled: What must be removed together in the network.
        digest: Of everything that decides what a trial reports, but for the search itself.
        granularity: Channel granularity: every kept count is aligned to it; 1 for as asked.
        network_digest, images: Digests of the unpruned network alone, and of the images that trials see.
        effects: Block -> what the network does without it alone, where the order of blocks was measured.
        gradients: Of the weights that may be ranked by them, by name.
    """

    experiment: Experiment
    weights: bytes
    train: Split
    validation: Split
    augmentation: Augmentation
    input_shape: Shape
    num_classes: int
    coupled: Couplings
    digest: str
    network_digest: str
    images: str
    granularity: int = 1
    effects: Mapping[str, Effect] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def basis(self) -> Basis:
        """What slices are ranked by besides their weights."""
        return Basis(self.gradients, self.experiment.search.seed)

    def network(self) -> nn.Module:
        """Return the unpruned network, a new one at each call."""
        network = models.build(self.experiment.model, self.num_classes)
        network.load_state_dict(torch.load(io.BytesIO(self.weights), weights_only=True))
        return network.eval()

    def reference(self) -> bytes:
        """Return the unpruned network as ONNX, which every measurement takes turns with."""
        return onnx_export.to_onnx(self.network(), self.input_shape)

    def measures_after(self, epoch: int) -> bool:
        """Tell whether `Benchmark(every_epochs=...)` asks for a measurement after `epoch`."""
        every = self.experiment.benchmark.every_epochs
        return every is not None and epoch % every == 0


@dataclass(frozen=True)
class Loaded:
    """What was found for an experiment, checked: nothing was trained or measured for it.

    Attributes:
        network: With the experiment's weights, if it names any.
        coupled: What must be removed together in it.
        onnx: The network, for the device to be tried on; its values may still be trained.
        pretrained: The experiment's weights if they are of another number of classes: a classifier is to be trained.
    """

    experiment: Experiment
    dataset: Dataset
    network: nn.Module
    coupled: Couplings
    onnx: bytes
    pretrained: Pretrained | None = None

    @property
    def image(self) -> NDArray[np.float32]:
        """An image [1, C, H, W] for the network."""
        return np.zeros((1, *self.dataset.input_shape), dtype=np.float32)


def load(experiment: Experiment, say: Say = datasets.silent) -> Loaded:
    """Load the images, build the network, and check that its groups can be pruned and that it can be exported.

    Args:
        say: Receives a line now and then while images are read or weights downloaded.

    Raises:
        ExperimentError: Something that the experiment names is not there or does not fit.
    """
    torch.set_num_threads(len(usable_cpus()))  # `ray exec` exports OMP_NUM_THREADS=1
    dataset = datasets.load(experiment.data, seed=experiment.search.seed, say=say)
    experiment, network, coupled, onnx, pretrained = _network(
        experiment, dataset.num_classes, dataset.input_shape, experiment.weights, say
    )
    return Loaded(experiment, dataset, network, coupled, onnx, pretrained)


def check(experiment: Experiment, say: Say = datasets.silent) -> Experiment:
    """Check, for a simulation, all that `load` does, but for what the images show and what would be downloaded.

    Returns the experiment with the groups that were found in its network, if that was asked.

    Raises:
        ExperimentError: Something that the experiment names is not there or does not fit.
    """
    num_classes, size = datasets.check(experiment.data, seed=experiment.search.seed)
    weights = experiment.weights
    return _network(experiment, num_classes, (3, *size), None if weights and is_download(weights) else weights, say)[0]


def _network(
    experiment: Experiment, num_classes: int, input_shape: Shape, weights: str | None, say: Say
) -> tuple[Experiment, nn.Module, Couplings, bytes, Pretrained | None]:
    """Return the experiment with its groups, the network with its weights, couplings, ONNX, and what to train on."""
    network = models.build(experiment.model, num_classes)
    models.check_output(network, input_shape, num_classes)
    for recipe in filter(None, (experiment.retraining, experiment.training)):
        losses.check(recipe, num_classes)
    onnx = training.checked_onnx(network, input_shape)
    if experiment.pruner_groups == AUTO:
        experiment = replace(experiment, pruner_groups=finding.groups(network, input_shape))
        for label, group in experiment.groups.items():
            say(f"Found {label}: {_found(group)}.")
    else:
        experiment = experiment.named_in({name for name, _ in (*network.named_modules(), *network.named_parameters())})
    coupled = checking.check_groups(network, experiment.groups, input_shape)
    for line in checking.tied_to(network, experiment.pruners, coupled):
        say(line)
    pretrained = None
    if weights:
        given = read_weights(weights, say)
        pretrained = load_pretrained(network, given, num_classes, without_secrets(weights), say)
    return experiment, network, coupled, onnx, pretrained


def _found(group: Group) -> str:
    if isinstance(group, BlockGroup):
        return f"{counted(len(group.blocks), 'block')}, {group.blocks[0]} first; {group.keep.shown} stay"
    return f"{counted(len(group.weights), 'weight')}, {group.weights[0]} first; {group.sparsity.shown}"


def prepare(
    loaded: Loaded,
    say: Say,
    measure_granularity: MeasureGranularity = granularity.measure_granularity,
    train_by: training.Train | None = None,
) -> Study:
    """Train the network if it has no weights or a new classifier; measure and take what its plans follow from.

    Args:
        measure_granularity: Measures on the host that has the device.
        train_by: Trains the network; None: this process does, on its CPUs.

    Raises:
        ComputeError: What trains has no GPU that PyTorch can use, or one with too little memory.
        RetrainingError: The training diverged.
        ExperimentError: Gradients that are asked for cannot be taken.
        BenchmarkError: The device cannot be measured.
    """
    experiment, dataset, network = loaded.experiment, loaded.dataset, loaded.network
    if loaded.pretrained or not experiment.weights:
        trained = training.trained_weights(experiment, dataset, say, loaded.pretrained, train_by)
        load_weights(network, trained, "the trained baseline")
    effects = _effects(experiment, network, dataset, say)
    orders = {label: sorted(group.blocks, key=list(effects).index) for label, group in _unordered(experiment).items()}
    experiment = experiment.ordered(orders)
    aligned_to = granularity_of(experiment.benchmark, say, measure_granularity)
    return Study(
        experiment=experiment,
        weights=stored.to_bytes(network),
        train=dataset.train,
        validation=dataset.validation,
        augmentation=dataset.augmentation,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        coupled=loaded.coupled,
        digest=_digest(network, dataset, aligned_to if experiment.benchmark.align == "auto" else None),
        network_digest=digest_of_network(network),
        images=dataset.digest,
        granularity=aligned_to,
        effects=effects,
        gradients=_gradients(loaded, say),
    )


def _gradients(loaded: Loaded, say: Say) -> Mapping[str, Tensor]:
    """Take the gradients of the weights that may be ranked by them."""
    ranked = gradients.ranked_by_gradients(loaded.network, loaded.experiment.pruners, loaded.coupled)
    if not ranked:
        return {}
    say(f"Taking the gradients of {counted(len(ranked), 'weight')}, by which 'taylor' ranks.")
    return gradients.gradients(
        loaded.network,
        loaded.dataset.train,
        ranked,
        augmentation=loaded.dataset.augmentation,
        seed=loaded.experiment.search.seed,
    )


def _unordered(experiment: Experiment) -> dict[str, BlockGroup]:
    return {label: group for label, group in experiment.block_groups.items() if group.order is None}


def _effects(experiment: Experiment, network: nn.Module, dataset: Dataset, say: Say) -> Mapping[str, Effect]:
    """Measure what the network does without each block of the groups that give no order, the least harmful first."""
    unordered = _unordered(experiment)
    if not unordered:
        return {}
    names = [block for group in unordered.values() for block in group.blocks]
    blocks = counted(len(names), "block")
    say(f"Measuring what the network loses without each of {blocks}, not retrained: the least harmful go first.")
    images = sensitivity.afforded_images(pruning.size(network, dataset.input_shape)[1])
    onnx = onnx_export.to_onnx(network, dataset.input_shape)
    probe = sensitivity.Probe(network, onnx, dataset, images, images)
    effects = sensitivity.effects_of_blocks(network, names, probe, say)
    for label, group in unordered.items():
        say(f"{label}: first to go {listed(sorted(group.blocks, key=list(effects).index), most=8)}.")
    return effects


def granularity_of(
    settings: Benchmark, say: Say, measure_granularity: MeasureGranularity = granularity.measure_granularity
) -> int:
    """Return what kept counts are aligned to, measured if the settings say "auto".

    Raises:
        BenchmarkError: The device cannot be measured.
    """
    if settings.align != "auto":
        return settings.align or 1
    verdict = measure_granularity(settings)
    aligned_to = verdict.granularity or 1
    counts = f"multiples of {aligned_to}" if aligned_to > 1 else "not aligned"
    say(f"{granularity.says(verdict)} Kept counts are {counts}.")
    return aligned_to


def images_digest(train: Split, validation: Split) -> str:
    """Return the digest of the images that trials use, as this process finds them.

    Raises:
        ExperimentError: A file is not there.
    """
    try:
        return datasets.digest_of("images", (train, validation))
    except OSError as error:
        raise ExperimentError(
            f"{error.filename}: the images must be on each node that trains, under the same path, but got "
            f"{error.strerror} on {platform.node()}; copy them there (in cluster.yaml: file_mounts)."
        ) from error


def digest_of_network(network: nn.Module) -> str:
    """Return the digest of a network's weights and buffers by their names."""
    sha256 = hashlib.sha256()
    _add(sha256, network)
    return sha256.hexdigest()[:16]


def _add(sha256: "hashlib._Hash", network: nn.Module) -> None:
    for name, value in network.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.numpy().tobytes())


def _digest(network: nn.Module, dataset: Dataset, measured_granularity: int | None) -> str:
    sha256 = hashlib.sha256(dataset.digest.encode())
    if measured_granularity is not None:
        sha256.update(f"granularity {measured_granularity}".encode())
    _add(sha256, network)
    return sha256.hexdigest()[:16]
