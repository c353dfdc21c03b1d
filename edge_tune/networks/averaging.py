"""An average of a network's weights over the steps of its retraining, which is what comes of the retraining."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of `et.Ema`, and the weights that training goes on from.

    Between two epochs the network holds the average, so that it is what is evaluated, exported and stored, and this
    keeps the weights; within an epoch it is the other way round. `swap` changes between the two. All keep their places
    in memory.

    Args:
        network: Before its first step; on its parameters, which change in place, this works.
        decay: 0 <= decay < 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._parameters: list[Tensor] = [its for its in network.parameters() if its.requires_grad]
        self.kept = [parameter.detach().clone() for parameter in self._parameters]
        self._share = torch.zeros((), device=next(iter(self.kept)).device)

    @torch.no_grad()
    def swap(self) -> None:
        """Give the network what is kept here, and keep what it had."""
        for parameter, kept in zip(self._parameters, self.kept, strict=True):
            held = parameter.clone()
            parameter.copy_(kept)
            kept.copy_(held)

    def count(self) -> None:
        """Count the step that comes."""
        self.steps += 1
        self._share.fill_((1 - self.decay) / (1 - self.decay**self.steps))

    @torch.no_grad()
    def add(self) -> None:
        """Take the weights into account that the network has after the step that was counted; this may be captured."""
        torch._foreach_mul_(self.kept, 1 - self._share)
        torch._foreach_add_(self.kept, list(torch._foreach_mul(self._parameters, self._share)))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"steps": self.steps, "kept": self.kept}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another average of an equal network was."""
        self.steps = state["steps"]
        for mine, kept in zip(self.kept, state["kept"], strict=True):
            mine.copy_(kept)
