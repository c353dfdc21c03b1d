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
from edge_tune.experiment import IMPORTABLE, NATIVE, Channels, Data
from edge_tune.networks import given, reading
from edge_tune.networks.decoding import Size, decode, reason, shown
from edge_tune.networks.folders import list_folder, some
from edge_tune.networks.images import Augmentation, Images, Labels, Normalisation, Split
from edge_tune.wording import counted, listed, sides

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

MEMORY_LIMIT_BYTES = 2**30
"""Image folders that are larger than this when decoded stream from their files."""

CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
"""Data sets that are downloaded, and how many classes they have."""

CIFAR_SIZE = (32, 32)

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
        size: Of the images in every batch.
        train: What networks are trained on.
        validation: What the search is judged on; taken from the training images.
        test: For the baselines and the chosen networks only.
        augmentation: What training batches get.
        digest: sha256 of what trials see: all of the above but the name and the test.
    """

    name: str
    classes: tuple[str, ...]
    size: Size
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation
    digest: str

    @property
    def streams(self) -> bool:
        """Whether trials read the images from files, which each node must have."""
        return isinstance(self.train.images, tuple)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image, (3, H, W)."""
        return (3, *self.size)


def load(data: Data, *, seed: int, say: Say = silent) -> Dataset:
    """Read the images and divide those for training into train and validation.

    The division is stratified and depends on `seed` and the sorted file names only. A smaller
    `train_images` takes a subset of a larger one's and leaves validation as it is.

    Args:
        data: "digits", "cifar10" and "cifar100" are data sets, "package.module:function" returns two; any other name is
            a folder.
        seed: Of the division.
        say: Receives a line where reading takes long, and one on what was found.

    Raises:
        ExperimentError: The images cannot be had, some cannot be read, or they cannot be divided as asked.
    """
    classes, available, test = _read(data, say)
    train_indices, validation_indices = _divide(available.labels, classes, data, seed)
    asked_for = available.take(train_indices)
    size = _size(data) or _own_size(asked_for.images)
    normalisation = Normalisation(_channels(data.mean), _channels(data.std))
    train, validation, test = (
        replace(split, size=size, normalisation=normalisation)
        for split in (asked_for, available.take(validation_indices), test)
    )
    train, validation, test = _in_memory((train, validation, test), data, say)
    augmentation = _augmentation(data, size)
    side = size[0] if size[0] == size[1] else size
    others = () if normalisation == Normalisation() else (normalisation,)
    digest = digest_of((classes, side, augmentation, *others), (train, validation))
    found = Dataset(str(data.name), classes, size, train, validation, test, augmentation, digest)
    say(_found(found, _own_size(asked_for.images)))
    return found


def check(data: Data, *, seed: int) -> tuple[int, Size]:
    """Check what can be checked without images being decoded or downloaded; return the number of classes and the size.

    Raises:
        ExperimentError: There is no such data set or folder, or it cannot be divided as asked.
    """
    if data.name in CIFAR_CLASSES:
        return CIFAR_CLASSES[data.name], _size(data) or CIFAR_SIZE
    classes, available, _ = _read(data, silent)
    _divide(available.labels, classes, data, seed)
    return len(classes), _size(data) or _own_size(available.images)


def _size(data: Data) -> Size | None:
    """Return the size that images get, or None if it is their own."""
    match data.image_size:
        case int(side):
            return side, side
        case (int(height), int(width)):
            return height, width
    return None


def _own_size(images: Images) -> Size:
    """Return the size of the images as they are; of files, that of the first.

    Raises:
        ExperimentError: It cannot be read.
    """
    if not isinstance(images, tuple):
        return images.shape[2], images.shape[3]
    try:
        height, width, _ = decode(images[0], None).shape
    except Exception as error:
        raise ExperimentError(
            f"{shown(images[0])}: must be a readable image, but got {reason(error)}; replace or remove it (to resume a "
            f"study: put it back)."
        ) from error
    return height, width


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


def _augmentation(data: Data, size: Size) -> Augmentation:
    kinds = data.augmentation
    if kinds is None:
        flips = data.name != "digits" if data.horizontal_flip is None else data.horizontal_flip
        kinds = ("crop", "flip") if flips else ("crop",)
    padding = None if "resized_crop" in kinds else min(size) // 8 if "crop" in kinds else 0
    return Augmentation(padding, "flip" in kinds)


