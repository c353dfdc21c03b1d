"""From what each part costs and saves to the groups of an experiment: which parts share a range, how far it goes, why.

What the network loses without a part is compared with all that it knows: the loss of a guess less its own. Losses of
several parts are added up, as if they did not interact, and nothing is retrained: so a range is only where to search.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, log
from typing import Generic, TypeVar

import numpy as np

from edge_tune.experiment import BlockGroup, Group, PrunerGroup
from edge_tune.inspect.measuring import Measured, Removal
from edge_tune.inspect.parts import SHARES, Part
from edge_tune.networks.finding import MOST, Run, least_blocks, runs
from edge_tune.parameters import Integer, Uniform
from edge_tune.wording import counted, listed, verb

STEP = 0.05
"""Ends of ranges are multiples of it."""

LEAST_END = 0.1
"""A range that ends before this is too short to search."""

FURTHEST = 0.9
"""Where a range ends of what may go by three quarters for less than half of what the network knows."""

LEAST_WON = 0.01
"""Of the latency: what wins less is left out, if that is certain: if all of it would still be less at the lower ends of
the ratios' intervals."""

DIFFERS = 3.0
"""Times as sensitive is another group, if there is room for one."""

NOISE = 0.01
"""Of what the network knows: smaller losses are taken for as large."""

ROLES = 4
"""So many roles of sets there are, each of which must have room for a group."""

Kind = TypeVar("Kind", bound=Group)


@dataclass(frozen=True)
class Gain:
    """Which share of the latency is won without several parts, if what single ones win adds up.

    Attributes:
        most: By the lower ends of the intervals.
    """

    won: float
    most: float

    @property
    def is_nothing(self) -> bool:
        """Whether it is certainly too little."""
        return max(self.won, self.most) < LEAST_WON

    def __str__(self) -> str:
        if self.won < LEAST_WON:
            return f"nothing that noise does not hide, at most {_percent(self.most)},"
        return _percent(self.won)


@dataclass(frozen=True)
class Proposed(Generic[Kind]):
    """A group, and why it is as it is.

    Attributes:
        gain: What the end of its range wins.
    """

    group: Kind
    why: str
    gain: Gain


@dataclass(frozen=True)
class LeftOut:
    """Parts that are in no group, by their names, and why."""

    names: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Proposal:
    """The groups of an experiment, by their labels, and what is left out of it."""

    groups: Mapping[str, Proposed[PrunerGroup] | Proposed[BlockGroup]]
    left_out: Sequence[LeftOut]


class _Sensitivity:
    """What parts cost and save, at any share of them.

    Attributes:
        knows: Loss of a guess less the network's, nats: all that it can lose before it does no better.
    """

    def __init__(self, measured: Measured, num_classes: int) -> None:
        self.measured = measured
        self.knows = max(log(num_classes) - measured.unpruned.loss, NOISE)

    def lost(self, part: Part, share: float) -> float:
        """Return which share of what it knows the network loses without a share of a part; never less for more."""
        shares, lost = [0.0], [0.0]
        for removal in self._of(part):
            shares.append(removal.share)
            lost.append(max(lost[-1], self.measured.lost(removal) / self.knows))
        return float(np.interp(share, shares, lost))

    def won(self, part: Part, share: float) -> float:
        """Return which share of the latency is won without a share of a part: not more than its layers take."""
        shares = [0.0, *(removal.share for removal in self._of(part))]
        won = [0.0, *(1 - removal.cost.ratio.ratio for removal in self._of(part))]
        return min(self._there_is(part, share), float(np.interp(share, shares, won)))

    def may_win(self, part: Part, share: float) -> float:
        """Return which share of the latency is won at most, by the lower end of the interval."""
        shares = [0.0, *(removal.share for removal in self._of(part))]
        won = [0.0, *(1 - removal.cost.ratio.low for removal in self._of(part))]
        return min(self._there_is(part, share), float(np.interp(share, shares, won)))

    def gain(self, parts: Sequence[Part], share: float) -> Gain:
        """Return which share of the latency is won without a share of each of these parts."""
        won, most = (sum(one(part, share) for part in parts) for one in (self.won, self.may_win))
        table = self.measured.table
        there_is = sum(row.share for row in table if any(part.has(row.name) for part in parts)) if table else inf
        return Gain(min(won, there_is), min(most, there_is))

    def end(self, sets: Sequence[Part]) -> float:
        """Return which share of each of these sets may go until the network would only guess, a multiple of STEP."""

        def lost(share: float) -> float:
            return sum(self.lost(part, share) for part in sets)

        if lost(SHARES[-1]) <= 0.5:
            return FURTHEST
        steps = [round(STEP * n, 2) for n in range(1, round(SHARES[-1] / STEP) + 1)]
        return max((share for share in steps if lost(share) <= 1), default=0.0)

    def at_half(self, part: Part) -> float:
        """Return what the network loses without half of a set, of no less than noise."""
        return max(self.lost(part, 0.5), NOISE)

    def loss(self, block: Part) -> float:
        """Return the loss without a block, nats."""
        return self._of(block)[0].effect.loss

    def _there_is(self, part: Part, share: float) -> float:
        """Return the share of the device time that a share of a part's layers takes; what is won is no more."""
        table = self.measured.table
        return share * part.time_share(table) if table else inf

    def _of(self, part: Part) -> Sequence[Removal]:
        return self.measured.removals[part.name]


