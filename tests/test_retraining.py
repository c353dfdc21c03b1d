import math
from dataclasses import replace

import pytest
import torch

import edge_tune as et
from edge_tune.errors import RetrainingError
from edge_tune.networks import datasets
from edge_tune.networks.retraining import computes_in_bf16, retrain
from tests.networks import Small, experiment

RECIPE = et.Retraining(epochs=3, lr=0.05, batch_size=32, decay=et.Exponential(gamma=0.5), precision="f32")


def losses(recipe: et.Retraining, seed: int = 0) -> list[float]:
    torch.manual_seed(0)
    dataset = datasets.load(experiment().data, seed=0)
    epochs = retrain(Small(10), dataset.train, recipe, augmentation=dataset.augmentation, seed=seed)
    return [epoch.train_loss for epoch in epochs]


def test_retrain_lowers_the_loss_and_reports_each_epoch() -> None:
    dataset = datasets.load(experiment().data, seed=0)
    torch.manual_seed(0)
    epochs = list(retrain(Small(10), dataset.train, RECIPE, augmentation=dataset.augmentation, seed=0))
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert [epoch.lr for epoch in epochs] == [0.05, 0.025, 0.0125]
    assert epochs[2].train_loss < epochs[0].train_loss


def test_retrain_is_reproducible_by_seed() -> None:
    assert losses(RECIPE) == losses(RECIPE) != losses(RECIPE, seed=5)


def test_retrain_agrees_with_torch_sgd_written_out() -> None:
    """Two steps by hand: v = momentum * v + grad + weight_decay * w; w -= lr * v."""
    recipe = replace(RECIPE, epochs=1, batch_size=64, decay=None, momentum=0.5, weight_decay=0.1)
    dataset = datasets.load(experiment().data, seed=0)
    torch.manual_seed(0)
    network = Small(10)
    by_hand = Small(10)
    by_hand.load_state_dict(network.state_dict())
    list(retrain(network, dataset.train, recipe, augmentation=None, seed=0))
    velocity = [torch.zeros_like(weight) for weight in by_hand.parameters()]
    for images, labels in dataset.train.batches(64, augment=None, seed=0):
        loss = torch.nn.functional.cross_entropy(by_hand.train()(images), labels)
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for weight, speed, gradient in zip(by_hand.parameters(), velocity, gradients, strict=True):
                speed.mul_(0.5).add_(gradient + 0.1 * weight)
                weight -= 0.05 * speed
    torch.testing.assert_close(network.fc.weight, by_hand.fc.weight, rtol=1e-3, atol=1e-5)


def test_retrain_refuses_a_loss_that_is_not_finite() -> None:
    with pytest.raises(RetrainingError, match=r"epoch \d: the training loss must be finite, but got nan at lr 1e\+20"):
        losses(replace(RECIPE, lr=1e20))


def test_computes_in_bf16_does_what_it_is_told() -> None:
    assert computes_in_bf16(replace(RECIPE, precision="bf16"))
    assert not computes_in_bf16(replace(RECIPE, precision="f32"))


def test_retrain_in_bf16_stays_near_f32() -> None:
    in_f32, in_bf16 = losses(RECIPE), losses(replace(RECIPE, precision="bf16"))
    assert in_bf16 == pytest.approx(in_f32, rel=0.05)
    assert in_bf16 != in_f32


@pytest.mark.parametrize("augments", [True, False])
@pytest.mark.parametrize(("available", "used"), [(128, 128), (1200, 1100)])
def test_retrain_leaves_the_statistics_of_its_weights_on_the_images_that_it_trains_on(
    available: int, used: int, augments: bool
) -> None:
    """The first of the last epoch in batches of 100, or all where there are fewer, at the weights that it left."""
    dataset = datasets.load(et.Data("digits", image_size=16, train_images=available), seed=0)
    augmentation = dataset.augmentation if augments else None
    torch.manual_seed(0)
    network = Small(10)
    recipe = replace(RECIPE, epochs=1, lr=0.5, batch_size=100)
    list(retrain(network, dataset.train, recipe, augmentation=augmentation, seed=3))
    images = [images for images, _ in dataset.train.batches(100, augment=augmentation, seed=3)]
    images = images[: math.ceil(used / 100)]
    assert sum(map(len, images)) == used
    with torch.no_grad():
        means = [network.block1.conv1(network.stem(batch)).mean(dim=(0, 2, 3)) for batch in images]
    torch.testing.assert_close(network.block1.bn1.running_mean, sum(means) / len(means), rtol=1e-3, atol=1e-4)
    assert network.block1.bn1.momentum == 0.1
