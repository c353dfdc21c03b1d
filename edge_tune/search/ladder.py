"""Plans for a ladder of latencies before anything is trained: what stays is what matters most for the time there is.

A multiple-choice knapsack: each group chooses one of its sizes, so that what stays is worth as much as it can be while
the predicted time keeps to a bound. Blocks are the choice of width 0: one that goes takes the worth of its layers with
it. What a layer is worth falls with the square of the share of its importance that goes, so that a little of several
layers goes before much of one. How much one group matters beside another is not known before anything is trained, so
each plan weighs them by other factors, which are drawn.

The time of a group depends on what the others keep. So each choice is priced beside the plan found so far, and the
knapsack is filled again, a few times.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_tune.parameters import Parameter
from edge_tune.search.coding import Coding, Columns, Costs, Floats, Importances

MATTERS = 3.0
"""A group counts as up to so many times as much as it does by itself, or as so much less."""

BINS = 1000
"""The time of a plan is counted in so many parts of the bound."""

LEVELS = 25
"""So many sparsities of a range are looked at."""

ROUNDS = 6
"""So often the choices are priced anew at most."""


def rung(number: int) -> float:
    """Return the place of a rung, counted from 0, between the ends of a ladder: 1/2, 1/4, 3/4, 1/8, 5/8, ..."""
    place, step, number = 0.0, 0.5, number + 1
    while number:
        place += step * (number % 2)
        number, step = number // 2, step / 2
    return place


@dataclass(frozen=True)
class Ladder:
    """Plans for given times.

    Attributes:
        importances: What tells how important the slices of layers are.
        time: Costs of networks -> the time of each, as a share of the unpruned network's.
        most: The time of the slowest plan that is wanted, in the same.
    """

    coding: Coding
    importances: Importances
    time: Callable[[Costs], Floats]
    most: float = 1.0

    def plan(self, drawn: Columns, place: float) -> Columns:
        """Return the columns of a point whose sizes the knapsack chose; all else is as it was drawn.

        What was drawn for a size says how much the group matters in this plan.

        Args:
            drawn: The columns of one point.
            place: Of the plan's time, from 0, the fastest network that the ranges allow, to 1, the slowest.
        """
        coding = self.coding
        choices = {name: _choices(coding.parameters[name]) for name in coding.sizes}
        curves = coding.curves(coding.point(drawn, 0), self.importances)
        units = dict(zip(coding.searched, coding.units(drawn)[0], strict=True))
        factors = {name: MATTERS ** (2 * float(units[name]) - 1) for name in coding.sizes}
        ends = {name: np.sort(its if name.endswith(".keep") else -its)[[0, -1]] for name, its in choices.items()}
        fastest, widest = ({**drawn, **{name: np.abs(its[[end]]) for name, its in ends.items()}} for end in (0, -1))
        low, high = (float(self.time(coding.costs(one))[0]) for one in (fastest, widest))
        bound = low + place * max(0.0, min(high, self.most) - low)
        found = best = fastest
        most = -math.inf
        for _ in range(ROUNDS):
            own = float(self.time(coding.costs(found))[0])
            rows = [_with(found, name, its) for name, its in choices.items()]
            times = [self.time(coding.costs(one)) - own for one in rows]
            taken = fill(times, [coding.worth(one, curves, factors) for one in rows], bound - own)
            chosen = zip(choices.items(), taken, strict=True)
            found = {**found, **{name: its[[row]] for (name, its), row in chosen}}
            worth = float(coding.worth(found, curves, factors)[0])
            if self.time(coding.costs(found))[0] <= bound * (1 + 1 / BINS) and worth > most:
                best, most = found, worth
        return best


def fill(times: Sequence[Floats], worth: Sequence[Floats], bound: float) -> list[int]:
    """Return the place of the choice of each class that are worth most together while their times keep to a bound.

    Where no choices keep it, those of the least time.

    Args:
        times, worth: Of each class, [choices].

    Source: Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, section 11.5, dynamic programming over times.
    """
    least = [float(its.min()) for its in times]
    room = bound - sum(least)
    if room < 0:
        return [int(its.argmin()) for its in times]
    size = room / BINS or 1.0
    reached, chosen = np.zeros(BINS + 1), []
    for its, low, gains in zip(times, least, worth, strict=True):
        needs = np.ceil((its - low) / size - 1e-9)
        table = np.full((len(its), BINS + 1), -np.inf)
        for row, (need, gain) in enumerate(zip(needs, gains, strict=True)):
            if need <= BINS:
                table[row, int(need) :] = reached[: BINS + 1 - int(need)] + gain
        choice = table.argmax(axis=0)
        chosen.append((choice, needs))
        reached = table[choice, np.arange(BINS + 1)]
    places: list[int] = []
    left = BINS
    for choice, needs in reversed(chosen):
        places.append(int(choice[left]))
        left -= int(needs[places[-1]])
    return places[::-1]


def _choices(parameter: Parameter) -> Floats:
    """Return the sizes that a group may choose from."""
    low, high = parameter.limits or (0.0, 1.0)
    values = np.linspace(low, high, LEVELS) if parameter.values is None else parameter.values
    return np.asarray(values, dtype=np.float64)


def _with(columns: Columns, name: str, values: Floats) -> Columns:
    """Return the columns of one point once for each value of one of its parameters."""
    return {**{one: np.repeat(column, len(values)) for one, column in columns.items()}, name: values}
