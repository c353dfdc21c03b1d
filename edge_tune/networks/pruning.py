"""From a point of the search space to a smaller network.

point (parameter -> value) -> plan (weight -> the slices that stay) -> `prune` -> nn.Module

Blocks go first: what is ranked, and what belongs together, follows from the network without them. What is removed of
the rest and how it is ranked are in structures.py and importance.py; what belongs together in couplings.py.
"""

import copy
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge_tune.errors import EdgeTuneError, PruningError, first_line
from edge_tune.experiment import BlockGroup, Group, PrunerGroup
from edge_tune.networks import blocks, oracle, slicing
from edge_tune.networks.couplings import Atoms, Couplings, Side, couplings, side_of
from edge_tune.networks.importance import Basis, Candidates, importance
from edge_tune.networks.structures import Slices, structure
from edge_tune.networks.tracing import IMAGE, OUTPUT, Shape, able_to_learn
from edge_tune.parameters import Point, Value, of_part
from edge_tune.records.entries import Cut, left_out
from edge_tune.wording import verb

Plan = Sequence[Cut]

NOTHING_ELSE = Basis()
"""Whoever ranks by the weights alone needs no more."""

SHOWN = 8
"""So many weights are told in a sentence."""


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


class Traced(NamedTuple):
    """A network, and what must be removed together in it."""

    model: nn.Module
    coupled: Couplings


def make_plan(
    model: nn.Module,
    groups: Mapping[str, Group],
    point: Point,
    coupled: Couplings,
    granularity: int = 1,
    basis: Basis = NOTHING_ELSE,
) -> Plan:
    """Return what stays of all groups that `point` speaks of: first the blocks, then the slices of what is left.

    Args:
        coupled: What must be removed together in `model`.
        granularity: Kept counts are multiples of it, as `kept_count` has it.
        basis: What slices are ranked by besides their weights.

    Raises:
        PruningError: A weight is tied to what must stay, or to a weight of another group.
    """
    chosen = plan_blocks(groups, point)
    unpruned = Traced(model, coupled)
    return (*chosen, *plan_slices(unpruned, shortened(unpruned, chosen), groups, point, granularity, basis))


def plan_blocks(groups: Mapping[str, Group], point: Point) -> Plan:
    """Return which blocks stay of the groups that `point` speaks of: the last of their order, or as they are named."""
    cuts = []
    for label, group in groups.items():
        if isinstance(group, BlockGroup) and (asked := of_part(point, label)):
            order = tuple(group.order or group.blocks)
            gone = order[: len(order) - int(asked["keep"])]
            share = len(gone) / len(order)
            cuts += [
                Cut(block, "blocks", "block", "order", share, 1, () if block in gone else (0,))
                for block in group.blocks
            ]
    return tuple(cuts)


def shortened(unpruned: Traced, plan: Plan) -> Traced:
    """Return the network without the blocks that a plan leaves out.

    What it computes is compared with the unpruned one, in which the parameters of these blocks are zero.

    Raises:
        PruningError: The network has no such blocks, or computes something else without them.
    """
    if not (gone := left_out(plan)):
        return unpruned
    model, coupled = unpruned
    shorter = blocks.without(model, gone)
    blocks.check(model, shorter, gone, coupled.input_shape)
    return Traced(shorter, couplings(shorter, coupled.input_shape))


def plan_slices(
    unpruned: Traced,
    left: Traced,
    groups: Mapping[str, Group],
    point: Point,
    granularity: int = 1,
    basis: Basis = NOTHING_ELSE,
) -> Plan:
    """Return which slices stay of every weight in the groups that `point` speaks of: the most important ones.

    Weights that are tied to each other lose the same slices, ranked by the sum of their importance. Where a layer
    counts its slices in groups, or some tied weights have only a part of the others' slices, each part loses the same
    share.

    Args:
        unpruned: In which a group has the weights that it names, and those that are tied to them.
        left: What is left of it without the blocks that go. The weights of these are no longer there.
        granularity: Kept counts are multiples of it, as `kept_count` has it.
        basis: What slices are ranked by besides their weights.

    Raises:
        PruningError: A weight is tied to what must stay, or to a weight of another group, or cannot be ranked so.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1; ranks are taken once, before any removal.
    """
    try:
        return _planned(unpruned, left, groups, point, granularity, basis)
    except EdgeTuneError:
        raise
    except Exception as error:
        own = own_names(groups)
        if not own:
            raise
        raise PruningError(
            f"{' and '.join(own)} must work on every weight of {verb(len(own), 'its', 'their')} groups, but raised "
            f"{type(error).__name__}: {first_line(error)}; mend {verb(len(own), 'it', 'them')}."
        ) from error


