import copy
import io
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import edge_tune as et
from edge_tune.errors import RetrainingError
from edge_tune.experiment import settled
from edge_tune.networks import datasets, pruning, retraining
from edge_tune.networks.averaging import Average
from edge_tune.networks.compute import CPU
from edge_tune.networks.couplings import couplings
from edge_tune.networks.retraining import distilled, make_state, retrain
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


def by_hand(
    network: nn.Module, recipe: et.Retraining
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[nn.Parameter]]]:
    """Yield the logits of each step of one epoch with its labels, for a test to do the step with."""
    dataset = datasets.load(experiment().data, seed=0)
    network.train()
    batch_size = int(settled(recipe.batch_size))
    for images, labels in dataset.train.batches(batch_size, augment=dataset.augmentation, seed=0):
        yield network(images), labels, list(network.parameters())


def one_epoch(recipe: et.Retraining, teacher: nn.Module | None = None) -> tuple[nn.Module, nn.Module]:
    """Return a network after one epoch of a recipe, and as it was before."""
    dataset = datasets.load(experiment().data, seed=0)
    torch.manual_seed(0)
    network = Small(10)
    before = copy.deepcopy(network)
    list(retrain(network, dataset.train, recipe, augmentation=dataset.augmentation, seed=0, teacher=teacher))
    return network, before


def check_equal(found: nn.Module, expected: nn.Module) -> None:
    for mine, its in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_retrain_agrees_with_nesterov_and_label_smoothing_written_out() -> None:
    """v = momentum * v + grad; w -= lr * (grad + momentum * v); the target is 0.8 for the label, and 0.02 for all."""
    recipe = replace(
        RECIPE, epochs=1, batch_size=64, momentum=0.5, weight_decay=0.0, nesterov=True, label_smoothing=0.2
    )
    network, expected = one_epoch(recipe)
    velocity = [torch.zeros_like(weight) for weight in expected.parameters()]
    for logits, labels, weights in by_hand(expected, recipe):
        target = torch.full_like(logits, 0.02)
        target[torch.arange(len(labels)), labels] += 0.8
        loss = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
        with torch.no_grad():
            for weight, speed, gradient in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
                speed.mul_(0.5).add_(gradient)
                weight -= 0.05 * (gradient + 0.5 * speed)
    check_equal(network, expected)


def test_retrain_agrees_with_adamw_written_out_at_the_rates_of_a_warm_up() -> None:
    """Two steps at half the rate and the whole: w -= lr * (0.1 * w + m / (sqrt(v) + eps)), m and v divided."""
    recipe = replace(
        RECIPE, epochs=1, lr=0.01, batch_size=64, decay=None, weight_decay=0.1, optimiser="adamw", warmup_epochs=1
    )
    network, expected = one_epoch(recipe)
    means = [torch.zeros_like(weight) for weight in expected.parameters()]
    squares = [torch.zeros_like(weight) for weight in expected.parameters()]
    for step, (logits, labels, weights) in enumerate(by_hand(expected, recipe), start=1):
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), weights)
        with torch.no_grad():
            for weight, mean, square, gradient in zip(weights, means, squares, gradients, strict=True):
                mean.mul_(0.9).add_(0.1 * gradient)
                square.mul_(0.999).add_(0.001 * gradient**2)
                m, v = mean / (1 - 0.9**step), square / (1 - 0.999**step)
                weight -= 0.005 * step * (0.1 * weight + m / (v.sqrt() + 1e-8))
    assert step == 2
    check_equal(network, expected)


def test_distilled_is_the_mean_of_both_losses_by_their_weights() -> None:
    """At T = 2 the student's softmax is [1/4, 3/4], the teacher's [1/2, 1/2]: KL = ln(4/3) / 2, times T ** 2 = 4."""
    student, teacher = torch.tensor([[0.0, 2 * math.log(3)]]), torch.tensor([[5.0, 5.0]])
    found = distilled(torch.tensor(1.5), student, teacher, weight=0.75, temperature=2.0)
    assert float(found) == pytest.approx(0.25 * 1.5 + 0.75 * 2 * math.log(4 / 3), rel=1e-6)
    alone = distilled(torch.tensor(1.5), student, student.repeat(1, 1), weight=0.75, temperature=2.0)
    assert float(alone) == pytest.approx(0.375, rel=1e-6)


def test_retrain_learns_from_a_teacher_that_stays_as_it_is() -> None:
    recipe = replace(RECIPE, epochs=1, batch_size=64, momentum=0.0, weight_decay=0.0)
    recipe = replace(recipe, distillation=et.Distillation(weight=0.75, temperature=2.0))
    torch.manual_seed(1)
    teacher = Small(10)
    stays = copy.deepcopy(teacher)
    network, expected = one_epoch(recipe, teacher)
    dataset = datasets.load(experiment().data, seed=0)
    images = dataset.train.batches(64, augment=dataset.augmentation, seed=0)
    for (logits, labels, weights), (batch, _) in zip(by_hand(expected, recipe), images, strict=True):
        soft = (stays.eval()(batch) / 2).softmax(dim=1)
        against_teacher = (soft * (soft.log() - (logits / 2).log_softmax(dim=1))).sum(dim=1).mean()
        loss = 0.25 * nn.functional.cross_entropy(logits, labels) + 0.75 * 4 * against_teacher
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.05 * gradient
    check_equal(network, expected)
    assert all(torch.equal(value, stays.state_dict()[name]) for name, value in teacher.state_dict().items())
    assert not any(weight.grad is not None for weight in teacher.parameters())