def propose(measured: Measured, num_classes: int) -> Proposal:
    """Return the groups of an experiment on a network.

    Args:
        num_classes: Of which a network that knows nothing guesses one.
    """
    sensitivity = _Sensitivity(measured, num_classes)
    left_out = [LeftOut((part.name,), part.problem) for part in measured.parts if part.problem]
    free = [part for part in measured.parts if not part.problem]
    blocks = dict(_block_groups([part for part in free if part.kind == "block"], sensitivity, left_out))
    most = max(ROLES, MOST - len(blocks))
    sets = dict(_set_groups([part for part in free if part.kind == "set"], sensitivity, most, left_out))
    return Proposal({**sets, **blocks}, left_out)


def _set_groups(
    sets: Sequence[Part], sensitivity: _Sensitivity, most: int, left_out: list[LeftOut]
) -> Iterator[tuple[str, Proposed[PrunerGroup]]]:
    """Yield the groups of sets, and note what is in none."""
    kept = []
    for run in runs([(part.role, part.place, part) for part in sets], len(sets)):
        sturdy, fragile = _parted(run.members, lambda part: sensitivity.end([part]) >= LEAST_END)
        if fragile:
            left_out.append(LeftOut(_names(fragile), _too_sensitive(fragile, sensitivity)))
        gains = [sensitivity.gain([part], sensitivity.end([part])) for part in sturdy]
        gain = Gain(sum(one.won for one in gains), sum(one.most for one in gains))
        if sturdy and gain.is_nothing:
            left_out.append(LeftOut(_names(sturdy), _saves_nothing(gain)))
        elif sturdy:
            kept += [(part.role, part.place, part) for part in sturdy]
    for label, members in _cut(runs(kept, most), sensitivity, most):
        end = sensitivity.end(members)
        if end < LEAST_END:
            left_out.append(
                LeftOut(
                    _names(members),
                    f"too sensitive together: without {LEAST_END:g} of each, what the network knows would be lost.",
                )
            )
            continue
        gain = sensitivity.gain(members, end)
        if gain.is_nothing:
            left_out.append(LeftOut(_names(members), _saves_nothing(gain)))
            continue
        group = PrunerGroup(
            "filters", [weight for part in members for weight in part.weights], sparsity=Uniform(0.0, end)
        )
        yield label, Proposed(group, _why_sets(members, end, gain, sensitivity), gain)


def _cut(found: Sequence[Run[Part]], sensitivity: _Sensitivity, most: int) -> Iterator[tuple[str, Sequence[Part]]]:
    """Yield runs of sets under their labels, cut where sensitivity differs most, as long as there is room.

    Of a run that is cut, the least sensitive sets come first.
    """
    cut = {run.label: [list(run.members)] for run in found}
    while sum(map(len, cut.values())) < most:
        places = [
            (_contrast(members, sensitivity), label, n) for label, its in cut.items() for n, members in enumerate(its)
        ]
        (contrast, size), label, n = max(places, default=((0.0, 0), "", 0))
        if contrast < DIFFERS:
            break
        ascending = sorted(cut[label][n], key=sensitivity.at_half)
        cut[label][n : n + 1] = [ascending[:size], ascending[size:]]
    for label, its in cut.items():
        for number, members in enumerate(its, start=1):
            yield (label if len(its) == 1 else f"{label}_{number}"), members


