"""Labelled images in memory or in files, and the normalised, augmented batches made of them."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge_tune.errors import ExperimentError
from edge_tune.networks.decoding import decode, reason, shown

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""What a network's input is normalised with: (RGB in 0..1 - MEAN) / STD."""

Images = NDArray[np.uint8] | tuple[str, ...] | Tensor
Labels = NDArray[np.int64]
Decoded = tuple[NDArray[np.uint8], dict[str, str]]
"""Images [B, 3, H, W], black where a file cannot be read, and for each such file a sentence without its advice."""


@dataclass(frozen=True)
class Augmentation:
    """Random crop of an image padded with black, and an optional mirror image.

    Attributes:
        padding: Pixels added to each side before the crop.
        horizontal_flip: Mirror each image with probability 1/2.
    """

    padding: int
    horizontal_flip: bool

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return how far each of so many images is shifted, [2, B], and, if some are, which are mirrored, [B, 1, 1, 1].

        On the CPU, so that they are the same wherever the images lie.
        """
        shifts = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        return (shifts, torch.rand(count, 1, 1, 1, generator=generator) < 0.5) if self.horizontal_flip else (shifts,)

    def __call__(self, pixels: Tensor, shifts: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Return `pixels` [B, 3, H, W], each image shifted and mirrored on its own, as `draw` has drawn."""
        count, _, height, width = pixels.shape
        windows = functional.pad(pixels, (self.padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        down, right = shifts
        cropped = windows[torch.arange(count, device=pixels.device), :, down, right]
        return cropped if mirrored is None else torch.where(mirrored, cropped.flip(3), cropped)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: uint8 [N, 3, h, w], which may be read-only, or the files that batches are read from; a tensor where
            they lie on a GPU.
        labels: [N], each an index into the data set's classes.
        image_size: Height and width in pixels of a batch; None: as the array has them.
        device: Where batches come, as PyTorch names it.
    """

    images: Images
    labels: Labels
    image_size: int | None = None
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """Return the images at `indices`, in that order."""
        if isinstance(self.images, tuple):
            images: Images = tuple(self.images[index] for index in indices)
        else:
            images = self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])

    @property
    def bytes(self) -> int:
        """Bytes of all images when they are decoded and resized."""
        if isinstance(self.images, tuple):
            assert self.image_size is not None, "files need an image size"
            return len(self) * 3 * self.image_size**2
        return self.images.nbytes

    def on(self, device: str, *, resident: bool) -> "Split":
        """Return the split with its batches on a device.

        Args:
            resident: Have the images lie there, if they are in memory; else each batch is sent.
        """
        if resident and isinstance(self.images, np.ndarray):
            return replace(self, images=torch.tensor(self.images, device=device), device=device)
        return replace(self, device=device)

    def steps(self, batch_size: int) -> int:
        """Return how many shuffled batches of at most `batch_size` images `batches` yields."""
        return math.ceil((len(self) - (len(self) % batch_size == 1)) / batch_size)

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
        for parts in self.parts(batch_size, augment=augment, seed=seed):
            yield self.made(parts, augment)

    def parts(
        self, batch_size: int, *, augment: Augmentation | None = None, seed: int | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield what `made` makes the same batches of: tensors, on the device, of the same shapes for each full batch.

        They are pixels, uint8 [B, 3, h, w], or the places [B] of images that lie on the device; labels, int64 [B]; and
        what the augmentation draws.

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
        for group, source in zip(groups, self._sources(groups), strict=True):
            drawn = augment.draw(len(group), generator) if augment else ()
            parts = (torch.from_numpy(source), torch.from_numpy(self.labels[group]), *drawn)
            yield tuple(self._here(part) for part in parts)

    def made(self, parts: Sequence[Tensor], augment: Augmentation | None) -> tuple[Tensor, Tensor]:
        """Return the batch, images and labels, that `parts` tells of; nothing in here waits for the device."""
        source, labels, *drawn = parts
        pixels = self.images[source] if isinstance(self.images, Tensor) else source
        sized = _resize(pixels, self.image_size)
        return normalise(augment(sized, *drawn) if augment else sized), labels

    def _sources(self, groups: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
        images = self.images
        if isinstance(images, tuple):
            return self._decoded(images, groups)
        if isinstance(images, Tensor):
            return iter(groups)
        # Indexing copies: what comes out of Ray's object store is read-only, which torch warns about.
        return (images[group] for group in groups)

    def _here(self, values: Tensor) -> Tensor:
        """Return values on the device, sent while the CPU goes on."""
        return values if self.device == "cpu" else values.pin_memory().to(self.device, non_blocking=True)

    def _decoded(self, images: tuple[str, ...], groups: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        assert self.image_size is not None, "files need an image size"
        files = ([images[index] for index in group] for group in groups)
        for pixels, faults in decode_groups(files, self.image_size, torch.get_num_threads()):
            # Each could be read when the study began.
            ExperimentError.raise_if(
                f"{fault}; put it back as it was and resume the study." for fault in faults.values()
            )
            yield pixels


def normalise(pixels: Tensor) -> Tensor:
    """Return uint8 `pixels` [B, 3, H, W] as the float32 that networks are fed."""
    mean, std = _mean_and_std(pixels.device)
    return (pixels / 255).sub_(mean).div_(std)


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return MEAN and STD on a device, [3, 1, 1]; made once, because sending them there waits for it."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std


def decode_groups(groups: Iterable[Sequence[str]], image_size: int, threads: int) -> Iterator[Decoded]:
    """Yield the images of each group of files, and decode the next group meanwhile.

    Threads, because Pillow decodes outside the interpreter lock, and because a DataLoader's worker
    processes would be forked from a Ray worker, which has threads of its own. A thread gets one
    piece of the group: for 32x32 images, handing them over one by one costs more than decoding.
    """
    ahead: deque[Iterator[Decoded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for group in groups:
            length = math.ceil(len(group) / threads)
            pieces = [group[start : start + length] for start in range(0, len(group), length)]
            ahead.append(pool.map(_decode_files, pieces, [image_size] * len(pieces)))
            if len(ahead) > 1:
                yield _joined(ahead.popleft())
        for decoded in ahead:
            yield _joined(decoded)


def _joined(pieces: Iterator[Decoded]) -> Decoded:
    pixels, faults = zip(*pieces, strict=True)
    return np.concatenate(pixels), {path: fault for piece in faults for path, fault in piece.items()}


def _decode_files(paths: Sequence[str], image_size: int) -> Decoded:
    pixels = np.zeros((len(paths), 3, image_size, image_size), dtype=np.uint8)
    faults = {}
    for place, path in enumerate(paths):
        try:
            pixels[place] = decode(path, image_size).transpose(2, 0, 1)
        except Exception as error:
            faults[path] = f"{shown(path)}: must be a readable image, but got {reason(error)}"
    return pixels, faults


def _resize(pixels: Tensor, image_size: int | None) -> Tensor:
    if image_size is None or pixels.shape[2:] == (image_size, image_size):
        return pixels
    if pixels.device.type == "cpu":
        return _bilinear(pixels, image_size)
    return _through_floats(pixels, image_size)


def _bilinear(pixels: Tensor, image_size: int) -> Tensor:
    return functional.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)


def _through_floats(pixels: Tensor, image_size: int) -> Tensor:
    """Resize where bytes cannot be resized, as on CUDA: within one level of what a CPU makes of them."""
    return _bilinear(pixels.float(), image_size).round_().clamp_(0, 255).to(torch.uint8)
