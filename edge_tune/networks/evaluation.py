"""How well a network classifies a split: top1, top5, loss, and which classes it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from edge_tune.networks.images import Split

COMPARED_IMAGES = 16
"""Enough to see that a folded copy is another function; few, since each evaluation compares."""


@dataclass(frozen=True)
class Evaluation:
    """What a network does on one split.

    Attributes:
        top1: Percent of the images whose first answer is right.
        top5: Percent whose right class is among the first five answers (or all, if fewer).
        loss: Mean cross-entropy, nats.
        correct: Images whose first answer is right.
        predicted: Images that each class was the first answer for, [num_classes].
    """

    top1: float
    top5: float
    loss: float
    correct: int
    predicted: Sequence[int]

    @property
    def images(self) -> int:
        """Images that were classified."""
        return sum(self.predicted)


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 250) -> Evaluation:
    """Classify every image of `split` in f32 with batch-norm folded into the convolutions."""
    model = _folded(model, next(split.batches(COMPARED_IMAGES))[0])
    logits, labels = [], []
    with torch.inference_mode():
        for images, truth in split.batches(batch_size):
            logits.append(model(images.contiguous(memory_format=torch.channels_last)))
            labels.append(truth)
    return score(torch.cat(logits), torch.cat(labels))


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Compare `logits` [N, num_classes] with the true `labels` [N]."""
    num_classes = logits.shape[1]
    ranked = logits.topk(min(5, num_classes), dim=1).indices
    hits = ranked == labels[:, None]
    correct = int(hits[:, 0].sum())
    return Evaluation(
        top1=100 * correct / len(labels),
        top5=100 * int(hits.any(dim=1).sum()) / len(labels),
        loss=float(functional.cross_entropy(logits, labels)),
        correct=correct,
        predicted=torch.bincount(ranked[:, 0], minlength=num_classes).tolist(),
    )


def _folded(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy for inference, faster by what batch-norm cost; the model itself where that is another function.

    Tracing fails in as many ways as a forward can look at its input's values. And where it succeeds, a convolution that
    is called twice would have its batch-norm folded in twice.

    Args:
        images: A batch on which both must agree.
    """
    model = model.eval()
    try:
        folded = fuse(model).to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            agrees = torch.allclose(folded(images), model(images), rtol=1e-3, atol=1e-3)
    except Exception:
        return model
    return folded if agrees else model
