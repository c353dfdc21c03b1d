"""A search space in HyperOpt's terms, for the methods that are HyperOpt's."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from hyperopt import Domain, hp
from hyperopt.base import spec_from_misc
from hyperopt.fmin import generate_trial

from edge_tune.parameters import Parameter, Point

Document = dict[str, Any]
"""What HyperOpt writes down of a trial."""


class Space:
    """The parameters that have more than one value, and the random numbers that suggestions take."""

    def __init__(self, parameters: Mapping[str, Parameter], seed: int) -> None:
        self.parameters = parameters
        self.searched = {name: one for name, one in parameters.items() if not one.is_fixed}
        space = {name: parameter.in_hyperopt(name, hp) for name, parameter in self.searched.items()}
        self.domain = Domain(lambda values: values, space)
        self._generator = np.random.RandomState(seed)
        self._seeds: list[int] = []

    def seed(self, suggestion: int) -> int:
        """Return the random number of a suggestion, counted from 0."""
        while len(self._seeds) <= suggestion:
            self._seeds.append(self._generator.randint(2**31 - 1))
        return self._seeds[suggestion]

    def document(self, trial: int, point: Point, inactive: Collection[str] = ()) -> Document:
        """Return what HyperOpt would have written down if it had suggested this point.

        Args:
            inactive: Parameters whose values taught nothing: HyperOpt writes none down, as of a branch not taken; nor
                of those whose value is none of the listed ones, since the list was another one before.
        """
        gone = {
            name
            for name, parameter in self.searched.items()
            if parameter.values is not None and point[name] not in parameter
        }
        values = {
            name: 0 if name in gone else parameter.to_hyperopt(point[name]) for name, parameter in self.searched.items()
        }
        document: Document = generate_trial(trial, values)
        for name in gone.union(inactive):
            if name in values:
                document["misc"]["idxs"][name], document["misc"]["vals"][name] = [], []
        return document

    def point(self, document: Document) -> Point:
        """Return the point of what HyperOpt suggested."""
        values = spec_from_misc(document["misc"])
        return {
            name: parameter.from_hyperopt(values[name]) if name in values else parameter.default
            for name, parameter in self.parameters.items()
        }
