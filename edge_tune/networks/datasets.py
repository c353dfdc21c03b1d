"""Name -> train, validation and test images.

Images are uint8 RGB until they are batched. Small sets live in memory, larger image folders are
read as they are needed; either way a batch is resized, augmented and normalised as one tensor.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_tune.errors import ExperimentError
from edge_tune.experiment import Data
from edge_tune.networks import reading
from edge_tune.networks.decoding import shown
from edge_tune.networks.folders import list_folder, some
from edge_tune.networks.images import Augmentation, Labels, Split

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

MEMORY_LIMIT_BYTES = 2**30
"""Image folders that are larger than this when decoded stream from their files."""

CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
"""Data sets that are downloaded, and how many classes they have."""

DIGITS_TEST_FRACTION = 0.2
DIGITS_TEST_SEED = 0


Splits = tuple[Split, Split, Split]
Say = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images to train on, to choose networks on and to test the chosen ones on.

    Attributes:
        name: As in `Data`.
        classes: The name of each label.
        image_size: Height and width in pixels of every batch.
        train: What networks are trained on.
        validation: What the search is judged on; taken from the training images.
        test: For the baselines and the chosen networks only.
        augmentation: What training batches get.
        digest: sha256 of what trials see: all of the above but the name and the test.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation
    digest: str

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image, (3, H, W)."""
        return (3, self.image_size, self.image_size)