def test_retrain_refuses_a_teacher_of_other_classes() -> None:
    recipe = replace(RECIPE, epochs=1, distillation=et.Distillation())
    with pytest.raises(RetrainingError, match=r"the teacher must give .*, \[32, 10\] as .* does, but gave \[32, 7\];"):
        one_epoch(recipe, Small(7))


def test_average_weighs_the_steps_and_leaves_the_beginning_out() -> None:
    """decay 1/2 over weights 4, 8, 16 after three steps: (4 / 4 + 8 / 2 + 16) / (1 / 4 + 1 / 2 + 1) = 12."""
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1000.0)
        average = Average(network, 0.5)
        average.swap()
        for value in (4.0, 8.0, 16.0):
            network.weight.fill_(value)
            average.count()
            average.add()
    average.swap()
    assert network.weight.item() == pytest.approx(12.0)
    average.swap()
    assert network.weight.item() == 16.0


def test_retrain_leaves_the_average_with_statistics_of_its_own_and_trains_on_from_the_weights() -> None:
    recipe = replace(RECIPE, epochs=2, batch_size=64, weight_decay=0.0)
    dataset = datasets.load(experiment().data, seed=0)
    paths = []
    for average in (None, et.Ema(0.6)):
        torch.manual_seed(0)
        network = Small(10)
        asked = replace(recipe, average=average)
        found = []
        for epoch in retrain(network, dataset.train, asked, augmentation=dataset.augmentation, seed=0):
            found.append((epoch.train_loss, copy.deepcopy(network)))
        paths.append(found)
    (plain, averaged) = paths
    assert [loss for loss, _ in averaged] == pytest.approx([loss for loss, _ in plain])  # the same path of weights
    last = averaged[1][1]
    assert not torch.allclose(last.fc.weight, plain[1][1].fc.weight, atol=1e-4)
    images = [images for images, _ in dataset.train.batches(64, augment=dataset.augmentation, seed=1)]
    with torch.no_grad():
        means = [last.block1.conv1(last.stem(batch)).mean(dim=(0, 2, 3)) for batch in images]
    torch.testing.assert_close(last.block1.bn1.running_mean, sum(means) / len(means), rtol=1e-3, atol=1e-4)


def test_whole_numbers_among_the_parameters_stay_as_they_are() -> None:
    model = Small(10)
    model.steps = nn.Parameter(torch.arange(3), requires_grad=False)
    dataset = datasets.load(experiment().data, seed=0)
    coupled = couplings(model, dataset.input_shape)
    groups, point = experiment().groups, experiment().point({"first": 0.5, "second": 0.5})
    pruned = pruning.prune(model, pruning.make_plan(model, groups, point, coupled), coupled)
    assert pruned.block1.conv1.weight.requires_grad
    recipe = replace(RECIPE, epochs=1, weight_decay=0.1, average=et.Ema(0.8))
    list(retrain(pruned, dataset.train, recipe, augmentation=None, seed=0))
    assert pruned.steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("changes", [{"optimiser": "adamw"}, {"nesterov": True, "momentum": 0.8}])
def test_retrain_goes_on_from_its_state_as_if_it_had_not_been_interrupted(changes: dict[str, Any]) -> None:
    recipe = replace(
        RECIPE,
        epochs=4,
        lr=0.01,
        decay=et.OneCycle(),
        label_smoothing=0.1,
        distillation=et.Distillation(),
        average=et.Ema(0.8),
        **changes,
    )
    dataset = datasets.load(experiment().data, seed=0)
    torch.manual_seed(0)
    begun, teacher = Small(10), Small(10)
    whole, cut = copy.deepcopy(begun), copy.deepcopy(begun)
    options: dict[str, Any] = {"augmentation": dataset.augmentation, "seed": 3, "teacher": teacher}
    losses = [epoch.train_loss for epoch in retrain(whole, dataset.train, recipe, **options)]
    state = make_state(cut, recipe)
    epochs = retrain(cut, dataset.train, recipe, state=state, **options)
    assert [next(epochs).train_loss, next(epochs).train_loss] == losses[:2]
    file = io.BytesIO()
    torch.save((cut.state_dict(), state.state_dict()), file)
    file.seek(0)
    weights, kept = torch.load(file, weights_only=True)
    resumed = Small(10)
    resumed.load_state_dict(weights)
    again = make_state(resumed, recipe)
    again.load_state_dict(kept)
    rest = retrain(resumed, dataset.train, recipe, state=again, epochs_done=2, **options)
    assert [epoch.train_loss for epoch in rest] == losses[2:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_retrain_tells_how_far_an_epoch_is_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.load(experiment().data, seed=0)
    recipe = replace(RECIPE, epochs=2, batch_size=64)
    said: list[str] = []
    list(retrain(Small(10), dataset.train, recipe, augmentation=None, seed=0, say=said.append))
    assert said == []
    monkeypatch.setattr(retraining, "EVERY_S", 0.0)
    list(retrain(Small(10), dataset.train, recipe, augmentation=None, seed=0, say=said.append))
    line = r"  epoch {}/2: {} of 128 images, [\d,]+ a second, about {} s left"
    expected = [line.format(epoch, seen, left) for epoch in (1, 2) for seen, left in ((64, r"\d+"), (128, "0"))]
    assert len(said) == 4
    for told, form in zip(said, expected, strict=True):
        assert re.fullmatch(form, told), told


def test_retrain_refuses_a_loss_that_is_not_finite() -> None:
    with pytest.raises(RetrainingError, match=r"epoch \d: the training loss must be finite, but got nan at lr 1e\+20"):
        losses(replace(RECIPE, lr=1e20))


def test_computes_in_bf16_does_what_it_is_told() -> None:
    assert CPU.computes_in_bf16("bf16")
    assert not CPU.computes_in_bf16("f32")


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
