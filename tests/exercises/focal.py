"""A loss of one's own: the focal loss, by which images that are classified well count less."""

from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of (1 - p) ** 2 * -log p, where p is the probability of the right class.

    Source: Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002, section 3.
    """
    log_p = -functional.cross_entropy(logits, labels, reduction="none")
    return -((1 - log_p.exp()) ** 2 * log_p).mean()
