"""Images that the user's own code gives: "package.module:function" returns two torch datasets, train and test."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edge_tune.errors import ExperimentError, first_line
from edge_tune.imports import import_callable
from edge_tune.networks.decoding import Size, as_rgb
from edge_tune.networks.images import Labels
from edge_tune.waiting import news
from edge_tune.wording import listed, sides

Say = Callable[[str], None]
Part = tuple[NDArray[np.uint8], Labels]
"""Images [N, 3, H, W] and their labels."""

WHAT = "two datasets, train and test, whose items are (image, label) and that know their length"
KINDS = "a PIL image, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W]"
NEWS_S = 10.0
"""Seconds after which it is said how far the reading is."""


def read(name: str, size: Size | None, say: Say) -> tuple[tuple[str, ...], Part, Part]:
    """Return the classes, and all images of train and of test, in memory.

    The classes are the `classes` of the first data set, or, where it has none, its labels.

    Args:
        name: "package.module:function".
        size: That each image is resized to; None: all must have the same.

    Raises:
        ExperimentError: The function gives something else.
    """
    function = import_callable(name, "dataset", f"name a function that returns {WHAT}")
    try:
        train, test = function()
        counts = len(train), len(test)
    except Exception as error:
        raise ExperimentError(
            f"dataset {name!r}: must return {WHAT}, but got {type(error).__name__}: {first_line(error)}; mend it."
        ) from error
    if 0 in counts:
        raise ExperimentError(
            f"dataset {name!r}: must give images to train and to test, but got {counts[0]} and {counts[1]}; add some."
        )
    reader = _Reader(name, size, say)
    of_train, of_test = reader.part("train", train), reader.part("test", test)
    labels, tested = (set(part[1].tolist()) for part in (of_train, of_test))
    classes = tuple(map(str, getattr(train, "classes", range(max(labels) + 1))))
    if labels != set(range(len(classes))) or not tested <= labels or len(classes) < 2:
        raise ExperimentError(
            f"dataset {name!r}: the labels of train must be 0 to {max(1, len(classes) - 1)}, one for each class, and "
            f"those of test some of them, but got {_shown(labels)} and {_shown(tested)}; mend the labels, or `classes`."
        )
    return classes, of_train, of_test


def _shown(labels: set[int]) -> str:
    return listed([str(label) for label in sorted(labels)], most=10)


class _Reader:
    """Reads items to images of one size: what is asked, or that of the first."""

    def __init__(self, name: str, size: Size | None, say: Say) -> None:
        self.name, self.resizes, self.size, self.say = name, size is not None, size, say

    def part(self, part: str, given: Any) -> Part:
        """Return all images and labels of a data set."""
        pixels: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        with news(self.say, lambda: f"Reading images of {part}: {len(labels)} of {len(given)}.", NEWS_S):
            for number in range(len(given)):
                image, label = self._item(f"dataset {self.name!r}: item {number} of {part}", given, number)
                pixels.append(image)
                labels.append(label)
        return np.stack(pixels), np.array(labels, dtype=np.int64)

    def _item(self, where: str, given: Any, number: int) -> tuple[NDArray[np.uint8], int]:
        try:
            image, label = given[number]
            label = operator.index(label)
        except Exception as error:
            raise ExperimentError(
                f"{where}: must be (image, label), the label a whole number, but got {type(error).__name__}: "
                f"{first_line(error)}; mend it."
            ) from error
        rgb = _as_image(where, image)
        self.size = self.size or (rgb.height, rgb.width)
        if (rgb.height, rgb.width) != self.size:
            if not self.resizes:
                raise ExperimentError(
                    f"{where}: must have the size of all others, {sides(self.size)} pixels, unless another image_size "
                    f"than 'native' is given, but got {sides((rgb.height, rgb.width))}."
                )
            rgb = rgb.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(rgb).transpose(2, 0, 1), label


def _as_image(where: str, image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return as_rgb(image)
    values = image.movedim(0, -1).cpu().numpy() if isinstance(image, Tensor) and image.dim() == 3 else image
    if not (isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.shape[2:] in ((1,), (3,))):
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor | np.ndarray) else type(image).__name__
        raise ExperimentError(
            f"{where}: its image must be {KINDS}, as it is before it is made a tensor of floats, normalised or "
            f"augmented, but got {got}; leave out such transforms: EdgeTune does this."
        )
    return Image.fromarray(np.broadcast_to(values, (*values.shape[:2], 3)).copy())
