"""Name -> train, validation and test images.

Images are uint8 RGB until they are batched. Small sets live in memory, larger image folders are
read as they are needed; either way a batch is resized, augmented and normalised as one tensor.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_tune.errors import ExperimentError
from edge_tune.experiment import Data
from edge_tune.images import Augmentation, Labels, Split

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

MEMORY_LIMIT_BYTES = 2**30
"""Image folders that are larger than this when decoded stream from their files."""

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
"""Data sets that are downloaded, and how many classes they have."""

DIGITS_TEST_FRACTION = 0.2
DIGITS_TEST_SEED = 0


Splits = tuple[Split, Split, Split]


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
        digest: sha256 of all of the above but the name; equal digests are equal data.
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


def load(data: Data, *, seed: int) -> Dataset:
    """Read the images and divide those for training into train and validation.

    The division is stratified and depends on `seed` and the sorted file names only. A smaller
    `train_images` takes a subset of a larger one's and leaves validation as it is.

    Args:
        data: "digits", "cifar10" and "cifar100" are data sets; any other name is a folder.
        seed: Of the division.

    Raises:
        ExperimentError: The images cannot be had, or not be divided as asked.
    """
    classes, available, test = _read(data)
    train_indices, validation_indices = _divide(available.labels, classes, data, seed)
    splits = (available.take(train_indices), available.take(validation_indices), test)
    train, validation, test = splits = _in_memory(splits)
    flip = data.name != "digits" if data.horizontal_flip is None else data.horizontal_flip
    augmentation = Augmentation(data.image_size // 8, flip)
    digest = digest_of((classes, data.image_size, augmentation), splits)
    return Dataset(data.name, classes, data.image_size, train, validation, test, augmentation, digest)


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
    except (OSError, RuntimeError) as error:  # it may not be read, its name is too long, there is no ~user
        raise ExperimentError(f"{data.name}: an image folder must be readable, but got: {error}") from error


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
    if not root.is_dir():
        raise ExperimentError(
            f"{root}: data must be 'digits', 'cifar10', 'cifar100' or the path of an image folder, "
            f"but got no such folder; check the path."
        )
    train, test = (_list_images(root / part) for part in ("train", "test"))
    if len(train) < 2:
        raise ExperimentError(
            f"{root / 'train'}: must hold at least two classes to tell apart, but got only {next(iter(train))!r}; "
            f"add a folder of images for each further class."
        )
    if train.keys() != test.keys():
        strays = sorted(train.keys() ^ test.keys())
        raise ExperimentError(
            f"{root}: train/ and test/ must hold the same classes, but got {_first(strays)} in one of them only; "
            f"add the missing folders or remove the others."
        )
    return tuple(train), _as_split(train, image_size), _as_split(test, image_size)


def _list_images(folder: Path) -> dict[str, list[str]]:
    """Return the image files of each class, both sorted by name; hidden and other files do not count."""
    if not folder.is_dir():
        raise ExperimentError(
            f"{folder.parent}: an image folder must hold train/CLASS/* and test/CLASS/*, but got no {folder.name}/; "
            f"create it or check the path."
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise ExperimentError(
            f"{folder}: must hold one folder of images for each class, but got no folders; "
            f"sort the images into {folder.name}/CLASS/."
        )
    files = {name: sorted(str(path) for path in (folder / name).iterdir() if _is_image(path)) for name in names}
    if empty := [name for name in names if not files[name]]:
        raise ExperimentError(
            f"{folder}: every class folder must hold images ({', '.join(sorted(SUFFIXES))}), "
            f"but got none in {_first(empty)}; add some or remove the folder."
        )
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


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


def _in_memory(splits: Splits) -> Splits:
    """Decode the files of `splits`, unless that takes more than MEMORY_LIMIT_BYTES."""
    size_bytes = sum(3 * (split.image_size or 0) ** 2 * len(split) for split in splits)
    if size_bytes > MEMORY_LIMIT_BYTES:
        return splits
    train, validation, test = (split.in_memory() for split in splits)
    return train, validation, test


def digest_of(settings: object, splits: Sequence[Split]) -> str:
    """Return the sha256 of labels and pixels, or of labels, file names and file sizes."""
    sha = hashlib.sha256(repr(settings).encode())
    for split in splits:
        sha.update(repr(len(split)).encode() + split.labels.tobytes())
        if not isinstance(split.images, tuple):
            sha.update(np.ascontiguousarray(split.images).data)
            continue
        for path in map(Path, split.images):
            sha.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
    return sha.hexdigest()


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
