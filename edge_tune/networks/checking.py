"""What an experiment's groups ask of a network, tried on it before anything starts.

Everything that a search may remove is removed once from copies of the network with made-up weights, in the middle of
its range and at its end, and what is left must compute what it should.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import nn

from edge_tune.errors import ExperimentError, PruningError, first_line
from edge_tune.experiment import BlockGroup, Group, PrunerGroup
from edge_tune.networks import blocks, copies, oracle
from edge_tune.networks.couplings import Couplings, Side, couplings
from edge_tune.networks.importance import Basis, importance
from edge_tune.networks.pruning import families, kept_count, make_plan, own_names, parts_of, prune, tied, whole
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import Shape
from edge_tune.parameters import Value
from edge_tune.records.entries import Cut
from edge_tune.wording import counted, verb

COUNTS_ON_ORDER = (
    "channels must be free to change places with each other, with all that is tied to them, but then the network "
    "computes something else: its code counts on their order, or computes with pairs of channels of different weights; "
    "remove these weights."
)

SHOWN = 8
"""So many weights of a group are told in a line."""

ORDERS = 3
"""So many orders of its slices are tried on a network: of two slices there are but two."""


Asked = Mapping[str, Mapping[str, Value]]
"""Label -> what is asked of a group, by the names of its parameters."""


def check_groups(model: nn.Module, groups: Mapping[str, Group], input_shape: Shape) -> Couplings:
    """Check, before anything starts, that every weight and block exists and that each group can be pruned.

    Each structure of each group is pruned alone, in the middle of its range and at its end, with made-up weights that
    let no wrong slice pass unseen; then all of them from the network without any of the blocks. Returns what must be
    removed together in `model`.

    Raises:
        ExperimentError: One sentence for each weight or group that cannot be pruned.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ExperimentError(
            "model: must be a network of Python code, but got one of TorchScript, whose layers cannot be taken apart; "
            "return it as it was before torch.jit."
        )
    pruners = {label: group for label, group in groups.items() if isinstance(group, PrunerGroup)}
    ExperimentError.raise_if(_part_problems(model, pruners))
    try:
        coupled = couplings(model, input_shape)
        oracle.check_draws(model, input_shape)
    except PruningError as error:
        raise ExperimentError(f"model: {error}") from error
    ExperimentError.raise_if(_call_problems(pruners, coupled))
    ExperimentError.raise_if(_removal_problems(model, pruners, coupled))
    if block_groups := {label: group for label, group in groups.items() if isinstance(group, BlockGroup)}:
        ExperimentError.raise_if(_block_problems(model, block_groups, coupled))
        ExperimentError.raise_if(_problems_without_blocks(model, groups, coupled))
    return coupled


def _block_problems(model: nn.Module, groups: Mapping[str, BlockGroup], coupled: Couplings) -> Iterator[str]:
    known = blocks.found(model, coupled.input_shape)
    for label, group in groups.items():
        yield from (f"pruner_groups[{label!r}]: {problem}" for problem in blocks.problems(model, group.blocks, known))


def _problems_without_blocks(model: nn.Module, groups: Mapping[str, Group], coupled: Couplings) -> Iterator[str]:
    """Yield what is wrong without any block, and, with as few as may stay, for all groups and for each criterion."""
    networks = [oracle.made_up(model, coupled.input_shape, rising=True)]
    fewest = {
        label: min(map(int, group.keep.values)) for label, group in groups.items() if isinstance(group, BlockGroup)
    }
    if problem := _removal_problem(networks, groups, {label: {"keep": 0} for label in fewest}, coupled):
        yield f"pruner_groups, all blocks: {problem}"
        return
    gone = {label: {"keep": keep} for label, keep in fewest.items()}
    pruners = {label: group for label, group in groups.items() if isinstance(group, PrunerGroup)}
    first = {label: _first(group) for label, group in pruners.items()}
    if problem := _removal_problem(networks, groups, {**gone, **first}, coupled):
        yield f"pruner_groups, all at once, with as few of their blocks as may stay: {problem}"
        return
    for label, group in pruners.items():
        for asked in _each(group):
            if asked != first[label] and (
                problem := _removal_problem(networks, groups, {**gone, label: asked}, coupled)
            ):
                yield f"pruner_groups[{label!r}], {asked['structure']}, with as few blocks as may stay: {problem}"


