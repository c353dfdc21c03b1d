"""Images from a function of the user's own; the functions that are named are in this file."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from edge_tune.errors import ExperimentError
from edge_tune.experiment import Data
from edge_tune.networks import datasets

GREYS = [10, 60, 110, 160, 210, 250]


class Squares(list):
    """PIL images of one colour with the labels 0 and 1 in turns."""

    classes = ("even", "odd")

    def __init__(self, size: tuple[int, int], last: tuple[int, int] | None = None) -> None:
        sizes = [size] * (len(GREYS) - 1) + [last or size]
        super().__init__(
            (Image.new("L", size, grey), np.int64(number % 2))
            for number, (size, grey) in enumerate(zip(sizes, GREYS, strict=True))
        )


def pictures() -> tuple[Squares, Squares]:
    return Squares((12, 8)), Squares((12, 8), last=(24, 10))


def tensors() -> list[TensorDataset]:
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 8, 12)
    return [TensorDataset(images, torch.arange(6) % 3)] * 2


def floats() -> list[TensorDataset]:
    return [TensorDataset(torch.zeros(6, 3, 8, 8), torch.arange(6) % 2)] * 2


def unlabelled() -> list[list[Image.Image]]:
    return [[Image.new("RGB", (8, 8))]] * 2


def of_one_class() -> list[TensorDataset]:
    return [TensorDataset(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))] * 2


def empty() -> list[list[object]]:
    return [[], []]


def endless() -> list[IterableDataset[object]]:
    return [IterableDataset()] * 2


def fails() -> None:
    raise OSError("no disk")


def test_load_takes_pictures_and_resizes_them() -> None:
    data = Data("tests.test_given:pictures", image_size=(8, 16), validation_fraction=0.3, augmentation=[])
    said: list[str] = []

    found = datasets.load(data, seed=0, say=said.append)

    assert found.classes == ("even", "odd")
    assert found.input_shape == (3, 8, 16)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [4, 2, 6]
    assert found.test.images[:, 0, 0, 0].tolist() == GREYS
    assert found.test.labels.tolist() == [0, 1] * 3
    assert found.digest == datasets.load(data, seed=0).digest
    assert said[-1].startswith("Images: tests.test_given:pictures, 2 classes (even, odd); 4 to train, 2 to validate, 6")


def test_load_takes_tensors_as_they_are() -> None:
    data = Data("tests.test_given:tensors", image_size="native", validation_fraction=0.3)

    found = datasets.load(data, seed=0)

    assert found.classes == ("0", "1", "2")
    assert found.input_shape == (3, 8, 12)
    assert found.test.images[:, 2, 7, 11].tolist() == [0, 1, 2, 3, 4, 5]
    assert datasets.check(data, seed=0) == (3, (8, 12))


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("pictures", r"item 5 of test: must have the size of all others, 8x12 pixels, unless .*, but got 10x24\."),
        ("floats", r"item 0 of train: its image must be a PIL .*, but got torch.float32 \[3, 8, 8\]; leave out such"),
        ("unlabelled", r"item 0 of train: must be \(image, label\), the label a whole number, but got TypeError: "),
        ("of_one_class", r"the labels of train must be 0 to 1, one for each class, .*, but got 0 and 0; mend"),
        ("empty", r"must give images to train and to test, but got 0 and 0; add some"),
        ("endless", r"must return two datasets, train and test, .*, but got TypeError: "),
        ("fails", r"'tests.test_given:fails': must return two datasets, .*, but got OSError: no disk; mend it"),
        ("nothing", r"tests.test_given must define 'nothing', but got no such name; check"),
    ],
)
def test_load_refuses_what_is_no_images(function: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem) as refused:
        datasets.load(Data(f"tests.test_given:{function}", image_size="native"), seed=0)
    assert len(refused.value.problems) == 1
