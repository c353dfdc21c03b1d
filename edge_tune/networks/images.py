"""Labelled images in memory or in files, and the normalised, augmented batches made of them."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge_tune.errors import ExperimentError
from edge_tune.experiment import MEAN, NATIVE, STD, Channels
from edge_tune.networks.decoding import Size, decode, reason, shown
from edge_tune.wording import counted, sides

Images = NDArray[np.uint8] | tuple[str, ...] | Tensor
Labels = NDArray[np.int64]
Decoded = tuple[NDArray[np.uint8], dict[str, str]]
"""Images [B, 3, H, W], black where a file cannot be read, and for each such file a sentence without its advice."""


LEAST_AREA = 0.25
"""Of an image that a resized crop shows: smaller parts of images that have the network's size already are mere blur."""

MOST_STRETCHED = 4 / 3
"""Times as wide, or as high, a resized crop is at most, in proportion to the image."""


@dataclass(frozen=True)
class Normalisation:
    """What a network's input is normalised with, a number for each channel: (RGB in 0..1 - mean) / std."""

    mean: Channels = MEAN
    std: Channels = STD

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return `pixels` [B, 3, H, W] in 0..255 as the float32 that networks are fed."""
        mean, std = _on_device(self, pixels.device)
        return (pixels / 255).sub_(mean).div_(std)

    def __str__(self) -> str:
        return f"mean {self.mean} and std {self.std}"


@dataclass(frozen=True)
class Augmentation:
    """Random crop of an image, and an optional mirror image.

    Attributes:
        padding: Pixels of black added to each side before a crop of the image's size; None: a part of the image,
            LEAST_AREA at least, is enlarged to all of it.
        horizontal_flip: Mirror each image with probability 1/2.
    """

    padding: int | None
    horizontal_flip: bool

    def __str__(self) -> str:
        moved = "resized crops" if self.padding is None else f"moved by up to {counted(self.padding, 'pixel')}"
        mirrored = ["half of them mirrored"] if self.horizontal_flip else []
        return ", ".join([*([moved] if self.padding != 0 else []), *mirrored]) or "as they are"

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return where each of so many images is cropped, and, if some are mirrored, which are, [B, 1, 1, 1].

        On the CPU, so that they are the same wherever the images lie.
        """
        if self.padding is None:
            crops = _parts(count, generator)
        else:
            crops = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        return (crops, torch.rand(count, 1, 1, 1, generator=generator) < 0.5) if self.horizontal_flip else (crops,)

    def __call__(self, pixels: Tensor, crops: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Return `pixels` [B, 3, H, W], each image cropped and mirrored on its own, as `draw` has drawn."""
        cropped = _enlarged(pixels, crops) if self.padding is None else _shifted(pixels, self.padding, crops)
        return cropped if mirrored is None else torch.where(mirrored, cropped.flip(3), cropped)


def _shifted(pixels: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Return what a window of an image's size shows of each padded image, so far down and right, [2, B]."""
    count, _, height, width = pixels.shape
    windows = functional.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right = shifts
    return windows[torch.arange(count, device=pixels.device), :, down, right]


def _parts(count: int, generator: torch.Generator) -> Tensor:
    """Return a part of each of so many images, as the map [B, 2, 3] from places of the whole to places in the part.

    Places are (x, y, 1), x and y from -1 to 1. Source: Szegedy et al., CVPR 2015, arXiv:1409.4842, section 6.
    """
    area, stretch, *places = torch.rand(4, count, generator=generator)
    area = LEAST_AREA + (1 - LEAST_AREA) * area
    stretch = MOST_STRETCHED ** (2 * stretch - 1)
    shares = ((area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1))
    parts = torch.zeros(count, 2, 3)
    for axis, (share, place) in enumerate(zip(shares, places, strict=True)):
        parts[:, axis, axis] = share
        parts[:, axis, 2] = (1 - share) * (2 * place - 1)
    return parts


def _enlarged(pixels: Tensor, parts: Tensor) -> Tensor:
    """Return the part of each image that is mapped to, float32 in 0..255."""
    grid = functional.affine_grid(parts, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: uint8 [N, 3, h, w], which may be read-only, or the files that batches are read from; a tensor where
            they lie on a GPU.
        labels: [N], each an index into the data set's classes.
        size: Of the images in a batch; None: as the array has them.
        normalisation: Of batches.
        device: Where batches come, as PyTorch names it.
    """

    images: Images
    labels: Labels
    size: Size | None = None
    normalisation: Normalisation = Normalisation()
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
    def pixels(self) -> int:
        """Pixels of an image in a batch."""
        return math.prod(self.size or self.images.shape[2:])  # type: ignore[union-attr]  # files have a size

    @property
    def bytes(self) -> int:
        """Bytes of all images when they are decoded and resized."""
        if isinstance(self.images, tuple):
            assert self.size is not None, "files need a size"
            return len(self) * 3 * math.prod(self.size)
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
        sized = _resize(pixels, self.size)
        return self.normalisation(augment(sized, *drawn) if augment else sized), labels

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
        assert self.size is not None, "files need a size"
        files = ([images[index] for index in group] for group in groups)
        for pixels, faults in decode_groups(files, self.size, torch.get_num_threads()):
            # Each could be read when the study began.
            ExperimentError.raise_if(
                f"{fault}; put it back as it was and resume the study." for fault in faults.values()
            )
            yield pixels


@cache
def _on_device(how: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and std on a device, [3, 1, 1]; made once, because sending them there waits for it."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (how.mean, how.std))
    return mean, std


def decode_groups(
    groups: Iterable[Sequence[str]], size: Size, threads: int, *, resize: bool = True
) -> Iterator[Decoded]:
    """Yield the images of each group of files, and decode the next group meanwhile.

    Threads, because Pillow decodes outside the interpreter lock, and because a DataLoader's worker
    processes would be forked from a Ray worker, which has threads of its own. A thread gets one
    piece of the group: for 32x32 images, handing them over one by one costs more than decoding.

    Args:
        size: Of the images.
        resize: Resize those of another size; else they are faults.
    """
    ahead: deque[Iterator[Decoded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for group in groups:
            length = math.ceil(len(group) / threads)
            pieces = [group[start : start + length] for start in range(0, len(group), length)]
            ahead.append(pool.map(partial(_decode_files, size=size, resize=resize), pieces))
            if len(ahead) > 1:
                yield _joined(ahead.popleft())
        for decoded in ahead:
            yield _joined(decoded)


def _joined(pieces: Iterator[Decoded]) -> Decoded:
    pixels, faults = zip(*pieces, strict=True)
    return np.concatenate(pixels), {path: fault for piece in faults for path, fault in piece.items()}


def _decode_files(paths: Sequence[str], size: Size, *, resize: bool) -> Decoded:
    pixels = np.zeros((len(paths), 3, *size), dtype=np.uint8)
    faults = {}
    for place, path in enumerate(paths):
        try:
            image = decode(path, size if resize else None)
        except Exception as error:
            faults[path] = f"{shown(path)}: must be a readable image, but got {reason(error)}"
            continue
        if image.shape[:2] == size:
            pixels[place] = image.transpose(2, 0, 1)
        else:
            faults[path] = (
                f"{shown(path)}: must have the size of all others, {sides(size)} pixels, unless another image_size "
                f"than {NATIVE!r} is given, but got {sides(image.shape[:2])}"
            )
    return pixels, faults


def _resize(pixels: Tensor, size: Size | None) -> Tensor:
    if size is None or pixels.shape[2:] == size:
        return pixels
    if pixels.device.type == "cpu":
        return _bilinear(pixels, size)
    return _through_floats(pixels, size)


def _bilinear(pixels: Tensor, size: Size) -> Tensor:
    return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)


def _through_floats(pixels: Tensor, size: Size) -> Tensor:
    """Resize where bytes cannot be resized, as on CUDA: within one level of what a CPU makes of them."""
    return _bilinear(pixels.float(), size).round_().clamp_(0, 255).to(torch.uint8)
