"""From a point of the search space to a smaller network.

point (label -> sparsity, structure) -> plan (weight -> kept count) -> `prune` -> nn.Module

Filters and channels are the structures so far; another one is another `StructureKind` here.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edge_tune.errors import ExperimentError, PruningError
from edge_tune.experiment import Point, PrunerGroup, Structure

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class StructureKind:
    """What to remove from a weight [C_out, C_in, K_h, K_w]: which slices, how ranked, how removed."""

    dim: int
    prune_function: Callable[..., Any]

    def scores(self, weight: Tensor) -> Tensor:
        """Return the L1 norm of each slice of `weight`, [C_dim]."""
        others = [dim for dim in range(weight.dim()) if dim != self.dim]
        return weight.detach().abs().sum(dim=others)


KINDS: dict[Structure, StructureKind] = {
    "filters": StructureKind(0, tp.prune_conv_out_channels),
    "channels": StructureKind(1, tp.prune_conv_in_channels),
}


@dataclass(frozen=True)
class Cut:
    """What happens to one weight: `before` slices, `kept` of them stay.

    Attributes:
        sparsity: What was asked; `1 - kept / before` is what is done.
    """

    weight: str
    structure: Structure
    sparsity: float
    before: int
    kept: int


Plan = tuple[Cut, ...]


def kept_count(sparsity: float, slices: int, granule: int = 1) -> int:
    """Return how many of `slices` stay: slices - floor(sparsity * slices), at least 1, aligned to the granule.

    Monotone in `sparsity`. 1e-9 absorbs float slips such as 10 * 0.3 = 2.9999999999999996.

    Args:
        sparsity: 0 <= sparsity < 1.
        slices: At least 1.
        granule: The result is the multiple of it, or all slices, that is nearest to what was asked; the wider
            of two as near, and never none.

    Source: Distiller rounds the removed count down too, so its schedules give the same networks.
    """
    kept = max(1, slices - math.floor(sparsity * slices + 1e-9))
    narrower = kept // granule * granule
    wider = min(slices, narrower + granule)
    return narrower if narrower and kept - narrower < wider - kept else wider


def make_plan(model: nn.Module, groups: Mapping[str, PrunerGroup], point: Point, granule: int = 1) -> Plan:
    """Return the kept count, aligned to `granule`, of every weight in the groups that `point` speaks of."""
    weights = dict(model.named_parameters())
    return tuple(
        Cut(
            weight=name,
            structure=point.structures[label],
            sparsity=point.sparsities[label],
            before=(before := weights[name].shape[KINDS[point.structures[label]].dim]),
            kept=kept_count(point.sparsities[label], before, granule),
        )
        for label in point.sparsities
        for name in groups[label].weights
    )


def digest(plan: Plan) -> str:
    """Return a short text that is equal for plans that give the same network shapes."""
    kept = sorted((cut.weight, cut.structure, cut.kept) for cut in plan)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def plan_as_json(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan as plain JSON types; `plan_from_json` takes it back."""
    return [asdict(cut) for cut in plan]


def plan_from_json(cuts: Sequence[Mapping[str, Any]]) -> Plan:
    """Return the plan that `plan_as_json` wrote."""
    return tuple(Cut(**cut) for cut in cuts)


def prune(model: nn.Module, plan: Plan, input_shape: Shape) -> nn.Module:
    """Return a copy of `model` without the lowest-L1 slices of each weight in `plan`.

    Weights tied by a residual addition lose the same slices, ranked by their summed L1 norms.

    Args:
        input_shape: (C, H, W) of one image; traces how the layers depend on each other.

    Raises:
        PruningError: A residual addition ties a weight to one outside the plan, two cuts remove
            the same structure, or the pruned network does not run.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1; ranks are taken once, before any
    removal. Removal: Fang et al., CVPR 2023, arXiv:2301.12900 (torch-pruning).
    """
    pruned = copy.deepcopy(model).eval().requires_grad_(True)
    cuts = {cut.weight: cut for cut in plan if cut.kept < cut.before}
    try:
        graph = _dependencies(pruned, input_shape)
        removals = [(tied, _lowest(pruned, tied, cuts)) for tied in _tied_sets(pruned, graph, cuts)]
        for tied, slices in removals:
            _remove(pruned, graph, cuts[tied[0]], slices)
        with torch.no_grad():
            pruned(torch.zeros(1, *input_shape))
    except PruningError:
        raise
    except Exception as error:  # torch-pruning fails in its own ways on layers that it does not know
        raise PruningError(
            f"{', '.join(cuts)}: cannot be pruned in this network, torch-pruning or the pruned network fails with "
            f"{type(error).__name__}: {error}; remove these weights."
        ) from error
    _check_widths(pruned, plan)
    return pruned


