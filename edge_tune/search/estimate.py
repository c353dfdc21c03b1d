"""What a study would take, told before it is started: one step, one look at the images and one measurement are timed.

All that a run checks is checked first: the device and the nodes are asked as a run asks them.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edge_tune.benchmark.cores import usable_cpus
from edge_tune.benchmark.devices import measuring
from edge_tune.experiment import RETRAINING, Experiment, Retraining, settled
from edge_tune.networks import pruning, training
from edge_tune.networks.compute import take
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.retraining import retrain
from edge_tune.parameters import of_part
from edge_tune.search import suggesters
from edge_tune.search.session import joined
from edge_tune.search.study import load
from edge_tune.wording import counted, duration

Say = Callable[[str], None]
STEPS = 2
"""So many steps are timed, after as many that are not: the first are slow."""

LOOKED_AT = 1000
"""So many validation images are classified at most."""

BYTES = 4
"""Of one parameter of a network that is kept."""


@dataclass(frozen=True)
class Speeds:
    """How fast a trial works with the unpruned network.

    Attributes:
        compute: What calls itself so.
        retrained, classified: Images a second.
        measured_s: Seconds of one measurement.
    """

    compute: str
    retrained: float
    classified: float
    measured_s: float


def check(experiment: Experiment, say: Say) -> None:
    """Check all that a run checks, and say what the study would take.

    Raises:
        ExperimentError: Something does not fit; a run would say the same.
        ComputeError, RetrainingError: Trials cannot compute.
        BenchmarkError: The device cannot measure.
    """
    loaded = load(experiment, say)
    experiment, dataset = loaded.experiment, loaded.dataset
    suggesters.make(experiment)
    cpus = experiment.search.cpus_per_trial
    with joined(experiment, loaded, say) as place:
        here, devices, gpus, room = place.here, place.devices, place.gpus, place.room
        say(f"{here.says(place.found.owner_text, experiment.benchmark.boards)}.")
        recipe = experiment.retraining.at(of_part(experiment.point({}), RETRAINING))
        train = dataset.train.take(_first(dataset.train, STEPS * int(settled(recipe.batch_size))))
        validation = dataset.validation.take(_first(dataset.validation, LOOKED_AT))
        say(f"Timing {counted(STEPS, 'step')} of retraining, {len(validation):,} images and one measurement.")
        at_once = min(room, experiment.search.max_concurrent_trials or room)
        threads = len(usable_cpus()) if at_once == 1 else cpus
        arguments = (threads, gpus, loaded.network, recipe, train, validation, dataset.augmentation)
        compute, retrained, classified = here.as_a_trial(cpus, gpus, _timed, *arguments, say=say)
        with measuring(experiment.benchmark, loaded.onnx, devices) as device:
            began = time.perf_counter()
            device.measure(loaded.onnx)
            measured_s = time.perf_counter() - began
    sizes = len(dataset.train), len(dataset.validation)
    trained_first = None
    if not experiment.weights or loaded.pretrained:
        first = training.training_recipe(experiment, loaded.pretrained)
        trained_first = training.planned_images(first, sizes[0], new_classifier=loaded.pretrained is not None)
    speeds = Speeds(compute, retrained, classified, measured_s)
    parameters, _ = pruning.size(loaded.network, dataset.input_shape)
    for line in lines(experiment, speeds, sizes, at_once, devices, parameters, trained_first):
        say(line)
    say("What a run checks fits. No study was started, and no results were written.")


def lines(
    experiment: Experiment,
    speeds: Speeds,
    sizes: tuple[int, int],
    at_once: int,
    devices: int,
    parameters: int,
    trained_first: tuple[int, int] | None,
) -> list[str]:
    """Return what a study would take, in sentences.

    Args:
        sizes: Training and validation images.
        at_once: Trials.
        devices: That measure for them.
        parameters: Of the unpruned network.
        trained_first: Images that it is trained on before, each as often as it comes, and those that only a new
            classifier is; None where it has its weights.
    """
    train, validation = sizes
    epochs = experiment.retraining.epochs
    looks = (epochs + 1) * validation / speeds.classified
    every = experiment.benchmark.every_epochs
    between = (epochs - 1) // every if epochs and every else 0
    measurements = (1 + between + bool(epochs)) * speeds.measured_s
    an_epoch = train / speeds.retrained
    a_trial = epochs * an_epoch + looks + measurements
    count = experiment.planned_trials + len(experiment.baseline_names)
    whole = count * max(a_trial / at_once, measurements / devices)
    found = [
        f"A trial of a network as large as the unpruned one would take {duration(a_trial)} on {speeds.compute}: "
        f"{duration(epochs * an_epoch)} of retraining ({counted(epochs, 'epoch')} of {train:,} images, "
        f"{speeds.retrained:,.0f} a second), {duration(looks)} of classifying {validation:,} images "
        f"{counted(epochs + 1, 'time')}, {duration(measurements)} of measuring."
    ]
    if trained_first:
        first = trained_first[0] / speeds.retrained + trained_first[1] / speeds.classified
        whole += first
        found.append(
            f"The unpruned network would be trained first: {duration(first)}, unless that is kept from before."
        )
    keeps = {"best": 1, "front": 10, "all": experiment.planned_trials}[experiment.keep_weights]
    megabytes = BYTES * parameters * (keeps + len(experiment.baseline_names) + 2) / 1e6
    return [
        *found,
        f"{counted(count, 'network')}, {counted(at_once, 'trial')} at a time: about {duration(whole)}, and some "
        f"minutes before and after. Pruned networks take less, and so do trials that a rule ends.",
        f"Kept networks would take about {megabytes:,.0f} MB on the disk, the report and the rest about 20.",
    ]


def _first(split: Split, most: int) -> NDArray[np.int64]:
    return np.arange(min(most, len(split)))


def _timed(
    threads: int,
    gpus: float,
    network: nn.Module,
    recipe: Retraining,
    train: Split,
    validation: Split,
    augmentation: Augmentation,
    say: Say,
) -> tuple[str, float, float]:
    """Return what computes, and the images a second that it retrains and classifies."""
    compute = take(threads, gpus)
    there = compute.network(network)
    epochs = list(
        retrain(
            there,
            compute.images(train),
            replace(recipe, epochs=2),
            augmentation=augmentation,
            seed=0,
            teacher=copy.deepcopy(network) if recipe.distillation else None,
            compute=compute,
        )
    )
    images = compute.images(validation)
    evaluate(there, images.take(_first(images, 1)), compute=compute)
    began = time.perf_counter()
    evaluate(there, images, compute=compute)
    seconds = time.perf_counter() - began
    return compute.name, epochs[-1].images_per_s, len(validation) / seconds
