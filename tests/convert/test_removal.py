import math
from collections.abc import Sequence

import numpy as np
import pytest

from edge_tune.convert.policies import Policy
from edge_tune.convert.removal import Target, sizes, thinned_epochs


def pruner(epochs: Sequence[int], *, again: bool = False) -> Policy:
    return Policy("", "pruner", "one", epochs, again)


def thinner(*epochs: int) -> Policy:
    return Policy("", "extension", "thinner", epochs)


def distillers_size(slices: int, target: Target, policies: Sequence[Policy]) -> int:
    """Distiller's loop with real norms: masks at the begin of an epoch, then in each batch the policies by turns."""
    norms = np.random.default_rng(0).uniform(1.0, 2.0, slices)
    mask = np.ones(slices)

    def new_mask(epoch: int, policy: Policy) -> np.ndarray:
        count = math.floor(target.at(epoch, policy) * len(norms))
        return norms > np.sort(norms)[count - 1] if count else mask

    for epoch in range(50):
        now = [policy for policy in policies if epoch in policy.epochs]
        for policy in now:
            mask = new_mask(epoch, policy) if policy.kind == "pruner" else mask
        for batch in range(2):
            for policy in now:
                if policy.kind == "pruner":
                    mask = new_mask(epoch, policy) if batch and policy.again else mask
                    norms = norms * mask
                elif not batch:
                    norms, mask = norms[norms > 0], mask[norms > 0]
    return int((norms > 0).sum())


@pytest.mark.parametrize("target", [Target(0.1), Target(0.4), Target(0.5, 0.05), Target(0.0)])
@pytest.mark.parametrize(
    "policies",
    [
        [pruner([0]), thinner(0)],
        [pruner([0, 4]), thinner(0, 4)],
        [thinner(0, 4), pruner([0, 4])],
        [pruner([0, 4]), thinner(2)],
        [pruner(range(0, 30, 3)), thinner(30)],
        [pruner(range(0, 30, 3)), thinner(5, 27)],
        [pruner([0], again=True), thinner(0, 3)],
        [pruner(range(2, 9)), pruner(range(20, 22)), thinner(12, 40)],
    ],
)
def test_sizes_end_where_distillers_loop_ends(target: Target, policies: list[Policy]) -> None:
    applied = [policy for policy in policies if policy.kind == "pruner"]
    if target.initial is not None:
        applied = [policy for policy in applied if len(policy.epochs) > 1]
        policies = [*applied, *(policy for policy in policies if policy.kind == "extension")]
    thinned = thinned_epochs(policies, ["thinner"])
    for slices in (1, 7, 16, 64, 513):
        assert sizes(slices, target, applied, thinned)[-1] == distillers_size(slices, target, policies)


def test_sizes_of_a_pruner_that_is_applied_again_after_a_thinner() -> None:
    policies = [pruner([0, 4]), thinner(0, 4)]
    assert sizes(64, Target(0.1), policies[:1], thinned_epochs(policies, ["thinner"])) == [64, 58, 53]


def test_target_rises_from_its_first_epoch_to_its_last() -> None:
    target, policy = Target(0.5, 0.1), pruner(range(10, 41, 10))
    assert [target.at(epoch, policy) for epoch in policy.epochs] == pytest.approx(
        [0.1, 0.5 - 0.4 * (2 / 3) ** 3, 0.5 - 0.4 * (1 / 3) ** 3, 0.5]  # Zhu and Gupta, equation 1
    )
