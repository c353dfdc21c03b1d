"""From a point of the search space to a smaller network.

point (label -> sparsity, structure) -> plan (weight -> the slices that stay) -> `prune` -> nn.Module

Filters and channels are the structures so far; another one is another `StructureKind` here.
"""

import copy
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn

from edge_tune.errors import ExperimentError, PruningError
from edge_tune.experiment import Choice, Point, PrunerGroup, Structure, Uniform
from edge_tune.networks import oracle, slicing
from edge_tune.networks.couplings import Atoms, Couplings, Kind, Side, couplings
from edge_tune.networks.tracing import IMAGE, OUTPUT, Shape, is_depthwise
from edge_tune.wording import counted, verb


@dataclass(frozen=True)
class StructureKind:
    """What to remove from a weight [C_out, C_in / groups, K_h, K_w]: which slices, and how they are ranked."""

    kind: Kind

    def side(self, weight: str) -> Side:
        """Return where the slices of a weight are."""
        return Side(weight.rpartition(".")[0], self.kind)

    def scores(self, layer: nn.Conv2d) -> Tensor:
        """Return the L1 norm of each slice of a layer's weight, [C_out] or [C_in]."""
        weight = layer.weight.detach().abs()
        if self.kind == "out":
            return weight.sum(dim=(1, 2, 3))
        return torch.cat([rows.sum(dim=(0, 2, 3)) for rows in weight.chunk(layer.groups)])


KINDS: dict[Structure, StructureKind] = {"filters": StructureKind("out"), "channels": StructureKind("in")}


@dataclass(frozen=True)
class Cut:
    """What happens to one weight.

    Attributes:
        sparsity: What was asked; `1 - kept / before` is what is done.
        before: How many slices there were.
        slices: Which of them stay, ascending.
    """

    weight: str
    structure: Structure
    sparsity: float
    before: int
    slices: tuple[int, ...]

    @property
    def kept(self) -> int:
        """How many slices stay."""
        return len(self.slices)

    @property
    def side(self) -> Side:
        """Where the slices are."""
        return KINDS[self.structure].side(self.weight)


Plan = tuple[Cut, ...]

ORDERS = 3
"""So many orders of its slices are tried on a network: of two slices there are but two."""


def kept_count(sparsity: float, slices: int, granularity: int = 1) -> int:
    """Return how many of `slices` stay: slices - floor(sparsity * slices), at least 1, aligned to the granularity.

    Monotone in `sparsity`. 1e-9 absorbs float slips such as 10 * 0.3 = 2.9999999999999996.

    Args:
        sparsity: 0 <= sparsity < 1.
        slices: At least 1.
        granularity: The result is the multiple of it, or all slices, that is nearest to what was asked; the wider
            of two as near, and never none.

    Source: Distiller rounds the removed count down too, so its schedules give the same networks.
    """
    kept = max(1, slices - math.floor(sparsity * slices + 1e-9))
    narrower = kept // granularity * granularity
    wider = min(slices, narrower + granularity)
    return narrower if narrower and kept - narrower < wider - kept else wider


def make_plan(
    model: nn.Module, groups: Mapping[str, PrunerGroup], point: Point, coupled: Couplings, granularity: int = 1
) -> Plan:
    """Return which slices stay of every weight in the groups that `point` speaks of: those with the largest L1 norms.

    Weights that are tied to each other lose the same slices, ranked by their summed L1 norms. Where a layer counts its
    slices in groups, or some tied weights have only a part of the others' slices, each part loses the same share.

    Args:
        coupled: What must be removed together in `model`.
        granularity: Kept counts are multiples of it, as `kept_count` has it.

    Raises:
        PruningError: A weight is tied to one outside the plan or to what must stay.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1; ranks are taken once, before any removal.
    """
    cuts = []
    for label, sparsity in point.sparsities.items():
        for weight in groups[label].weights:
            structure = point.structures[label]
            before = len(coupled.atoms[KINDS[structure].side(weight)])
            cuts.append(Cut(weight, structure, sparsity, before, tuple(range(before))))
    removed = np.array(
        [atom for family in _families(cuts, coupled) for atom in _lowest(model, family, coupled, granularity)],
        dtype=np.int64,
    )
    return tuple(_without(cut, removed, coupled) for cut in cuts)