def own_names(groups: Mapping[str, Group]) -> list[str]:
    """Return the structures and criteria of importance that an experiment brings with it."""
    pruners = [group for group in groups.values() if isinstance(group, PrunerGroup)]
    names = [name for group in pruners for name in (*group.structures, *group.importances)]
    return [name for name in dict.fromkeys(names) if ":" in name]


def _planned(
    unpruned: Traced,
    left: Traced,
    groups: Mapping[str, Group],
    point: Point,
    granularity: int,
    basis: Basis,
) -> Plan:
    model, coupled = left
    cuts = [
        cut
        for label, group in groups.items()
        if isinstance(group, PrunerGroup) and (asked := of_part(point, label))
        for cut in whole(unpruned.model, group, asked, unpruned.coupled)
        if _side(cut) in coupled.atoms
    ]
    removed = np.array(
        [atom for family in families(cuts, coupled) for atom in _lowest(model, family, coupled, granularity, basis)],
        dtype=np.int64,
    )
    return tuple(_without(cut, removed, coupled) for cut in cuts)


def whole(model: nn.Module, group: PrunerGroup, asked: Mapping[str, Value], coupled: Couplings) -> Iterator[Cut]:
    """Yield what is asked of each weight of a group and of those tied to them, of which all slices stay as yet."""
    name, importance = str(asked["structure"]), str(asked["importance"])
    kind = structure(name)
    for weight in tied(model, kind, group.weights, coupled):
        before = len(coupled.atoms[kind.side(weight)])
        yield Cut(weight, name, kind.kind, importance, float(asked["sparsity"]), before, tuple(range(before)))


def importances(
    unpruned: Traced, group: PrunerGroup, asked: Mapping[str, Value], basis: Basis = NOTHING_ELSE
) -> dict[str, npt.NDArray[np.float64]]:
    """Return layer -> the importance of each slice of its weight, [slices], for a group and what is tied to it.

    Args:
        asked: The group's structure, importance and sparsity.

    Raises:
        PruningError: A weight cannot be ranked so.
    """
    model, coupled = unpruned
    return {
        cut.part.removesuffix(".weight"): _scores(model, cut, coupled, basis).detach().double().numpy()
        for cut in whole(model, group, asked, coupled)
    }


def tied(model: nn.Module, kind: Slices, weights: Sequence[str], coupled: Couplings) -> list[str]:
    """Return these weights, then the others that lose what they lose: naming one names all, sorted by name."""
    parts = {kind.side(weight): weight for weight in weights}
    new = set(parts)
    while new:
        atoms = np.unique(np.concatenate([coupled.atoms[side] for side in new])).tolist()
        found = {side: part for side in sorted(coupled.sides_of(atoms)) if (part := kind.part_of(model, side))}
        new = found.keys() - parts.keys()
        parts |= {side: part for side, part in found.items() if side in new}
    return list(parts.values())


def digest(plan: Plan) -> str:
    """Return a short text that is equal for plans that give the same network, whose slices are ranked alike."""
    cuts = [cut for cut in plan if cut.kept < cut.before]
    kept = sorted((cut.part, cut.structure, cut.importance, cut.kept) for cut in cuts)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def prune(model: nn.Module, plan: Plan, coupled: Couplings) -> nn.Module:
    """Return a copy of `model`, in inference mode and trainable, without the slices that do not stay.

    What it computes is compared with `model`, in which the inputs that come from removed slices are zero.

    Args:
        coupled: What must be removed together in `model`.

    Raises:
        PruningError: The plan does not fit the network, or what is left does not compute the same.
    """
    model, coupled = shortened(Traced(model, coupled), plan)
    plan = [cut for cut in plan if cut.kind != "block"]
    pruned = remove(model, plan, coupled)
    removed = _removed(plan, coupled)
    if len(removed):
        oracle.check(model, pruned, removed, coupled, _named(plan))
    return pruned


def remove(model: nn.Module, plan: Plan, coupled: Couplings) -> nn.Module:
    """Return what `prune` does for a plan without blocks, of which nothing is compared.

    Raises:
        PruningError: The plan does not fit the network.
    """
    stays = coupled.stays(_removed(plan, coupled))
    _check_parts(stays, coupled)
    _check_own(stays, model)
    pruned = able_to_learn(model)
    for side, kept in stays.items():
        slicing.keep(pruned, side, torch.from_numpy(kept.nonzero()[0]))
    return pruned


