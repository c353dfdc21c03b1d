"""What a retrained network scores with running averages, and with statistics estimated after the epoch.

python -m benchmarks.batch_norm
ResNet-56 on the digits, off-the-shelf plan, 4 epochs at lr 0.1; trains the baseline first if need be.
"""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from edge_tune import pruning, retraining, study
from edge_tune.evaluation import evaluate
from edge_tune.experiment import Point
from edge_tune.loading import load_experiment

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"


def main() -> None:
    """Print val_top1 after each epoch, both ways, for the same batches."""
    experiment = load_experiment(EXPERIMENT)
    experiment = replace(
        experiment,
        dataset=replace(experiment.data, name="digits"),
        retraining=replace(experiment.retraining, epochs=4),
    )
    prepared, _ = study.prepare(experiment, print)
    print(f"n = {len(prepared.validation)} validation images")
    with mock.patch.object(retraining, "_estimate_statistics"):
        print(f"running averages      {top1_by_epoch(prepared)}")
    print(f"estimated afterwards  {top1_by_epoch(prepared)}")


def top1_by_epoch(prepared: study.Study) -> list[float]:
    """Return val_top1 right after pruning and after each epoch."""
    experiment = prepared.experiment
    point = Point(experiment.baselines["off_the_shelf"], dict.fromkeys(experiment.pruner_groups, "filters"))
    network = prepared.network()
    plan = pruning.make_plan(network, experiment.pruner_groups, point, prepared.coupled)
    network = pruning.prune(network, plan, prepared.coupled)
    found = [evaluate(network, prepared.validation).top1]
    torch.manual_seed(0)
    recipe, augmentation = experiment.retraining, prepared.augmentation
    for _ in retraining.retrain(network, prepared.train, recipe, augmentation=augmentation, seed=0):
        found.append(evaluate(network, prepared.validation).top1)
    return [round(value, 2) for value in found]


if __name__ == "__main__":
    main()
