"""How much of a layer a Distiller schedule leaves.

At the beginning of each epoch of its policy, a pruner masks floor(sparsity * n) of the n filters (or channels) that the
layer has then. A thinner removes what is masked, and the next mask counts from what is left: a pruner of 0.1 that is
applied twice, each time with a thinner, leaves 58 and then 53 of 64.

Source: scheduler.py, policy.py, thinning.py and pruning/automated_gradual_pruner.py of IntelLabs/distiller.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.convert.policies import Policy


@dataclass(frozen=True)
class Target:
    """The sparsity that a pruner has in each of its epochs.

    Attributes:
        final: That of the last one.
        initial: That of the first one, from which gradual pruning rises to `final`; None: it is `final` in all.

    Source: Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878, equation 1.
    """

    final: float
    initial: float | None = None

    def at(self, epoch: int, policy: Policy) -> float:
        """Return the sparsity in one of the epochs of `policy`."""
        if self.initial is None:
            return self.final
        passed = (epoch - policy.epochs[0]) / (policy.epochs[-1] - policy.epochs[0])
        return self.final + (self.initial - self.final) * (1 - passed) ** 3


def thinned_epochs(policies: Sequence[Policy], thinners: Collection[str]) -> dict[int, bool]:
    """Return the epochs in which a thinner removes what is masked; True where that holds what is masked in this epoch.

    Masks are put on by the pruners' policies; a thinner that is listed before them sees those of earlier epochs.
    """
    pruned: set[int] = set()
    thinned: dict[int, bool] = {}
    for policy in policies:
        if policy.kind == "pruner":
            pruned.update(policy.epochs)
        elif policy.kind == "extension" and policy.name in thinners:
            thinned |= {epoch: thinned.get(epoch, False) or epoch in pruned for epoch in policy.epochs}
    return thinned


def sizes(slices: int, target: Target, applied: Sequence[Policy], thinned: Mapping[int, bool]) -> list[int]:
    """Return the sizes that a layer of so many slices has one after the other; the last is without what stays masked.

    Args:
        applied: The pruner's policies.
        thinned: As `thinned_epochs` has it.
    """
    now: dict[int, Policy] = {epoch: policy for policy in applied for epoch in policy.epochs}
    found, masked = [slices], 0
    for epoch in sorted({*now, *thinned}):
        policy = now.get(epoch)
        sparsity = target.at(epoch, policy) if policy else 0.0
        before, masked = masked, max(masked, math.floor(sparsity * found[-1]))
        if epoch in thinned:
            removed = masked if thinned[epoch] else before
            found.append(found[-1] - removed)
            masked -= removed
        if policy and policy.again:
            masked = max(masked, math.floor(sparsity * found[-1]))
    return list(dict.fromkeys([*found, found[-1] - masked]))