def _found(dataset: Dataset, own: Size) -> str:
    """Return a sentence on the images, of which one at least has a size of its own."""
    resized = "" if dataset.size == own else f", resized (the first has {sides(own)})"
    return (
        f"Images: {dataset.name}, {counted(dataset.num_classes, 'class', 'classes')} ({listed(dataset.classes)}); "
        f"{len(dataset.train):,} to train, {len(dataset.validation):,} to validate, {len(dataset.test):,} to test; "
        f"{sides(dataset.size)} pixels{resized}; normalised by {dataset.train.normalisation}; "
        f"{dataset.augmentation} while training."
    )


def cache_folder() -> Path:
    """Return the folder for downloads and trained baselines: $EDGE_TUNE_CACHE or ~/.cache/edge_tune."""
    return Path(os.environ.get("EDGE_TUNE_CACHE") or "~/.cache/edge_tune").expanduser()


def _read(data: Data, say: Say) -> tuple[tuple[str, ...], Split, Split]:
    if data.name == "digits":
        return _read_digits()
    if data.name in CIFAR_CLASSES:
        return _read_cifar(str(data.name))
    if IMPORTABLE.fullmatch(str(data.name)):
        classes, train, test = given.read(str(data.name), _size(data), say)
        return classes, Split(*train), Split(*test)
    try:
        return _read_folder(Path(data.name).expanduser().absolute())
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


def _read_digits() -> tuple[tuple[str, ...], Split, Split]:
    from sklearn.datasets import load_digits  # only now: it takes most of a second, and trials do without

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    everything = Split(np.repeat(grey[:, None], 3, axis=1), labels)
    is_test = _places(labels, DIGITS_TEST_SEED) < np.rint(DIGITS_TEST_FRACTION * np.bincount(labels))[labels]
    classes = tuple(str(name) for name in digits.target_names)
    return classes, everything.take(np.flatnonzero(~is_test)), everything.take(np.flatnonzero(is_test))


def _read_cifar(name: str) -> tuple[tuple[str, ...], Split, Split]:
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
    return tuple(train.classes), _from_cifar(train), _from_cifar(test)


def _from_cifar(part: "CIFAR10") -> Split:
    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return Split(images, np.array(part.targets, dtype=np.int64))


def _read_folder(root: Path) -> tuple[tuple[str, ...], Split, Split]:
    train, test = list_folder(root)
    return tuple(train), _as_split(train), _as_split(test)


def _as_split(files: dict[str, list[str]]) -> Split:
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
    return Split(tuple(path for paths in files.values() for path in paths), labels)


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


def _in_memory(splits: Splits, data: Data, say: Say) -> Splits:
    """Decode the files of `splits`; where that takes more than MEMORY_LIMIT_BYTES, only see that they can be."""
    train, validation, test = splits
    if not (
        isinstance(train.images, tuple) and isinstance(validation.images, tuple) and isinstance(test.images, tuple)
    ):
        return splits
    assert train.size is not None, "files need a size"
    files = train.images + validation.images + test.images
    resize = data.image_size != NATIVE
    if sum(split.bytes for split in splits) > MEMORY_LIMIT_BYTES:
        remembered = _remembered(str(data.name), None if resize else train.size)
        _raise_if(reading.check(files, train.size, say, remembered, resize=resize), test.images)
        return splits
    pixels, faults = reading.into_memory(files, train.size, say, resize=resize)
    _raise_if(faults, test.images)
    ends = np.cumsum([len(train), len(validation)])
    train, validation, test = (
        replace(split, images=part) for split, part in zip(splits, np.split(pixels, ends), strict=True)
    )
    return train, validation, test


def _remembered(root: str, only: Size | None) -> Path:
    """Return the file of the images of a folder that could be read, or were of this size only."""
    name = hashlib.sha256(os.fsencode(Path(root).expanduser().absolute())).hexdigest()[:16]
    return cache_folder() / "readable" / (f"{name}-{sides(only)}" if only else name)


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
