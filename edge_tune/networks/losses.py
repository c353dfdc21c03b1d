"""The loss of a recipe: cross-entropy, or a function of the user's own, named "package.module:function"."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from edge_tune.errors import ExperimentError, RetrainingError, first_line
from edge_tune.experiment import CROSS_ENTROPY, Retraining
from edge_tune.imports import import_callable

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [B, num_classes] in float32 and labels [B] to their mean loss, a number that gradients flow from."""

WHAT = "one finite floating-point number as a tensor, with a gradient by the logits"


def own_loss(recipe: Retraining) -> Loss | None:
    """Return the user's function that a recipe names; None for cross-entropy.

    Raises:
        ExperimentError: It cannot be imported.
        RetrainingError: By the function that is returned: the user's fails.
    """
    if recipe.loss == CROSS_ENTROPY:
        return None
    loss_of = import_callable(recipe.loss, "loss", "name a function of logits [B, num_classes] and labels [B]")

    def named(logits: Tensor, labels: Tensor) -> Tensor:
        try:
            return cast(Tensor, loss_of(logits, labels))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            sizes = f"logits {list(logits.shape)} and labels {list(labels.shape)}"
            raise RetrainingError(
                f"loss {recipe.loss!r}: must return {WHAT}, for {sizes}, but got {_text(error)}; mend it."
            ) from error

    return named


def check(recipe: Retraining, num_classes: int) -> None:
    """Try the loss that a recipe names on made-up logits.

    Raises:
        ExperimentError: It cannot be imported or computed, or returns something else than a loss.
    """
    loss_of = own_loss(recipe)
    if loss_of is None:
        return
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, num_classes, generator=generator).requires_grad_()
    labels = torch.arange(8) % num_classes
    try:
        problem = _problem(loss_of(logits, labels), logits)
    except RetrainingError as error:
        raise ExperimentError(str(error)) from error
    if problem:
        raise ExperimentError(
            f"loss {recipe.loss!r}: must return {WHAT}, for logits [8, {num_classes}] and labels [8], but got "
            f"{problem}; mend it."
        )


def _problem(loss: object, logits: Tensor) -> str | None:
    """Return what is wrong with a loss of these logits, as what was got."""
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    if loss.shape != ():
        return f"a tensor of shape {list(loss.shape)}"
    if not loss.is_floating_point():
        return f"a tensor of {loss.dtype}"
    if not loss.isfinite():
        return f"{loss.item()}"
    if not loss.requires_grad:
        return "one without a gradient"
    try:
        (gradient,) = torch.autograd.grad(loss, logits, allow_unused=True)
    except Exception as error:
        return f"one whose gradient cannot be computed ({_text(error)})"
    if gradient is None:
        return "one that does not depend on the logits"
    return None if gradient.isfinite().all() else "one whose gradient is not finite"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
