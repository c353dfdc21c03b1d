"""How well a network classifies a split: top1, top5, loss, and which classes it predicts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from edge_tune.networks.compiled import BATCH_SIZE, Compiled
from edge_tune.networks.compute import CPU, LARGER_SHARE, Compute, enough_memory
from edge_tune.networks.images import Split
from edge_tune.records.entries import Answers

WORTH_COMPILING = 1000
"""Fewer images are not worth the second or two that OpenVINO takes to be imported and to compile a network."""

AT_ONCE, PIXELS_AT_ONCE = 1024, 2**22
"""A GPU, which waits for Python between batches, classifies so many small images at once, or fewer large ones."""

COMPARED_IMAGES = 16
"""Enough to see that a folded copy is another function; few, since each evaluation compares."""


@dataclass(frozen=True)
class Evaluation:
    """What a network does on one split.

    Attributes:
        top1: Percent of the images whose first answer is right.
        top5: Percent whose right class is among the first five answers (or all, if fewer).
        loss: Mean cross-entropy, nats.
        answers: Which images the first answer is right for.
        predicted: Images that each class was the first answer for, [num_classes].
    """

    top1: float
    top5: float
    loss: float
    answers: Answers
    predicted: Sequence[int]

    @property
    def correct(self) -> int:
        """Images whose first answer is right."""
        return self.answers.correct

    @property
    def images(self) -> int:
        """Images that were classified."""
        return self.answers.images


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 250, compute: Compute = CPU) -> Evaluation:
    """Classify every image of `split` in f32.

    On CPUs batch-norm is folded into the convolutions. Many images are classified by OpenVINO, which takes less time,
    few and those of a network that it cannot hold by PyTorch; they differ by rounding (tests/test_evaluation.py). A GPU
    classifies them by PyTorch, with the network as it is: folding takes longer there than it saves.

    Args:
        batch_size: Images that PyTorch classifies at once on a CPU.
        compute: Where `model` is, and the images come.

    Raises:
        ComputeError: A GPU has too little memory.
    """
    with compute.exactly(), enough_memory("classifying", LARGER_SHARE):
        return _evaluate(compute.network(model.eval()), split, batch_size, compute)


def _evaluate(model: nn.Module, split: Split, batch_size: int, compute: Compute) -> Evaluation:
    labels: list[Tensor] = []
    network = model
    if compute == CPU:
        some = next(split.batches(COMPARED_IMAGES))[0]
        folded = _folded(model, some)
        if folded and len(split) >= WORTH_COMPILING and (compiled := _compiled(folded, some)):
            return score(compiled(_noting(split.batches(BATCH_SIZE), labels)), torch.cat(labels))
        network = folded or model
    else:
        batch_size = max(1, min(AT_ONCE, PIXELS_AT_ONCE // split.pixels))
    with torch.inference_mode():
        logits = [
            network(images.contiguous(memory_format=torch.channels_last))
            for images in _noting(split.batches(batch_size), labels)
        ]
    return score(torch.cat(logits).cpu(), torch.cat(labels).cpu())


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Compare `logits` [N, num_classes] with the true `labels` [N]."""
    num_classes = logits.shape[1]
    ranked = logits.topk(min(5, num_classes), dim=1).indices
    hits = ranked == labels[:, None]
    answers = Answers.of(len(labels), np.packbits(hits[:, 0].numpy()).tobytes())
    return Evaluation(
        top1=100 * answers.correct / len(labels),
        top5=100 * int(hits.any(dim=1).sum()) / len(labels),
        loss=float(functional.cross_entropy(logits, labels)),
        answers=answers,
        predicted=torch.bincount(ranked[:, 0], minlength=num_classes).tolist(),
    )


def _noting(batches: Iterable[tuple[Tensor, Tensor]], labels: list[Tensor]) -> Iterator[Tensor]:
    """Yield the images of batches, and keep their labels."""
    for images, truth in batches:
        labels.append(truth)
        yield images


def _compiled(model: nn.Module, images: Tensor) -> Compiled | None:
    """Return a network that was traced as one for OpenVINO; None where that fails, in any way, or computes otherwise.

    Args:
        images: A batch on which both must agree.
    """
    channels, height, width = images.shape[1:]
    try:
        compiled = Compiled(model, (channels, height, width))
    except Exception:  # of ONNX, or of OpenVINO: PyTorch classifies these
        return None
    with torch.inference_mode():
        agrees = _agree(compiled([images]), model(images.contiguous(memory_format=torch.channels_last)))
    return compiled if agrees else None


def _agree(logits: Tensor, right: Tensor) -> bool:
    return torch.allclose(logits, right, rtol=1e-3, atol=1e-3)


def _folded(model: nn.Module, images: Tensor) -> nn.Module | None:
    """Return a copy for inference, faster by what batch-norm cost; None where that is another function.

    Tracing fails in as many ways as a forward can look at its input's values. And where it succeeds, a convolution that
    is called twice would have its batch-norm folded in twice.

    Args:
        images: A batch on which both must agree.
    """
    try:
        folded = fuse(model).to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            agrees = _agree(folded(images), model(images))
    except Exception:
        return None
    return folded if agrees else None
