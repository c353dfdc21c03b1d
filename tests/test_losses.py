from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import edge_tune as et
from edge_tune.errors import ExperimentError, RetrainingError
from edge_tune.loading import identity
from edge_tune.networks import datasets, losses
from edge_tune.networks.retraining import retrain
from edge_tune.networks.training import weights_file
from edge_tune.search import study
from tests.networks import Small, experiment

FOCAL = "tests.exercises.focal:focal_loss"
RECIPE = et.Retraining(epochs=1, lr=0.05, batch_size=32, precision="f32")


def same(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels)


def an_image(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def a_number(logits: Tensor, labels: Tensor) -> float:
    return functional.cross_entropy(logits, labels).item()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) != labels).float().mean()


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> Tensor:
        raise ValueError("no way back")


def not_differentiable(logits: Tensor, labels: Tensor) -> Tensor:
    return NoWayBack.apply(functional.cross_entropy(logits, labels))  # type: ignore[no-any-return, no-untyped-call]


def only_eight(logits: Tensor, labels: Tensor) -> Tensor:
    if len(labels) != 8:
        raise ValueError("only eight")
    return functional.cross_entropy(logits, labels)


def nothing_learned(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.ones((), requires_grad=True) * 2


def infinite(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sum() / 0


def of_other_shapes(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits @ torch.ones(3, 3), logits)


def train_losses(recipe: et.Retraining) -> list[float]:
    torch.manual_seed(0)
    dataset = datasets.load(experiment().data, seed=0)
    teacher = Small(10) if recipe.distillation else None
    epochs = retrain(Small(10), dataset.train, recipe, augmentation=dataset.augmentation, seed=0, teacher=teacher)
    return [epoch.train_loss for epoch in epochs]


@pytest.mark.parametrize("distillation", [None, et.Distillation(weight=0.5)])
def test_own_loss_takes_the_place_of_cross_entropy(distillation: et.Distillation | None) -> None:
    recipe = replace(RECIPE, distillation=distillation)
    usual, equal, other = (
        train_losses(replace(recipe, loss=loss)) for loss in ("cross_entropy", "tests.test_losses:same", FOCAL)
    )
    assert usual == equal
    assert 0 < other[0] < usual[0]  # each image counts less than 1


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("an_image", r"a tensor of shape \[8\]"),
        ("a_number", "a float"),
        ("accuracy", "one without a gradient"),
        ("nothing_learned", "one that does not depend on the logits"),
        ("infinite", "-?inf"),
        ("not_differentiable", r"one whose gradient cannot be computed \(ValueError: no way back\)"),
        ("of_other_shapes", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_function_that_is_no_loss_is_refused(name: str, got: str) -> None:
    sentence = rf"loss 'tests.test_losses:{name}': must return one finite .*, for logits \[8, 10\] .*, but got {got}"
    with pytest.raises(ExperimentError, match=sentence):
        losses.check(replace(RECIPE, loss=f"tests.test_losses:{name}"), 10)


def test_loss_that_fails_later_is_named() -> None:
    with pytest.raises(RetrainingError, match=r"only_eight.: .* \[32\], but got ValueError: only eight"):
        train_losses(replace(RECIPE, loss="tests.test_losses:only_eight"))


@pytest.mark.parametrize("part", ["retraining", "training"])
def test_loss_is_tried_before_anything_starts(part: str) -> None:
    one = replace(experiment(), **{part: replace(RECIPE, loss="tests.test_losses:a_number")})
    with pytest.raises(ExperimentError, match=r"loss 'tests\.test_losses:a_number': must return"):
        study.load(one)


def test_loss_is_part_of_what_a_study_and_its_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, own = (replace(experiment(), retraining=replace(RECIPE, loss=loss)) for loss in ("cross_entropy", FOCAL))
    assert "loss" not in identity(usual)["retraining"]
    assert identity(own)["retraining"]["loss"] == FOCAL
    dataset = datasets.load(usual.data, seed=0)
    files = {weights_file(replace(usual, training=one.retraining), dataset) for one in (usual, own)}
    assert len(files) == 2
    monkeypatch.setattr("edge_tune.networks.models.source", lambda name: "edited")  # the text of what is named
    assert weights_file(replace(usual, training=own.retraining), dataset) not in files
