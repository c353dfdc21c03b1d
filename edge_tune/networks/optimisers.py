"""The optimisers of a recipe. On a GPU their rate is a tensor, so that a step that is captured once takes any rate."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from edge_tune.experiment import USUAL_MOMENTUM, Retraining, settled


def make_optimiser(parameters: Iterable[Tensor], recipe: Retraining) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe for parameters that stay where they are."""
    parameters = list(parameters)
    on_gpu = any(parameter.device.type == "cuda" for parameter in parameters)
    lr: Any = settled(recipe.lr)
    if on_gpu:
        lr = torch.tensor(lr, device=parameters[0].device)
    weight_decay = settled(recipe.weight_decay)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, capturable=on_gpu)
    kind = Sgd if on_gpu else torch.optim.SGD
    return kind(
        parameters,
        lr=lr,
        momentum=USUAL_MOMENTUM if recipe.momentum is None else settled(recipe.momentum),
        weight_decay=weight_decay,
        nesterov=recipe.nesterov,
    )


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Have the next step of an optimiser take this rate."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from the `state_dict` of another optimiser of the same recipe, here or on another kind of compute."""
    optimiser.load_state_dict({**state, "param_groups": optimiser.state_dict()["param_groups"]})


class Sgd(torch.optim.SGD):
    """PyTorch's SGD with a step that reads its rate, a 0-dim tensor, on the GPU, and so can be captured.

    PyTorch's own step fetches the rate from the GPU, but for its fused kernel, which takes no gradients that lie in
    memory otherwise than their weights. The state is the same.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            moves: Any = [parameter.grad for parameter in trained]
            if group["weight_decay"]:
                moves = torch._foreach_add(moves, trained, alpha=group["weight_decay"])
            if group["momentum"]:
                speeds = [self._speed(parameter) for parameter in trained]
                torch._foreach_mul_(speeds, group["momentum"])
                torch._foreach_add_(speeds, moves)
                moves = torch._foreach_add(moves, speeds, alpha=group["momentum"]) if group["nesterov"] else speeds
            torch._foreach_add_(trained, torch._foreach_mul(moves, -group["lr"]))

    def _speed(self, parameter: Tensor) -> Tensor:
        """Return what momentum keeps of a parameter; it begins at rest."""
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        speed: Tensor = state["momentum_buffer"]
        return speed
