"""Golden figures on the real network and images beside the checkout; skipped where they are absent."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_tune.loading import load_experiment
from edge_tune.networks import models, pruning, weights
from edge_tune.networks.couplings import couplings
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from tests.test_experiment import EXPERIMENTS

SHARED = Path(__file__).parents[2] / "shared"
IMAGES = SHARED / "data" / "cifar10-jpeg.zip"
WEIGHTS = SHARED / "models" / "resnet56_cifar10_jpeg.pt"

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs ../shared, the trained ResNet-56 and its images")


def read_test_split() -> Split:
    """The 10,000 test images, straight from the archive: an oracle beside `datasets.load`."""
    with zipfile.ZipFile(IMAGES) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
    classes = sorted({name.split("/")[1] for name in names})
    labels = np.array([classes.index(name.split("/")[1]) for name in names], dtype=np.int64)
    return Split(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels)


def test_off_the_shelf_plan_scores_what_was_found_before() -> None:
    experiment = load_experiment(EXPERIMENTS / "resnet56_latency.py")
    network = models.build("resnet56_cifar", 10)
    weights.load_weights(network, weights.read_weights(str(WEIGHTS)), str(WEIGHTS))
    point = experiment.point(experiment.baselines["off_the_shelf"])
    coupled = couplings(network, (3, 32, 32))
    plan = pruning.make_plan(network, experiment.pruner_groups, point, coupled)
    result = evaluate(pruning.prune(network, plan, coupled), read_test_split())
    assert (result.images, result.top1, result.top5) == (10_000, 53.71, 92.98)
