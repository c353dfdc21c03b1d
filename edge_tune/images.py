"""Labelled images in memory or in files, and the normalised, augmented batches made of them."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from edge_tune.errors import ExperimentError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""What a network's input is normalised with: (RGB in 0..1 - MEAN) / STD."""

Images = NDArray[np.uint8] | tuple[str, ...]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Random crop of an image padded with black, and an optional mirror image.

    Attributes:
        padding: Pixels added to each side before the crop.
        horizontal_flip: Mirror each image with probability 1/2.
    """

    padding: int
    horizontal_flip: bool

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return `pixels` [B, 3, H, W], each image shifted and mirrored on its own."""
        count, _, height, width = pixels.shape
        windows = functional.pad(pixels, (self.padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        down, right = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        cropped = windows[torch.arange(count), :, down, right]
        if not self.horizontal_flip:
            return cropped
        mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        return torch.where(mirrored, cropped.flip(3), cropped)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: uint8 [N, 3, h, w], which may be read-only, or the files that batches are read from.
        labels: [N], each an index into the data set's classes.
        image_size: Height and width in pixels of a batch; None: as the array has them.
    """

    images: Images
    labels: Labels
    image_size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """Return the images at `indices`, in that order."""
        if isinstance(self.images, tuple):
            images: Images = tuple(self.images[index] for index in indices)
        else:
            images = self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])

    def batches(
        self, batch_size: int, *, augment: Augmentation | None = None, seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 [B, 3, H, W] and normalised, with their labels, int64 [B].

        Args:
            batch_size: Images a batch. The last batch may be smaller; when shuffling, a last batch
                of one image is left out, because batch norm cannot train on it.
            augment: Applied to every batch; needs a seed.
            seed: Of the order and the augmentation; None keeps the order of the split.

        Raises:
            ExperimentError: A file that is streamed cannot be read.
        """
        assert augment is None or seed is not None, "augmentation needs a seed"
        generator = torch.Generator()
        order = np.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=generator.manual_seed(seed)).numpy()
            if len(self) % batch_size == 1:
                order = order[:-1]
        groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        for group, pixels in zip(groups, self._pixels(groups), strict=True):
            sized = _resize(torch.from_numpy(pixels), self.image_size)
            augmented = augment(sized, generator) if augment else sized
            yield normalise(augmented), torch.from_numpy(self.labels[group])

    def _pixels(self, groups: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        if isinstance(self.images, tuple):
            assert self.image_size is not None, "files need an image size"
            files = ([self.images[index] for index in group] for group in groups)
            return _stream(files, self.image_size, torch.get_num_threads())
        # Indexing copies: what comes out of Ray's object store is read-only, which torch warns about.
        return (self.images[group] for group in groups)

    def in_memory(self) -> "Split":
        """Return this split with its files decoded, 3 * image_size ** 2 bytes an image."""
        if not isinstance(self.images, tuple):
            return self
        assert self.image_size is not None, "files need an image size"
        pixels = np.empty((len(self), 3, self.image_size, self.image_size), dtype=np.uint8)
        starts = range(0, len(self), 1024)
        groups = (self.images[start : start + 1024] for start in starts)
        for start, piece in zip(starts, _stream(groups, self.image_size, os.cpu_count() or 1), strict=True):
            pixels[start : start + 1024] = piece
        return replace(self, images=pixels)


def normalise(pixels: Tensor) -> Tensor:
    """Return uint8 `pixels` [B, 3, H, W] as the float32 that networks are fed."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels / 255).sub_(mean).div_(std)


def _stream(groups: Iterable[Sequence[str]], image_size: int, threads: int) -> Iterator[NDArray[np.uint8]]:
    """Yield each group of files as uint8 [B, 3, H, W], and decode the next one meanwhile.

    Threads, because Pillow decodes outside the interpreter lock, and because a DataLoader's worker
    processes would be forked from a Ray worker, which has threads of its own. A thread gets one
    piece of the group: for 32x32 images, handing them over one by one costs more than decoding.
    """
    ahead: deque[Iterator[NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for group in groups:
            length = math.ceil(len(group) / threads)
            pieces = [group[start : start + length] for start in range(0, len(group), length)]
            ahead.append(pool.map(_decode_files, pieces, [image_size] * len(pieces)))
            if len(ahead) > 1:
                yield np.concatenate(list(ahead.popleft()))
        for decoded in ahead:
            yield np.concatenate(list(decoded))


def _decode_files(paths: Sequence[str], image_size: int) -> NDArray[np.uint8]:
    return np.stack([_decode(path, image_size) for path in paths])


def _decode(path: str, image_size: int) -> NDArray[np.uint8]:
    """Return the image in `path` as RGB, uint8 [3, H, W]; its proportions are not kept."""
    try:
        with Image.open(path) as image:
            # A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size: up to 8x faster.
            image.draft(None, (2 * image_size, 2 * image_size))
            rgb = _as_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ExperimentError(f"{path}: must be a readable image, but got {error}; replace or remove it.") from error
    if rgb.size != (image_size, image_size):
        rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))
    return pixels


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resize(pixels: Tensor, image_size: int | None) -> Tensor:
    if image_size is None or pixels.shape[2:] == (image_size, image_size):
        return pixels
    return functional.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)