def load(data: Data, *, seed: int, say: Say = silent) -> Dataset:
    """Read the images and divide those for training into train and validation.

    The division is stratified and depends on `seed` and the sorted file names only. A smaller
    `train_images` takes a subset of a larger one's and leaves validation as it is.

    Args:
        data: "digits", "cifar10" and "cifar100" are data sets; any other name is a folder.
        seed: Of the division.
        say: Receives a line where reading takes long.

    Raises:
        ExperimentError: The images cannot be had, some cannot be read, or they cannot be divided as asked.
    """
    classes, available, test = _read(data)
    train_indices, validation_indices = _divide(available.labels, classes, data, seed)
    splits = (available.take(train_indices), available.take(validation_indices), test)
    train, validation, test = _in_memory(splits, str(data.name), say)
    flip = data.name != "digits" if data.horizontal_flip is None else data.horizontal_flip
    augmentation = Augmentation(data.image_size // 8, flip)
    digest = digest_of((classes, data.image_size, augmentation), (train, validation))
    return Dataset(str(data.name), classes, data.image_size, train, validation, test, augmentation, digest)


def check(data: Data, *, seed: int) -> int:
    """Check what can be checked without an image being decoded or downloaded; return the number of classes.

    Raises:
        ExperimentError: There is no such data set or folder, or it cannot be divided as asked.
    """
    if data.name in CIFAR_CLASSES:
        return CIFAR_CLASSES[data.name]
    classes, available, _ = _read(data)
    _divide(available.labels, classes, data, seed)
    return len(classes)


def cache_folder() -> Path:
    """Return the folder for downloads and trained baselines: $EDGE_TUNE_CACHE or ~/.cache/edge_tune."""
    return Path(os.environ.get("EDGE_TUNE_CACHE") or "~/.cache/edge_tune").expanduser()


def _read(data: Data) -> tuple[tuple[str, ...], Split, Split]:
    if data.name == "digits":
        return _read_digits(data.image_size)
    if data.name in CIFAR_CLASSES:
        return _read_cifar(data.name, data.image_size)
    try:
        return _read_folder(Path(data.name).expanduser().absolute(), data.image_size)
    except OSError as error:  # it may not be read, its name is too long
        place = shown(error.filename or data.name)
        raise ExperimentError(
            f"{place}: an image folder must be readable, but got {error.strerror}; check the path and who may read it."
        ) from error
    except RuntimeError as error:
        raise ExperimentError(
            f"{shown(data.name)}: an image folder must be readable, but got a user whose home is not known; check the "
            f"path."
        ) from error


def _read_digits(image_size: int) -> tuple[tuple[str, ...], Split, Split]:
    from sklearn.datasets import load_digits  # only now: it takes most of a second, and trials do without

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    everything = Split(np.repeat(grey[:, None], 3, axis=1), labels, image_size)
    is_test = _places(labels, DIGITS_TEST_SEED) < np.rint(DIGITS_TEST_FRACTION * np.bincount(labels))[labels]
    classes = tuple(str(name) for name in digits.target_names)
    return classes, everything.take(np.flatnonzero(~is_test)), everything.take(np.flatnonzero(is_test))


def _read_cifar(name: str, image_size: int) -> tuple[tuple[str, ...], Split, Split]:
    from torchvision.datasets import CIFAR10, CIFAR100  # only now: it takes a second, and trials do without

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = cache_folder()
    try:
        train, test = (kind(str(folder), train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError) as error:
        raise ExperimentError(
            f"{name}: must be downloaded into {folder} once, but the download failed ({error}); "
            f"connect to the network, or give a folder with train/CLASS/* and test/CLASS/* by --data PATH."
        ) from error
    return tuple(train.classes), _from_cifar(train, image_size), _from_cifar(test, image_size)


def _from_cifar(part: "CIFAR10", image_size: int) -> Split:
    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return Split(images, np.array(part.targets, dtype=np.int64), image_size)


def _read_folder(root: Path, image_size: int) -> tuple[tuple[str, ...], Split, Split]:
    train, test = list_folder(root)
    return tuple(train), _as_split(train, image_size), _as_split(test, image_size)


def _as_split(files: dict[str, list[str]], image_size: int) -> Split:
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
    return Split(tuple(path for paths in files.values() for path in paths), labels, image_size)


def _divide(
    labels: Labels, classes: tuple[str, ...], data: Data, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of train and of validation, both ascending."""
    sizes = np.bincount(labels)
    held_out = np.maximum(1, np.rint(data.validation_fraction * sizes).astype(np.int64))
    if np.any(held_out >= sizes):
        label = int(np.argmax(held_out >= sizes))
        raise ExperimentError(
            f"{data.name}: every class must keep at least one training image beside its validation images, but "
            f"{classes[label]!r} has {sizes[label]} and validation_fraction={data.validation_fraction} takes "
            f"{held_out[label]}; add images or lower validation_fraction."
        )
    places = _places(labels, seed)
    is_train = places >= held_out[labels]
    # Each class fills up at the same pace, so that any prefix of this order is stratified.
    progress = (places - held_out[labels]) / (sizes - held_out)[labels]
    train = np.flatnonzero(is_train)
    if data.train_images is not None:
        if not len(classes) <= data.train_images <= len(train):
            raise ExperimentError(
                f"{data.name}: train_images must lie between {len(classes)}, one a class, and the {len(train)} "
                f"that validation leaves, but got {data.train_images}; change train_images."
            )
        train = np.sort(train[np.argsort(progress[train], kind="stable")[: data.train_images]])
    return train, np.flatnonzero(~is_train)


def _places(labels: Labels, seed: int) -> NDArray[np.int64]:
    """Return the place of each image in a random order of its class, counted from 0."""
    order = np.random.default_rng(seed).permutation(len(labels))
    places = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        places[members] = np.arange(len(members))
    return places


def _in_memory(splits: Splits, root: str, say: Say) -> Splits:
    """Decode the files of `splits`; where that takes more than MEMORY_LIMIT_BYTES, only see that they can be."""
    train, validation, test = splits
    if not (
        isinstance(train.images, tuple) and isinstance(validation.images, tuple) and isinstance(test.images, tuple)
    ):
        return splits
    assert train.image_size is not None, "files need an image size"
    files = train.images + validation.images + test.images
    if 3 * train.image_size**2 * len(files) > MEMORY_LIMIT_BYTES:
        _raise_if(reading.check(files, train.image_size, say, _remembered(root)), test.images)
        return splits
    pixels, faults = reading.into_memory(files, train.image_size, say)
    _raise_if(faults, test.images)
    ends = np.cumsum([len(train), len(validation)])
    train, validation, test = (
        replace(split, images=part) for split, part in zip(splits, np.split(pixels, ends), strict=True)
    )
    return train, validation, test


def _remembered(root: str) -> Path:
    name = hashlib.sha256(os.fsencode(Path(root).expanduser().absolute())).hexdigest()[:16]
    return cache_folder() / "readable" / name


def _raise_if(faults: Mapping[str, str], test: Sequence[str]) -> None:
    """Say which files cannot be read. Those of the test are no part of a study's identity, and may be replaced."""
    replaceable = set(test) & faults.keys()
    ExperimentError.raise_if(
        some(
            [
                f"{fault}; replace or remove it{'' if file in replaceable else ' (to resume a study: put it back)'}."
                for file, fault in sorted(faults.items())
            ]
        )
    )


def digest_of(settings: object, splits: Sequence[Split]) -> str:
    """Return the sha256 of labels and pixels, or of labels, file names and file sizes."""
    sha = hashlib.sha256(repr(settings).encode())
    for split in splits:
        sha.update(repr(len(split)).encode() + split.labels.tobytes())
        if not isinstance(split.images, tuple):
            sha.update(np.ascontiguousarray(split.images).data)
            continue
        for path in map(Path, split.images):
            sha.update(os.fsencode(f"{path.parent.name}/{path.name} {path.stat().st_size}\n"))
    return sha.hexdigest()