def _contrast(members: Sequence[Part], sensitivity: _Sensitivity) -> tuple[float, int]:
    """Return how many times as sensitive those behind the widest gap are, and how many there are before it."""
    values = sorted(map(sensitivity.at_half, members))
    if len(values) < 2:
        return 0.0, 0
    gap = max(range(1, len(values)), key=lambda n: values[n] / values[n - 1])
    return float(np.mean(values[gap:]) / np.mean(values[:gap])), gap


def _block_groups(
    blocks: Sequence[Part], sensitivity: _Sensitivity, left_out: list[LeftOut]
) -> Iterator[tuple[str, Proposed[BlockGroup]]]:
    """Yield a group for the blocks of each stage, those with inputs of one shape, and note what is in none."""
    stages: dict[tuple[int, int], list[Part]] = {}
    for block in blocks:
        stages.setdefault((block.width, block.place), []).append(block)
    for (channels, height), members in stages.items():
        sturdy, fragile = _parted(members, lambda block: sensitivity.lost(block, 1.0) <= 1)
        if fragile:
            left_out.append(LeftOut(_names(fragile), _too_sensitive(fragile, sensitivity)))
        order = sorted(sturdy, key=sensitivity.loss)
        lost = list(accumulate(sensitivity.lost(block, 1.0) for block in order))
        most = min(sum(one <= 1 for one in lost), len(order) - least_blocks(len(order)))
        gain = sensitivity.gain(order[:most], 1.0)
        if sturdy and gain.is_nothing:
            left_out.append(LeftOut(_names(sturdy), _saves_nothing(gain)))
        elif sturdy:
            names = _names(order)
            group = BlockGroup(
                sorted(names, key=_names(members).index), keep=Integer(len(order) - most, len(order)), order=names
            )
            each = _percents(sensitivity.lost(block, 1.0) for block in order)
            why = (
                f"{counted(len(order), 'block')} with an input of {channels} channels, {counted(height, 'pixel')} "
                f"high; without one, {each} of what the network knows is lost, first {names[0]}. Without the first "
                f"{most}, {_percent(lost[most - 1])}, if these add up, and "
                f"{gain} of the latency."
            )
            yield f"blocks_{channels}x{height}", Proposed(group, why, gain)


def _why_sets(members: Sequence[Part], end: float, gain: Gain, sensitivity: _Sensitivity) -> str:
    what = {
        "stream": "what layers add to each other and every block reads",
        "inner": "what one layer puts out",
        "pooled": "what has one value a channel, as after a pooling of whole maps, such as in a gate",
        "linear": "what linear layers put out",
    }
    lost = sum(sensitivity.lost(part, end) for part in members)
    tried = "" if end <= SHARES[-1] else f" (more than {SHARES[-1]:g} was not tried)"
    return (
        f"{what[members[0].role]}, {counted(len(members), 'set')}; without half of one, "
        f"{_percents(sensitivity.lost(part, 0.5) for part in members)} of what the network knows is lost. At the end "
        f"of the range{tried}, {_percent(lost)}, if these add up, and {gain} of the latency."
    )


def _too_sensitive(parts: Sequence[Part], sensitivity: _Sensitivity) -> str:
    share = parts[0].shares[0]
    lost = _percents(sensitivity.lost(part, share) for part in parts)
    what = "one" if parts[0].kind == "block" else f"{share:g} of one"
    return f"too sensitive: without {what}, {lost} of what the network knows is lost, and nothing is retrained here."


def _saves_nothing(gain: Gain) -> str:
    return f"saves nothing: at most {_percent(max(gain.won, gain.most, 0.0))} of the latency."


def _parted(parts: Iterable[Part], is_first: Callable[[Part], bool]) -> tuple[list[Part], list[Part]]:
    first: list[Part] = []
    second: list[Part] = []
    for part in parts:
        (first if is_first(part) else second).append(part)
    return first, second


def _names(parts: Iterable[Part]) -> tuple[str, ...]:
    return tuple(part.name for part in parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percents(shares: Iterable[float]) -> str:
    """Return the least and the greatest."""
    values = sorted(shares)
    return " to ".join(dict.fromkeys((_percent(values[0]), _percent(values[-1]))))


def left_out_text(left_out: LeftOut) -> str:
    """Return a sentence on what is left out."""
    names = left_out.names
    return f"{listed(names, most=6)} {verb(len(names), 'is', 'are')} left out: {left_out.why}"