def digest(plan: Plan) -> str:
    """Return a short text that is equal for plans that give the same network shapes."""
    kept = sorted((cut.weight, cut.structure, cut.kept) for cut in plan if cut.kept < cut.before)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def plan_as_json(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan as plain JSON types; `plan_from_json` takes it back."""
    return [{**asdict(cut), "kept": cut.kept, "slices": list(cut.slices)} for cut in plan]


def plan_from_json(cuts: Sequence[Mapping[str, Any]]) -> Plan:
    """Return the plan that `plan_as_json` wrote.

    Raises:
        PruningError: Something is missing, such as the slices, which earlier versions did not write.
    """
    try:
        return tuple(
            Cut(cut["weight"], cut["structure"], cut["sparsity"], cut["before"], tuple(cut["slices"])) for cut in cuts
        )
    except (KeyError, TypeError) as error:
        raise PruningError(
            f"the plan must say of each weight which slices stay, as this version writes it, but got no usable "
            f"{error}; prune anew."
        ) from error


def prune(model: nn.Module, plan: Plan, coupled: Couplings) -> nn.Module:
    """Return a copy of `model`, in inference mode and trainable, without the slices that do not stay.

    What it computes is compared with `model`, in which the inputs that come from removed slices are zero.

    Args:
        coupled: What must be removed together in `model`.

    Raises:
        PruningError: The plan does not fit the network, or what is left does not compute the same.
    """
    removed = _removed(plan, coupled)
    stays = coupled.stays(removed)
    _check_parts(stays, coupled)
    _check_own(stays, model)
    pruned = copy.deepcopy(model).eval().requires_grad_(True)
    for side, kept in stays.items():
        _keep(pruned, side, torch.from_numpy(kept.nonzero()[0]))
    if len(removed):
        oracle.check(model, pruned, removed, coupled, _named(plan))
    return pruned


def check_groups(model: nn.Module, groups: Mapping[str, PrunerGroup], input_shape: Shape) -> Couplings:
    """Check, before anything starts, that every weight exists and that each group can be pruned.

    Each structure of each group is pruned alone, in the middle of its range and at its end, with made-up weights that
    let no wrong slice pass unseen. Returns what must be removed together in `model`.

    Raises:
        ExperimentError: One sentence for each weight or group that cannot be pruned.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ExperimentError(
            "model: must be a network of Python code, but got one of TorchScript, whose layers cannot be taken apart; "
            "return it as it was before torch.jit."
        )
    ExperimentError.raise_if(_weight_problems(model, groups))
    try:
        own = copy.deepcopy(model)
    except Exception as error:  # such as a network that keeps what it computed, or holds an open file
        raise ExperimentError(
            f"model: must be a network that can be copied, but copy.deepcopy raised {type(error).__name__}: {error}; "
            f"keep nothing in it but layers, parameters and buffers."
        ) from error
    try:
        coupled = couplings(own, input_shape)
    except PruningError as error:
        raise ExperimentError(f"model: {error}") from error
    ExperimentError.raise_if(_call_problems(groups, coupled))
    ExperimentError.raise_if(_removal_problems(model, groups, coupled))
    return coupled


def size(model: nn.Module, input_shape: Shape) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates of one image)."""
    macs, _ = tp.utils.count_ops_and_params(copy.deepcopy(model).eval(), torch.zeros(1, *input_shape))
    return sum(parameter.numel() for parameter in model.parameters()), int(macs)


Family = list[Cut]
"""Cuts that remove the same: they are tied to each other."""


def _families(cuts: Iterable[Cut], coupled: Couplings) -> list[Family]:
    """Return the cuts that may remove something, those that are tied to each other together.

    Whether they do is decided for what is tied as a whole: of a narrow weight's slices none may go where one of a wider
    weight's would.
    """
    families: list[tuple[Family, set[int]]] = []
    for cut in cuts:
        if cut.sparsity == 0 or cut.before == 1:
            continue
        members, atoms = [cut], set(coupled.atoms[cut.side].tolist())
        for family in [family for family in families if not atoms.isdisjoint(family[1])]:
            families.remove(family)
            members, atoms = family[0] + members, family[1] | atoms
        families.append((members, atoms))
    return [members for members, _ in families]


def _lowest(model: nn.Module, family: Family, coupled: Couplings, granularity: int) -> list[int]:
    """Return the atoms to remove: of each part of what is tied, those with the lowest L1 norms."""
    _check_family(model, family, coupled)
    scores: dict[int, float] = defaultdict(float)
    for cut in family:
        layer = model.get_submodule(cut.side.name)
        assert isinstance(layer, nn.Conv2d)
        of_slices = KINDS[cut.structure].scores(layer).double().tolist()
        for atom, score in zip(coupled.atoms[cut.side].tolist(), of_slices, strict=True):
            scores[atom] += score
    parts = _parts(family, coupled)
    part_of = {atom: part for part, atoms in enumerate(parts) for atom in atoms}
    fewest = min(len({part_of[atom] for atom in coupled.atoms[cut.side].tolist()}) for cut in family)
    sparsity = family[0].sparsity
    return [
        atom
        for atoms in parts
        for atom in sorted(atoms, key=scores.__getitem__)[
            : len(atoms) - kept_count(sparsity, len(atoms), -(-granularity // fewest))
        ]
    ]


def _parts(family: Family, coupled: Couplings) -> list[list[int]]:
    """Return the atoms of a family in parts that must each lose the same share.

    A grouped layer has as many slices in each of its groups; and a weight that has only some of the slices that are
    tied keeps its share of them.
    """
    own = {cut.side for cut in family}
    places: dict[int, list[tuple[Side, int]]] = {
        atom: [] for cut in family for atom in coupled.atoms[cut.side].tolist()
    }
    for side in sorted(coupled.sides_of(places)):
        if side in own or side in coupled.parts:
            for slice_, atom in enumerate(coupled.atoms[side].tolist()):
                if atom in places:
                    places[atom].append((side, coupled.part_of(side, slice_)))
    parts: dict[frozenset[tuple[Side, int]], list[int]] = defaultdict(list)
    for atom, where in places.items():
        parts[frozenset(where)].append(atom)
    return list(parts.values())


def _check_family(model: nn.Module, family: Family, coupled: Couplings) -> None:
    """Raise a PruningError unless what is tied can be removed by these cuts."""
    first, *others = family
    for cut in others:
        if cut.structure != first.structure:
            raise PruningError(
                f"{cut.weight!r} ({cut.structure}) must not remove what {first.weight!r} ({first.structure}) removes "
                f"already; keep one of the two."
            )
        if cut.sparsity != first.sparsity:
            raise PruningError(
                f"{cut.weight!r} is tied to {first.weight!r} and must lose the same {cut.structure}, but got the "
                f"sparsities {cut.sparsity:g} and {first.sparsity:g}; put both in one group."
            )
    _check_removable(family, coupled)
    _check_complete(model, family, coupled)


def _check_removable(family: Family, coupled: Couplings) -> None:
    atoms = np.unique(np.concatenate([coupled.atoms[cut.side] for cut in family])).tolist()
    sides = coupled.sides_of(atoms)
    weights = ", ".join(repr(cut.weight) for cut in family)
    structure = family[0].structure
    if Side(OUTPUT, "end") in sides:
        raise PruningError(
            f"the {structure} of {weights} make the network's output, which must stay whole; remove them."
        )
    if Side(IMAGE, "end") in sides:
        raise PruningError(
            f"the {structure} of {weights} are the image's channels, or are added to them, and must stay; remove them."
        )
    made = [atom for atom in atoms if any(side.kind == "out" for side in coupled.holders[atom])]
    if len(made) < len(atoms):
        raise PruningError(
            f"{len(atoms) - len(made)} of the {len(atoms)} {structure} of {weights} come from no layer that "
            f"could leave them out; remove the weights."
        )
    if len(atoms) == 1:
        raise PruningError(f"the {structure} of {weights} can only be removed all together; remove the weights.")


def _check_complete(model: nn.Module, family: Family, coupled: Couplings) -> None:
    """Raise a PruningError if a convolution is tied to the family that is not in it: all of them at once."""
    kind, tied = family[0].side.kind, {cut.side for cut in family}
    while True:
        atoms = np.unique(np.concatenate([coupled.atoms[side] for side in tied])).tolist()
        more = {side for side in coupled.sides_of(atoms) if side.kind == kind and _can_be_named(model, side.name)}
        if more <= tied:
            break
        tied |= more
    if outside := sorted(f"{side.name}.weight" for side in tied - {cut.side for cut in family}):
        weights = ", ".join(repr(cut.weight) for cut in family)
        raise PruningError(
            f"the {family[0].structure} of {weights} are tied to those of {counted(len(outside), 'weight')} that must "
            f"be in the same group, but {verb(len(outside), 'is', 'are')} not: {', '.join(outside)}; add "
            f"{verb(len(outside), 'it', 'them')} or remove {weights}."
        )


def _can_be_named(model: nn.Module, layer: str) -> bool:
    module = model.get_submodule(layer)
    return isinstance(module, nn.Conv2d) and not is_depthwise(module)


def _without(cut: Cut, removed: Atoms, coupled: Couplings) -> Cut:
    kept = (~np.isin(coupled.atoms[cut.side], removed)).nonzero()[0]
    return Cut(cut.weight, cut.structure, cut.sparsity, cut.before, tuple(kept.tolist()))


def _removed(plan: Plan, coupled: Couplings) -> Atoms:
    """Return the atoms that a plan removes.

    Raises:
        PruningError: The plan is not one of this network, or leaves a part of what must go together.
    """
    removed: list[Atoms] = [np.zeros(0, dtype=np.int64)]
    for cut in plan:
        atoms = coupled.atoms.get(cut.side)
        if atoms is None or len(atoms) != cut.before or not set(cut.slices) <= set(range(cut.before)):
            raise PruningError(
                f"{cut.weight!r} must be a weight of the network with {cut.before} {cut.structure}, of which the plan "
                f"keeps some, but got {'no such weight' if atoms is None else f'{len(atoms)}'}; use the plan with the "
                f"network it was made for."
            )
        removed.append(np.delete(atoms, cut.slices))
    gone = np.unique(np.concatenate(removed))
    for cut in plan:
        if _without(cut, gone, coupled).slices != cut.slices or not cut.kept:
            raise PruningError(
                f"{cut.weight!r} must keep at least one of its {cut.structure}, and lose those that the weights tied "
                f"to it lose, but the plan says otherwise; use the plan as it was written."
            )
    return gone


def _check_parts(stays: Mapping[Side, npt.NDArray[np.bool_]], coupled: Couplings) -> None:
    """Raise a PruningError unless each group of a convolution or norm keeps as many slices as its other groups."""
    for side, kept in stays.items():
        counts = kept.reshape(coupled.parts.get(side, 1), -1).sum(axis=1).tolist()
        if len(set(counts)) > 1:
            raise PruningError(
                f"the {len(counts)} groups of {side.name!r} must keep as many channels each, but would keep {counts}; "
                f"prune what the other groups read by as much, in the same pruner group, or remove these weights."
            )


def _check_own(stays: Mapping[Side, npt.NDArray[np.bool_]], model: nn.Module) -> None:
    """Raise a PruningError if a layer that loses anything shares a parameter with another: pruning would part them."""
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for layer, module in model.named_modules():
        for name, parameter in module.named_parameters(layer, recurse=False):
            names[parameter].append(name)
    losing = {side.name for side in stays}
    for same in names.values():
        if len(same) > 1 and any(name in losing or name.rpartition(".")[0] in losing for name in same):
            raise PruningError(
                f"what loses anything must have parameters of its own, but {', '.join(same)} are one and the same; "
                f"remove the weights that they are tied to, or call one layer twice."
            )


def _keep(model: nn.Module, side: Side, kept: Tensor) -> None:
    if side.kind == "out":
        slicing.keep_outputs(model.get_submodule(side.name), kept)
    elif side.kind == "in":
        slicing.keep_inputs(model.get_submodule(side.name), kept)
    elif side.kind == "passing":
        slicing.keep_channels(model.get_submodule(side.name), kept)
    else:
        slicing.keep_elements(model, side.name, kept)


def _named(plan: Plan) -> str:
    """Return the weights of a plan that lose something, for a sentence."""
    return ", ".join(
        f"{cut.weight!r} ({cut.structure}, {cut.kept} of {cut.before} kept)" for cut in plan if cut.kept < cut.before
    )


def _weight_problems(model: nn.Module, groups: Mapping[str, PrunerGroup]) -> Iterator[str]:
    weights = dict(model.named_parameters())
    for label, group in groups.items():
        for name in group.weights:
            place = f"pruner_groups[{label!r}]"
            if name not in weights:
                yield f"{place}: a weight must be one of the network's, but got {name!r}; {_hint(name, weights)}."
                continue
            layer = model.get_submodule(name.rpartition(".")[0])
            if not isinstance(layer, nn.Conv2d) or weights[name].dim() != 4:
                yield (
                    f"{place}: a weight must be a convolution's [C_out, C_in, K_h, K_w], but {name!r} has shape "
                    f"{list(weights[name].shape)}; remove it."
                )
            elif is_depthwise(layer):
                yield (
                    f"{place}: a weight must have something to choose from, but {name!r} is a depthwise convolution's, "
                    f"which loses what the layer before it loses; remove it."
                )


def _call_problems(groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    for label, group in groups.items():
        for weight in group.weights:
            layer = weight.rpartition(".")[0]
            if Side(layer, "out") not in coupled.atoms:
                yield (
                    f"pruner_groups[{label!r}]: a weight must be of a layer that the network calls, but {layer!r} is "
                    f"never called; remove {weight!r}."
                )


def _hint(name: str, weights: Mapping[str, nn.Parameter]) -> str:
    convolutions = [known for known, weight in weights.items() if weight.dim() == 4]
    close = get_close_matches(name, convolutions, n=3) or convolutions[:3]
    return f"near it are {', '.join(close)}" if close else "the network has no convolution"


def _removal_problems(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    """Remove from networks that notice; two groups must not remove the same thing."""
    networks = [oracle.made_up(model, coupled.input_shape, rising=rising) for rising in (True, False)]
    clashes = list(_clashes(groups, coupled))
    first = {label: group.structures[0] for label, group in groups.items()}
    each = [(label, structure) for label, group in groups.items() for structure in group.structures]
    together = None if clashes else _removal_problem(networks, groups, first, coupled)
    if not clashes and not together and not _meet(groups, coupled):  # the usual case, tried at once
        each = [(label, structure) for label, structure in each if structure != first[label]]
    alone = {one: problem for one in each if (problem := _removal_problem(networks, groups, dict([one]), coupled))}
    for (label, structure), problem in alone.items():
        yield f"pruner_groups[{label!r}], {structure}: {problem}"
    if together and not alone:
        yield f"pruner_groups, all at once: {together}"
    if not alone and not together:
        yield from _order_problems(networks[0], groups, coupled)
    yield from clashes
    for label, group in groups.items():
        highest = _middle_and_end(group.sparsity)[-1]
        before = [len(coupled.atoms[KINDS[kind].side(weight)]) for kind in group.structures for weight in group.weights]
        if not group.is_fixed and all(kept_count(highest, slices) == slices for slices in before):
            yield (
                f"pruner_groups[{label!r}]: must remove something somewhere in its range, but even at {highest:g} all "
                f"of the at most {max(before)} {group.structures[0]} of a weight stay; raise it or remove the group."
            )


def _order_problems(network: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    """Yield the groups whose slices cannot change places with each other, such as those of two factors of a product.

    Which of them go is chosen in each family by itself. So what the network computes may depend on which there are, not
    on where they are. This is what tells of a network that computes over channels, where zeros prove nothing.
    """
    first = {label: group.structures[0] for label, group in groups.items()}
    each = [(label, kind) for label, group in groups.items() for kind in group.structures]
    if _keeps_its_output(network, groups, first, coupled):  # the usual case, tried at once
        each = [(label, kind) for label, kind in each if kind != first[label]]
    for label, kind in each:
        if not _keeps_its_output(network, groups, {label: kind}, coupled):
            yield (
                f"pruner_groups[{label!r}], {kind}: channels must be free to change places with each other, with all "
                f"that is tied to them, but then the network computes something else: its code counts on their order, "
                f"or computes with pairs of channels of different weights; remove these weights."
            )


def _keeps_its_output(
    network: nn.Module, groups: Mapping[str, PrunerGroup], structures: Mapping[str, Structure], coupled: Couplings
) -> bool:
    """Tell whether a network computes the same when the slices of these structures change places within their parts."""
    cuts = [
        Cut(weight, kind, 0.5, len(coupled.atoms[KINDS[kind].side(weight)]), ())
        for label, kind in structures.items()
        for weight in groups[label].weights
    ]
    parts = [atoms for family in _families(cuts, coupled) for atoms in _parts(family, coupled)]
    alike = [atoms for part in parts for atoms in _alike(part, coupled)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(ORDERS):
        place: dict[int, int] = {}
        for atoms in alike:
            order = torch.randperm(len(atoms), generator=generator).tolist()
            place.update({atom: atoms[other] for atom, other in zip(atoms, order, strict=True)})
        if not oracle.agree(network, _in_order(network, place, coupled), coupled):
            return False
    return True


def _alike(part: Sequence[int], coupled: Couplings) -> list[list[int]]:
    """Return the atoms of a part by how many slices they have on each side: only those can change places."""
    counts: dict[int, list[tuple[Side, int]]] = {atom: [] for atom in part}
    for side in sorted(coupled.sides_of(part)):
        for atom, count in Counter(coupled.atoms[side].tolist()).items():
            if atom in counts:
                counts[atom].append((side, count))
    alike: dict[tuple[tuple[Side, int], ...], list[int]] = defaultdict(list)
    for atom, its in counts.items():
        alike[tuple(its)].append(atom)
    return list(alike.values())


def _in_order(network: nn.Module, place: Mapping[int, int], coupled: Couplings) -> nn.Module:
    """Return a copy of a network in which atoms have taken the places of others, in every layer that has them."""
    permuted = copy.deepcopy(network)
    for side in coupled.sides_of(place):
        slices: dict[int, list[int]] = defaultdict(list)
        for slice_, atom in enumerate(coupled.atoms[side].tolist()):
            slices[atom].append(slice_)
        order = coupled.atoms[side].tolist()
        for atom, its in slices.items():
            for slice_, other in zip(its, slices[place.get(atom, atom)], strict=True):
                order[slice_] = other
        _keep(permuted, side, torch.tensor(order))
    return permuted


def _clashes(groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    owner: dict[int, str] = {}
    for label, group in groups.items():
        sides = [KINDS[structure].side(weight) for structure in group.structures for weight in group.weights]
        atoms = {atom for side in sides for atom in coupled.atoms[side].tolist()}
        if clash := next((owner[atom] for atom in sorted(atoms) if atom in owner), None):
            yield (
                f"pruner_groups[{label!r}]: must remove something of its own, but {clash!r} removes the same filters "
                f"or channels; take the weights out of one of them."
            )
        owner.update(dict.fromkeys(atoms, label))


def _meet(groups: Mapping[str, PrunerGroup], coupled: Couplings) -> bool:
    """Tell whether two groups remove from one layer whose parts must lose as much each, at whatever sparsities."""
    touched = [
        {side for weight in group.weights for kind in group.structures for side in _touched(weight, kind, coupled)}
        for group in groups.values()
    ]
    together = [side for sides in touched for side in sides & coupled.parts.keys()]
    return len(together) > len(set(together))


def _touched(weight: str, structure: Structure, coupled: Couplings) -> set[Side]:
    return coupled.sides_of(coupled.atoms[KINDS[structure].side(weight)].tolist())


def _removal_problem(
    networks: Sequence[nn.Module],
    groups: Mapping[str, PrunerGroup],
    structures: Mapping[str, Structure],
    coupled: Couplings,
) -> str | None:
    """Return why these structures cannot be removed from the networks in the middle and at the end of their ranges."""
    ranges = {label: _middle_and_end(groups[label].sparsity) for label in structures}
    try:
        for network in networks:
            for place in (0, 1):
                point = Point({label: sparsities[place] for label, sparsities in ranges.items()}, structures)
                prune(network, make_plan(network, groups, point, coupled), coupled)
    except PruningError as error:
        return str(error)
    return None


def _middle_and_end(sparsity: Uniform | Choice) -> tuple[float, float]:
    if isinstance(sparsity, Uniform):
        return (sparsity.low + sparsity.high) / 2, sparsity.high
    ascending = sorted(sparsity.values)
    return ascending[len(ascending) // 2], ascending[-1]