def check_groups(model: nn.Module, groups: Mapping[str, PrunerGroup], input_shape: Shape) -> None:
    """Check, before anything starts, that every weight exists and that each group can be pruned.

    Raises:
        ExperimentError: One sentence for each weight or group that cannot be pruned.
    """
    ExperimentError.raise_if(_weight_problems(model, groups))
    ExperimentError.raise_if(_removal_problems(model, groups, input_shape))


def size(model: nn.Module, input_shape: Shape) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates of one image)."""
    macs, _ = tp.utils.count_ops_and_params(copy.deepcopy(model).eval(), torch.zeros(1, *input_shape))
    return sum(parameter.numel() for parameter in model.parameters()), int(macs)


def _dependencies(model: nn.Module, input_shape: Shape) -> Any:
    try:
        with torch.enable_grad():
            return tp.DependencyGraph().build_dependency(model, example_inputs=torch.zeros(1, *input_shape))
    except Exception as error:  # torch-pruning fails in its own ways on layers that it does not know
        raise PruningError(
            f"torch-pruning cannot trace how the layers of this network depend on each other: "
            f"{type(error).__name__}: {error}; choose another network."
        ) from error


def _conv_of(model: nn.Module, weight: str) -> nn.Conv2d:
    module = model.get_submodule(weight.rpartition(".")[0])
    assert isinstance(module, nn.Conv2d)
    return module


def _tied_sets(model: nn.Module, graph: Any, cuts: Mapping[str, Cut]) -> list[list[str]]:
    """Return the weights that must lose the same slices, as lists; each cut is in one of them."""
    owner: dict[tuple[str, bool], str] = {}
    tied_sets: list[list[str]] = []
    for cut in cuts.values():
        if any(cut.weight in tied for tied in tied_sets):
            continue
        tied = []
        for name, is_output in _touched(graph, cut):
            if (name, is_output) in owner:
                raise PruningError(
                    f"{cut.weight!r} ({cut.structure}) must not remove what {owner[name, is_output]!r} removes "
                    f"already (a side of {name!r}); keep one of the two."
                )
            owner[name, is_output] = cut.weight
            if is_output == (cut.structure == "filters") and not _is_depthwise(_conv_of(model, name)):
                tied.append(name)
        _check_tied(cut, tied, cuts)
        tied_sets.append(tied)
    return tied_sets


def _touched(graph: Any, cut: Cut) -> Iterator[tuple[str, bool]]:
    """Yield each convolution's weight that a cut makes smaller, and whether on its output side."""
    conv = _conv_of(graph.model, cut.weight)
    names = {module: f"{name}.weight" for name, module in graph.model.named_modules()}
    group = graph.get_pruning_group(conv, KINDS[cut.structure].prune_function, list(range(cut.before)))
    sides = (
        (names[dependency.target.module], bool(graph.is_out_channel_pruning_fn(dependency.handler)))
        for dependency, _ in group
        if isinstance(dependency.target.module, nn.Conv2d)
    )
    yield from dict.fromkeys(sides)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Tell whether the filters of a convolution only follow its input, with nothing to decide."""
    return conv.groups == conv.in_channels and conv.groups > 1


def _check_tied(cut: Cut, tied: Sequence[str], cuts: Mapping[str, Cut]) -> None:
    outside = [name for name in tied if name not in cuts or cuts[name].structure != cut.structure]
    if outside:
        raise PruningError(
            f"the {cut.structure} of {cut.weight!r} are tied by an addition or a product to those of {len(outside)} "
            f"weights that must be in the same group, but are not: {', '.join(outside)}; add them or remove "
            f"{cut.weight!r}."
        )
    unequal = [name for name in tied if cuts[name].kept != cut.kept]
    if unequal:
        raise PruningError(
            f"{cut.weight!r} is tied to {unequal[0]!r} and must keep as many {cut.structure}, but got "
            f"{cut.kept} and {cuts[unequal[0]].kept}; put both in one group."
        )


def _lowest(model: nn.Module, tied: Sequence[str], cuts: Mapping[str, Cut]) -> list[int]:
    """Return the slices to remove: the lowest L1 norms, summed over the tied weights."""
    cut = cuts[tied[0]]
    kind = KINDS[cut.structure]
    scores = torch.stack([kind.scores(_conv_of(model, name).weight) for name in tied]).sum(dim=0)
    order = torch.argsort(scores, stable=True)
    return sorted(order[: cut.before - cut.kept].tolist())


def _remove(model: nn.Module, graph: Any, cut: Cut, slices: list[int]) -> None:
    group = graph.get_pruning_group(_conv_of(model, cut.weight), KINDS[cut.structure].prune_function, slices)
    if not graph.check_pruning_group(group):
        raise PruningError(f"{cut.weight!r}: keeping {cut.kept} of {cut.before} {cut.structure} would empty a layer.")
    group.prune()


def _check_widths(model: nn.Module, plan: Plan) -> None:
    for cut in plan:
        width = _conv_of(model, cut.weight).weight.shape[KINDS[cut.structure].dim]
        if width != cut.kept:
            raise PruningError(
                f"{cut.weight!r} must keep {cut.kept} of {cut.before} {cut.structure}, but got {width}; "
                f"it cannot be pruned this way, remove it from its group."
            )


def _weight_problems(model: nn.Module, groups: Mapping[str, PrunerGroup]) -> Iterator[str]:
    weights = dict(model.named_parameters())
    for label, group in groups.items():
        for name in group.weights:
            place = f"pruner_groups[{label!r}]"
            if name not in weights:
                yield f"{place}: a weight must be one of the network's, but got {name!r}; {_hint(name, weights)}."
            elif not isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Conv2d) or weights[name].dim() != 4:
                yield (
                    f"{place}: a weight must be a convolution's [C_out, C_in, K_h, K_w], but {name!r} has shape "
                    f"{list(weights[name].shape)}; remove it."
                )


def _hint(name: str, weights: Mapping[str, nn.Parameter]) -> str:
    convolutions = [known for known, weight in weights.items() if weight.dim() == 4]
    close = get_close_matches(name, convolutions, n=3) or convolutions[:3]
    return f"near it are {', '.join(close)}" if close else "the network has no convolution"


def _removal_problems(model: nn.Module, groups: Mapping[str, PrunerGroup], shape: Shape) -> Iterator[str]:
    """Try each structure of each group alone; two groups must then not remove the same thing."""
    try:
        graph = _dependencies(copy.deepcopy(model).eval().requires_grad_(True), shape)
    except PruningError as error:
        yield f"model: {error}"
        return
    owner: dict[tuple[str, bool], str] = {}
    for label, group in groups.items():
        sides: set[tuple[str, bool]] = set()
        for structure in group.structures:
            plan = _thinnest(model, groups, label, structure)
            try:
                prune(model, plan, shape)
            except PruningError as error:
                yield f"pruner_groups[{label!r}], {structure}: {error}"
                continue
            sides |= {side for cut in plan for side in _touched(graph, cut)}
        if clash := next((owner[side] for side in sides if side in owner), None):
            yield (
                f"pruner_groups[{label!r}]: must remove something of its own, but {clash!r} removes the same filters "
                f"or channels; take the weights out of one of them."
            )
        owner.update(dict.fromkeys(sides, label))


def _thinnest(model: nn.Module, groups: Mapping[str, PrunerGroup], label: str, structure: Structure) -> Plan:
    """Return the plan that keeps one slice of each weight of one group: the hardest test of it."""
    return make_plan(model, groups, Point({label: 1 - 1e-12}, {label: structure}))
