"""An average of a network's weights over the steps of its retraining, which is what comes of the retraining."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """The exponential moving average of `et.Ema`, and the weights that training goes on from.

    Between two epochs the network holds the average, so that it is what is evaluated, exported and stored, and this
    keeps the weights; within an epoch it is the other way round. `swap` changes between the two.

    Args:
        network: Before its first step; on its parameters, which change in place, this works.
        decay: 0 <= decay < 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._parameters = list(network.parameters())
        self._kept = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def swap(self) -> None:
        """Give the network what is kept here, and keep what it had."""
        held = [parameter.detach().clone() for parameter in self._parameters]
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)
        self._kept = held

    @torch.no_grad()
    def add(self) -> None:
        """Take the weights into account that the network has after a step."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        for kept, parameter in zip(self._kept, self._parameters, strict=True):
            kept.lerp_(parameter, share)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"steps": self.steps, "kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another average of an equal network was."""
        self.steps, self._kept = (
            state["steps"],
            [kept.to(parameter, copy=True) for kept, parameter in zip(state["kept"], self._parameters, strict=True)],
        )