def _part_problems(model: nn.Module, groups: Mapping[str, PrunerGroup]) -> Iterator[str]:
    for label, group in groups.items():
        place = f"pruner_groups[{label!r}]"
        try:
            for criterion in group.importances:
                importance(criterion)
            kinds = [structure(name) for name in group.structures]
            found = [kind.problem(model, weight) for weight in group.weights for kind in kinds]
        except ExperimentError as error:
            yield from (f"{place}: {problem}" for problem in error.problems)
        except Exception as error:
            if not (own := own_names({label: group})):
                raise
            yield (
                f"{place}: {' and '.join(own)} must say what it can act on, but raised {type(error).__name__}: "
                f"{first_line(error)}; mend it."
            )
        else:
            yield from (f"{place}: {problem}" for problem in dict.fromkeys(filter(None, found)))


def _call_problems(groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    for label, group in groups.items():
        for weight in group.weights:
            side = structure(group.structures[0]).side(weight)
            if side not in coupled.atoms:
                yield (
                    f"pruner_groups[{label!r}]: a weight must be of a layer that the network calls, but {side.name!r} "
                    f"is never called; remove {weight!r}."
                )


def why_not_all(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> str | None:
    """Return why the first structure of these groups cannot be removed from all of them at once, or None."""
    networks = [oracle.made_up(model, coupled.input_shape, rising=rising) for rising in (True, False)]
    first = {label: _first(group) for label, group in groups.items()}
    if problem := _removal_problem(networks, groups, first, coupled):
        return problem
    return None if _keeps_its_output(networks[0], groups, first, coupled) else COUNTS_ON_ORDER


def tied_to(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    """Yield a line for each group on the weights that it does not name and that lose what it removes all the same."""
    for label, group in groups.items():
        for name in group.structures:
            others = tied(model, structure(name), group.weights, coupled)[len(set(group.weights)) :]
            if others:
                shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
                more, lose = counted(len(others), "more weight"), verb(len(others), "loses", "lose")
                yield f"pruner_groups[{label!r}]: {more} {lose} the same {name}, tied to those that it names: {shown}."


def _removal_problems(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    """Remove from networks that notice; two groups must not remove the same thing."""
    networks = [oracle.made_up(model, coupled.input_shape, rising=rising) for rising in (True, False)]
    clashes = list(_clashes(model, groups, coupled))
    first = {label: _first(group) for label, group in groups.items()}
    each = [(label, asked) for label, group in groups.items() for asked in _each(group)]
    together = None if clashes else _removal_problem(networks, groups, first, coupled)
    if not clashes and not together and not _meet(model, groups, coupled):  # the usual case, tried at once
        each = [(label, asked) for label, asked in each if asked != first[label]]
    alone = [
        (label, asked, problem)
        for label, asked in each
        if (problem := _removal_problem(networks, groups, {label: asked}, coupled))
    ]
    for label, asked, problem in alone:
        yield f"pruner_groups[{label!r}], {asked['structure']}: {problem}"
    if together and not alone:
        yield f"pruner_groups, all at once: {together}"
    if not alone and not together:
        yield from _order_problems(networks[0], groups, coupled)
    yield from clashes
    for label, group in groups.items():
        highest = float(group.sparsity.middle_and_end()[-1])
        cuts = [cut for its in _each(group) for cut in whole(model, group, {**its, "sparsity": highest}, coupled)]
        most, parts = max(cut.before for cut in cuts), _parts(cuts, coupled)
        is_fixed = group.sparsity.is_fixed and len(group.structures) == 1
        if not is_fixed and all(kept_count(highest, slices) == slices for slices in parts):
            apart = (
                f", in parts of at most {max(parts)} of which each loses as much"
                if max(parts, default=most) < most
                else ""
            )
            yield (
                f"pruner_groups[{label!r}]: must remove something somewhere in its range, but even at {highest:g} all "
                f"of the at most {most} {cuts[0].noun} of a weight stay{apart}; raise it or remove the group."
            )


def _parts(cuts: Sequence[Cut], coupled: Couplings) -> list[int]:
    """Return how many slices each part has that loses by itself of what these cuts remove."""
    by_structure: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        by_structure[cut.structure].append(cut)
    return [
        len(part)
        for its in by_structure.values()
        for family in families(its, coupled)
        for part in parts_of(family, coupled)
    ]


def _order_problems(network: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    """Yield the groups whose slices cannot change places with each other, such as those of two factors of a product.

    Which of them go is chosen in each family by itself. So what the network computes may depend on which there are, not
    on where they are. This is what tells of a network that computes over channels, where zeros prove nothing.
    """
    first = {label: _first(group) for label, group in groups.items()}
    each = [(label, {**first[label], "structure": name}) for label in groups for name in groups[label].structures]
    if _keeps_its_output(network, groups, first, coupled):  # the usual case, tried at once
        each = [(label, asked) for label, asked in each if asked["structure"] != first[label]["structure"]]
    for label, asked in each:
        if not _keeps_its_output(network, groups, {label: asked}, coupled):
            yield f"pruner_groups[{label!r}], {asked['structure']}: {COUNTS_ON_ORDER}"


def _keeps_its_output(network: nn.Module, groups: Mapping[str, PrunerGroup], asked: Asked, coupled: Couplings) -> bool:
    """Tell whether a network computes the same when the slices of these structures change places within their parts."""
    cuts = [
        cut for label, its in asked.items() for cut in whole(network, groups[label], {**its, "sparsity": 0.5}, coupled)
    ]
    parts = [atoms for family in families(cuts, coupled) for atoms in parts_of(family, coupled)]
    alike = [atoms for part in parts for atoms in copies.alike(part, coupled)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(ORDERS):
        place: dict[int, int] = {}
        for atoms in alike:
            order = torch.randperm(len(atoms), generator=generator).tolist()
            place.update({atom: atoms[other] for atom, other in zip(atoms, order, strict=True)})
        if not oracle.agree(network, copies.in_order(network, place, coupled), coupled):
            return False
    return True


def _clashes(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> Iterator[str]:
    owner: dict[int, str] = {}
    for label, group in groups.items():
        atoms = {atom for side in _sides(model, group, coupled) for atom in coupled.atoms[side].tolist()}
        if clash := next((owner[atom] for atom in sorted(atoms) if atom in owner), None):
            yield (
                f"pruner_groups[{label!r}]: must remove something of its own, but {clash!r} removes the same filters "
                f"or channels; take the weights out of one of them."
            )
        owner.update(dict.fromkeys(atoms, label))


def _meet(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> bool:
    """Tell whether two groups remove from one layer whose parts must lose as much each, at whatever sparsities."""
    touched = [
        {other for side in _sides(model, group, coupled) for other in coupled.sides_of(coupled.atoms[side].tolist())}
        for group in groups.values()
    ]
    together = [side for sides in touched for side in sides & coupled.parts.keys()]
    return len(together) > len(set(together))


def _sides(model: nn.Module, group: PrunerGroup, coupled: Couplings) -> list[Side]:
    """Return all sides from which a group may remove something."""
    kinds = map(structure, group.structures)
    return [kind.side(part) for kind in kinds for part in tied(model, kind, group.weights, coupled)]


def _each(group: PrunerGroup) -> list[dict[str, Value]]:
    """Return whatever a group may be asked, but for how much: each criterion may fail on each structure."""
    both = product(group.structures, group.importances)
    return [{"sparsity": 0.0, "structure": name, "importance": criterion} for name, criterion in both]


def _first(group: PrunerGroup) -> dict[str, Value]:
    return {"sparsity": 0.0, "structure": group.structures[0], "importance": group.importances[0]}


def _removal_problem(
    networks: Sequence[nn.Module], groups: Mapping[str, Group], asked: Asked, coupled: Couplings
) -> str | None:
    """Return why these cannot be removed from the networks in the middle and at the end of their ranges."""
    try:
        for network in networks:
            # Made up, too: by these, "taylor" ranks as the L2 norm does.
            basis = Basis({name: parameter.detach() for name, parameter in network.named_parameters()})
            for place in (0, 1):
                point = {f"{label}.{name}": value for label, its in asked.items() for name, value in its.items()}
                for label in asked:
                    if isinstance(group := groups[label], PrunerGroup):
                        point[f"{label}.sparsity"] = group.sparsity.middle_and_end()[place]
                plan = make_plan(network, groups, point, coupled, basis=basis)
                if own_names(groups) and make_plan(network, groups, point, coupled, basis=basis) != plan:
                    return (
                        f"{' and '.join(own_names(groups))} must choose the same slices whenever they are asked, but "
                        f"chose others the second time; mend them."
                    )
                prune(network, plan, coupled)
    except PruningError as error:
        return str(error)
    return None