def size(model: nn.Module, input_shape: Shape) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates of one image)."""
    macs, _ = tp.utils.count_ops_and_params(copy.deepcopy(model).eval(), torch.zeros(1, *input_shape))
    return sum(parameter.numel() for parameter in model.parameters()), int(macs)


Family = list[Cut]
"""Cuts that remove the same: they are tied to each other."""


def families(cuts: Iterable[Cut], coupled: Couplings) -> list[Family]:
    """Return the cuts that may remove something, those that are tied to each other together.

    Whether they do is decided for what is tied as a whole: of a narrow weight's slices none may go where one of a wider
    weight's would.
    """
    families: list[tuple[Family, set[int]]] = []
    for cut in cuts:
        if cut.sparsity == 0 or cut.before == 1:
            continue
        members, atoms = [cut], set(coupled.atoms[_side(cut)].tolist())
        for family in [family for family in families if not atoms.isdisjoint(family[1])]:
            families.remove(family)
            members, atoms = family[0] + members, family[1] | atoms
        families.append((members, atoms))
    return [members for members, _ in families]


def _lowest(model: nn.Module, family: Family, coupled: Couplings, granularity: int, basis: Basis) -> list[int]:
    """Return the atoms to remove: of each part of what is tied, those that the structure chooses."""
    _check_family(family, coupled)
    scores: dict[int, float] = defaultdict(float)
    for cut in family:
        of_slices = _scores(model, cut, coupled, basis).double().tolist()
        for atom, score in zip(coupled.atoms[_side(cut)].tolist(), of_slices, strict=True):
            scores[atom] += score
    parts = parts_of(family, coupled)
    part_of = {atom: part for part, atoms in enumerate(parts) for atom in atoms}
    fewest = min(len({part_of[atom] for atom in coupled.atoms[_side(cut)].tolist()}) for cut in family)
    sparsity = family[0].sparsity
    return [
        atoms[place]
        for atoms in parts
        for place in _removed_of(
            family[0].structure,
            [scores[atom] for atom in atoms],
            len(atoms) - kept_count(sparsity, len(atoms), -(-granularity // fewest)),
        )
    ]


def _scores(model: nn.Module, cut: Cut, coupled: Couplings, basis: Basis) -> Tensor:
    """Return how important each slice of a weight is, [slices].

    Raises:
        PruningError: The criterion says something else.
    """
    kind = structure(cut.structure)
    slices, gradients = kind.of(model, cut.part), None
    if not isinstance(slices, Tensor) or len(slices) != cut.before:
        raise PruningError(
            f"structure {cut.structure!r} must give the {cut.before} {cut.noun} of {cut.part!r} as a tensor, but got "
            f"{_said(slices)}; mend it."
        )
    if cut.part in basis.gradients:
        with _holding(model.get_parameter(cut.part), basis.gradients[cut.part]):
            gradients = kind.of(model, cut.part).clone()
    scales = partial(_scales, model, coupled.atoms[_side(cut)], coupled)
    scores = importance(cut.importance)(Candidates(cut.part, cut.noun, slices, gradients, scales, basis.seed))
    if not isinstance(scores, Tensor) or scores.shape != slices.shape[:1] or not scores.isfinite().all():
        raise PruningError(
            f"importance {cut.importance!r} must give a finite number for each of the {len(slices)} {cut.noun} of "
            f"{cut.part!r}, but got {_said(scores)}; mend the criterion."
        )
    return scores


@contextmanager
def _holding(parameter: nn.Parameter, values: Tensor) -> Iterator[None]:
    """Have a parameter hold other values for a while, so that they can be taken apart as it is."""
    own = parameter.data
    parameter.data = values
    try:
        yield
    finally:
        parameter.data = own


def _scales(model: nn.Module, atoms: Atoms, coupled: Couplings) -> Tensor:
    """Return |gamma| of each of these slices, summed over the batch norms they pass through; NaN if through none."""
    scales = np.full(max(coupled.holders) + 1, np.nan)
    layers = dict(model.named_modules())
    for side in sorted(coupled.sides_of(np.unique(atoms).tolist())):
        norm = layers.get(side.name)
        if isinstance(norm, _BatchNorm) and norm.affine:
            its = coupled.atoms[side]
            scales[its] = np.nan_to_num(scales[its])
            np.add.at(scales, its, norm.weight.detach().abs().double().numpy())
    return torch.from_numpy(scales[atoms])


def _said(given: object) -> str:
    if not isinstance(given, Tensor):
        return type(given).__name__
    return f"shape {list(given.shape)}{'' if given.isfinite().all() else ', with numbers that are not finite'}"


def _removed_of(name: str, scores: Sequence[float], count: int) -> Sequence[int]:
    """Return which slices go, by their places.

    Raises:
        PruningError: The structure says something else than so many places.
    """
    places = [int(place) for place in structure(name).removed(scores, count)]
    if len(places) != count or not set(places) <= set(range(len(scores))) or len(set(places)) < count:
        raise PruningError(
            f"structure {name!r} must remove {count} of {len(scores)} slices, each once, but got {places}; mend it."
        )
    return places


def parts_of(family: Family, coupled: Couplings) -> list[list[int]]:
    """Return the atoms of a family in parts that must each lose the same share.

    A grouped layer has as many slices in each of its groups; and a weight that has only some of the slices that are
    tied keeps its share of them.
    """
    own = {_side(cut) for cut in family}
    places: dict[int, list[tuple[Side, int]]] = {
        atom: [] for cut in family for atom in coupled.atoms[_side(cut)].tolist()
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


def _check_family(family: Family, coupled: Couplings) -> None:
    """Raise a PruningError unless what is tied can be removed by these cuts."""
    first, *others = family
    for cut in others:
        if (cut.structure, cut.importance) != (first.structure, first.importance):
            raise PruningError(
                f"{cut.part!r} ({cut.noun}) must not remove what {first.part!r} ({first.noun}) removes "
                f"already; keep one of the two."
            )
        if cut.sparsity != first.sparsity:
            raise PruningError(
                f"{cut.part!r} is tied to {first.part!r} and must lose the same {cut.noun}, but got the "
                f"sparsities {cut.sparsity:g} and {first.sparsity:g}; put both in one group."
            )
    _check_removable(family, coupled)


def _check_removable(family: Family, coupled: Couplings) -> None:
    atoms = np.unique(np.concatenate([coupled.atoms[_side(cut)] for cut in family])).tolist()
    sides = coupled.sides_of(atoms)
    weights = ", ".join(repr(cut.part) for cut in family[:SHOWN]) + (", ..." if len(family) > SHOWN else "")
    noun = family[0].noun
    if Side(OUTPUT, "end") in sides:
        raise PruningError(f"the {noun} of {weights} make the network's output, which must stay whole; remove them.")
    if Side(IMAGE, "end") in sides:
        raise PruningError(
            f"the {noun} of {weights} are the image's channels, or are added to them, and must stay; remove them."
        )
    made = [atom for atom in atoms if any(side.kind == "out" for side in coupled.holders[atom])]
    if len(made) < len(atoms):
        raise PruningError(
            f"{len(atoms) - len(made)} of the {len(atoms)} {noun} of {weights} come from no layer that "
            f"could leave them out; remove the weights."
        )
    if len(atoms) == 1:
        raise PruningError(f"the {noun} of {weights} can only be removed all together; remove the weights.")


def _side(cut: Cut) -> Side:
    """Return where the slices of a weight are."""
    assert cut.kind != "block", cut
    return side_of(cut.part, cut.kind)


def _without(cut: Cut, removed: Atoms, coupled: Couplings) -> Cut:
    kept = (~np.isin(coupled.atoms[_side(cut)], removed)).nonzero()[0]
    return replace(cut, slices=tuple(kept.tolist()))


def _removed(plan: Plan, coupled: Couplings) -> Atoms:
    """Return the atoms that a plan removes.

    Raises:
        PruningError: The plan is not one of this network, or leaves a part of what must go together.
    """
    removed: list[Atoms] = [np.zeros(0, dtype=np.int64)]
    for cut in plan:
        atoms = coupled.atoms.get(_side(cut))
        if atoms is None or len(atoms) != cut.before or not set(cut.slices) <= set(range(cut.before)):
            raise PruningError(
                f"{cut.part!r} must be a weight of the network with {cut.before} {cut.noun}, of which the plan "
                f"keeps some, but got {'no such weight' if atoms is None else f'{len(atoms)}'}; use the plan with the "
                f"network it was made for."
            )
        removed.append(np.delete(atoms, cut.slices))
    gone = np.unique(np.concatenate(removed))
    for cut in plan:
        if _without(cut, gone, coupled).slices != cut.slices or not cut.kept:
            raise PruningError(
                f"{cut.part!r} must keep at least one of its {cut.noun}, and lose those that the weights tied "
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


def _named(plan: Plan) -> str:
    """Return the weights of a plan that lose something, for a sentence."""
    return ", ".join(
        f"{cut.part!r} ({cut.noun}, {cut.kept} of {cut.before} kept)" for cut in plan if cut.kept < cut.before
    )
