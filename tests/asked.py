"""Points of a search space, written briefly."""

from collections.abc import Mapping

from edge_tune.parameters import Point, Value


def asked(sparsities: Mapping[str, float], structure: str | Mapping[str, str] = "filters") -> dict[str, Value]:
    """Label -> sparsity, and one structure for all or label -> structure, as a point."""
    kinds = dict.fromkeys(sparsities, structure) if isinstance(structure, str) else structure
    return {
        **{f"{label}.sparsity": sparsity for label, sparsity in sparsities.items()},
        **{f"{label}.structure": kinds[label] for label in sparsities},
        **{f"{label}.importance": "l1" for label in sparsities},
    }


def sparsities(point: Point) -> dict[str, float]:
    """Label -> sparsity of a point."""
    return {name.removesuffix(".sparsity"): float(value) for name, value in point.items() if name.endswith(".sparsity")}
