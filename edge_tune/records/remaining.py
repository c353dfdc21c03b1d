"""Where the time goes that a pruned network still takes."""

import math
from collections.abc import Collection, Sequence

from edge_tune.records.results import Record
from edge_tune.wording import listed

NAMED = 3
"""So many layers are named."""


def shares_by_layer(record: Record, ratio: float) -> dict[str, float]:
    """Return layer -> its time in % of the unpruned network's latency; they sum to `ratio`.

    What runs for a layer, such as the reordering of its input, counts as the layer's.
    """
    found: dict[str, float] = {}
    for layer in record.layers:
        found[layer.name] = found.get(layer.name, 0.0) + layer.ms
    total = sum(found.values())
    return {name: 100 * ratio * ms / total for name, ms in found.items()} if total > 0 else {}


def remaining_line(record: Record, untouched: Collection[str]) -> str | None:
    """Return how much of a network's remaining time is that of layers that no group may prune; None if that is nothing.

    Args:
        untouched: These layers.
    """
    ratio = record.metrics.get("latency_ratio")
    shares = shares_by_layer(record, float(ratio)) if ratio else {}
    fixed = sorted(((shares[name], name) for name in untouched if name in shares), reverse=True)
    together = sum(share for share, _ in fixed)
    if not ratio or together < 0.5:
        return None
    whole = whole_parts([share for share, _ in fixed])
    layers = listed([f"{name} {share}" for share, (_, name) in zip(whole, fixed, strict=True)], NAMED)
    return (
        f"{record.name} still takes {100 * ratio:.0f} % of the unpruned network's latency; {sum(whole)} of these go "
        f"to layers that no group may prune: {layers}."
    )


def whole_parts(shares: Sequence[float]) -> list[int]:
    """Return shares as whole numbers that add up to their rounded sum: those with most behind the point are raised."""
    whole = [math.floor(share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda place: whole[place] - shares[place])
    for place in by_rest[: round(sum(shares)) - sum(whole)]:
        whole[place] += 1
    return whole
