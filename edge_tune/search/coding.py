"""Points as numbers, many at a time: in a unit cube, as what a surrogate looks at, and as what layers cost.

A *column* holds one parameter of many points: its numbers, or the places of its texts in their list. One more,
AS_ASKED, may tell which networks keep just as much as is asked, as baselines do, whatever kept counts are aligned to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edge_tune.experiment import Experiment
from edge_tune.parameters import Parameter, Point
from edge_tune.records.results import Record
from edge_tune.records.shapes import LayerShape, NetworkShape, Width

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Floats]

AS_ASKED = "as asked"

Importances = Callable[[str, str, str], Mapping[str, Floats]]
"""Label of a group of weights, its structure, its criterion -> name of each of its layers -> the importance of each
slice, [slices]; none where nobody knows."""

Curves = Mapping[str, Floats]
"""Name of a layer -> what is left of its importance with none, one, ... of its slices, [slices + 1], from 0 to 1."""

STEPS = (1, 8, 16)
"""Widths in whose multiples the time of a layer may rise."""


@dataclass(frozen=True)
class Costs:
    """What pruned networks cost, as far as their widths tell, each relative to the unpruned network or layer.

    Attributes:
        terms: [points, kinds of layers, 1 + len(STEPS)]: how many layers of a kind there are, then the sum of their
            widths' products, rounded up to multiples of each step.
        macs: [points], of the unpruned network's.
        parameters: [points], of the unpruned network's.
        shares: [points, size parameters]: what stays of each group.
    """

    terms: Floats
    macs: Floats
    parameters: Floats
    shares: Floats


class Coding:
    """The numbers that the points of one experiment stand for.

    Args:
        shape: The layers of the network; None if nobody knows them.
    """

    def __init__(self, experiment: Experiment, parameters: Mapping[str, Parameter], shape: NetworkShape | None) -> None:
        self.experiment, self.parameters, self.shape = experiment, parameters, shape
        self.searched = {name: one for name, one in parameters.items() if not one.is_fixed}
        self.sizes = [name for name in self.searched if name.endswith((".sparsity", ".keep"))]
        self.kinds = list(dict.fromkeys(layer.kind for layer in shape.layers)) if shape else []

    def columns(self, points: Sequence[Point], as_asked: Sequence[bool]) -> Columns:
        """Return points as columns."""
        return {
            AS_ASKED: np.array(as_asked, dtype=np.float64),
            **{
                name: np.array([_number(parameter, point[name]) for point in points], dtype=np.float64)
                for name, parameter in self.parameters.items()
            },
        }

    def from_units(self, units: Floats) -> Columns:
        """Return the columns of points of the unit cube, [points, searched parameters]."""
        found = {name: np.full(len(units), _number(one, one.default)) for name, one in self.parameters.items()}
        for place, (name, parameter) in enumerate(self.searched.items()):
            found[name] = _from_unit(parameter, units[:, place])
        return found

    def units(self, columns: Columns) -> Floats:
        """Return places in the unit cube, [points, searched parameters]: of a value among others, the middle of it.

        A number outside of its range lies outside of the cube, and one that is not listed where the nearest one is.
        """
        return np.column_stack([_unit(parameter, columns[name]) for name, parameter in self.searched.items()])

    def point(self, columns: Columns, row: int) -> Point:
        """Return one point of its columns."""
        point = {}
        for name, parameter in self.parameters.items():
            number = float(columns[name][row])
            values = parameter.values
            point[name] = number if values is None else values[int(number)] if parameter.limits is None else number
            point[name] = parameter.taken(point[name])
        return point

    def inputs(self, columns: Columns) -> Floats:
        """Return what a surrogate looks at, from 0 to 1: what really stays, other numbers on their axes, texts."""
        found = []
        for name, parameter in self.searched.items():
            if name in self.sizes:
                found.append(self._share(name, columns))
            elif parameter.limits is None:
                texts = range(len(parameter.values or ()))
                found += [np.asarray(columns[name] == text, dtype=np.float64) for text in texts]
            else:
                found.append(_unit(parameter, columns[name]))
        return np.column_stack(found)

    def trends(self, costs: Costs) -> Floats:
        """Return what a network loses more the greater it is, by size parameter, [points, size parameters].

        That is the share that goes of a group: of filters its third power, of blocks its square.
        """
        return np.asarray((1 - costs.shares) ** np.array([2 if name.endswith(".keep") else 3 for name in self.sizes]))

    def costs(self, columns: Columns) -> Costs:
        """Return what the networks of points cost."""
        count = len(next(iter(columns.values())))
        terms = np.zeros((count, len(self.kinds), 1 + len(STEPS)))
        macs = parameters = np.zeros(count)
        layers = self.shape.layers if self.shape else ()
        for layer in layers:
            stays = self._stays(layer.name, columns)
            outputs, inputs = self._kept(layer.outputs, columns), self._kept(layer.inputs, columns)
            products = [
                stays * _up(outputs, step) * _up(inputs, step) / (layer.outputs.slices * layer.inputs.slices)
                for step in STEPS
            ]
            terms[:, self.kinds.index(layer.kind)] += np.column_stack([stays, *products])
            macs, parameters = macs + layer.macs * products[0], parameters + layer.parameters * products[0]
        shares = [self._share(name, columns) for name in self.sizes]
        return Costs(
            terms,
            macs / (sum(layer.macs for layer in layers) or 1),
            parameters / (sum(layer.parameters for layer in layers) or 1),
            np.column_stack(shares) if shares else np.ones((count, 0)),
        )

    def worth(self, columns: Columns, curves: Curves, factors: Mapping[str, float]) -> Floats:
        """Return what networks are worth before anything is trained, [points].

        Each layer that slices go from counts 1 - (the share of its importance that goes)^2, and the blocks of a group,
        each 1 - (the share of them that goes)^2: one that goes leaves its shortcut, so that a few cost little.

        Args:
            curves: Of the layers that lose slices of their own; without a curve, all slices are as important.
            factors: Size parameter -> how much the layers or blocks count of which it decides.
        """
        found = np.zeros(len(next(iter(columns.values()))))
        for layer in self.shape.layers if self.shape else ():
            left = np.ones(len(found))
            for width in self._own_widths.get(layer.name, ()):  # only one side of a layer loses slices of its own
                curve = curves.get(layer.name, np.zeros(0))
                curve = curve if len(curve) == width.slices + 1 else np.linspace(0, 1, width.slices + 1)
                left = np.minimum(left, curve[self._kept(width, columns).astype(int)])
            for label, cut in self._cut_layers.items():
                if any(its is layer for its, _ in cut):
                    found = found + factors.get(f"{label}.sparsity", 1.0) * (1 - (1 - left) ** 2)
        for name in self.sizes:
            if name.endswith(".keep"):
                group = self.experiment.block_groups.get(name.removesuffix(".keep"))
                blocks = len(group.blocks) if group else 1
                found = found + factors[name] * blocks * (1 - (1 - self._share(name, columns)) ** 2)
        return found

    def counters(self, record: Record) -> Floats:
        """Return the time of each kind of layers in a record, then that of all else, summing to its latency_ratio."""
        found = np.zeros(len(self.kinds) + 1)
        places = {layer.name: self.kinds.index(layer.kind) for layer in self.shape.layers} if self.shape else {}
        for row in record.layers:
            found[places.get(row.name, -1)] += row.ms
        total = found.sum()
        return found * (record.metrics["latency_ratio"] / total) if total else found

    def _share(self, name: str, columns: Columns) -> Floats:
        """Return what stays of a group: of its blocks; or of each of its weights that stay, on average."""
        label, _, what = name.rpartition(".")
        if what == "keep":
            most = self.experiment.block_groups[label].blocks if label in self.experiment.block_groups else ()
            return columns[name] / (len(most) or max(1.0, (self.parameters[name].limits or (0, 1))[1]))
        layers = self._cut_layers.get(label, ())
        if not layers:
            return 1 - columns[name]
        stays = np.array([self._stays(layer.name, columns) for layer, _ in layers])
        kept = np.array([self._kept(width, columns) / width.slices for _, width in layers])
        return np.asarray((stays * kept).sum(axis=0) / np.maximum(1, stays.sum(axis=0)))

    def curves(self, point: Point, importances: Importances) -> Curves:
        """Return the curves of the layers that the groups cut, by the structures and criteria that a point has."""
        found = {}
        for label in self.experiment.pruners:
            own = importances(label, str(point[f"{label}.structure"]), str(point[f"{label}.importance"]))
            for layer, its in own.items():
                summed = np.concatenate([[0.0], np.cumsum(np.sort(np.maximum(its, 0.0))[::-1])])
                if summed[-1] > 0:
                    found[layer] = summed / summed[-1]
        return found

    @cached_property
    def _own_widths(self) -> Mapping[str, list[Width]]:
        """Name of a layer that loses slices of its own -> the sides on which it may."""
        found: dict[str, list[Width]] = {}
        for layer, width in (one for cut in self._cut_layers.values() for one in cut):
            found.setdefault(layer.name, []).append(width)
        return found

    @cached_property
    def _cut_layers(self) -> Mapping[str, list[tuple[LayerShape, Width]]]:
        """Label -> the layers whose channels the group removes, and on which side."""
        found: dict[str, list[tuple[LayerShape, Width]]] = {}
        for layer in self.shape.layers if self.shape else ():
            for kind, width in (("out", layer.outputs), ("in", layer.inputs)):
                for label, its in width.cuts:
                    if its == kind and f"{layer.name}.weight" in self.experiment.pruners[label].weights:
                        found.setdefault(label, []).append((layer, width))
        return found

    def _stays(self, layer: str, columns: Columns) -> Floats:
        """Return 1 where a layer's block stays and 0 where it does not."""
        found = np.ones(len(next(iter(columns.values()))))
        for label, group in self.experiment.block_groups.items():
            order = list(group.order or group.blocks)
            for block in order:
                if f"{layer}.".startswith(f"{block}."):
                    found = found * (columns[f"{label}.keep"] >= len(order) - order.index(block))
        return found

    def _kept(self, width: Width, columns: Columns) -> Floats:
        """Return how many channels stay on a side of a layer."""
        kept = np.full(len(next(iter(columns.values()))), float(width.slices))
        for label, kind in width.cuts:
            sparsity = columns[f"{label}.sparsity"]
            asked = kept_counts(sparsity, width.slices, self.shape.granularity if self.shape else 1)
            if AS_ASKED in columns:
                asked = np.where(columns[AS_ASKED], kept_counts(sparsity, width.slices), asked)
            kept = np.where(self._removes(label, kind, columns), np.minimum(kept, asked), kept)
        return kept

    def _removes(self, label: str, kind: str, columns: Columns) -> npt.NDArray[np.bool_]:
        """Tell where a group removes channels of this kind."""
        structures = self.experiment.pruners[label].structures
        are_so = np.array([self.shape is not None and self.shape.kinds[name] == kind for name in structures])
        return np.asarray(are_so[columns[f"{label}.structure"].astype(int)])


def kept_counts(sparsity: Floats, slices: int, granularity: int = 1) -> Floats:
    """Return how many of `slices` stay at each sparsity, as `pruning.kept_count` does for one."""
    kept = np.maximum(1, slices - np.floor(sparsity * slices + 1e-9))
    narrower = kept // granularity * granularity
    wider = np.minimum(slices, narrower + granularity)
    return np.asarray(np.where((narrower > 0) & (kept - narrower < wider - kept), narrower, wider))


def _up(counts: Floats, step: int) -> Floats:
    return np.asarray(np.ceil(counts / step) * step)


def _number(parameter: Parameter, value: float | int | str) -> float:
    """Return a value as a number: of texts, its place."""
    if parameter.limits is None:
        return float((parameter.values or ()).index(value))
    return float(value)


def _from_unit(parameter: Parameter, units: Floats) -> Floats:
    if (values := parameter.values) is not None:
        places = np.minimum((units * len(values)).astype(int), len(values) - 1)
        return np.asarray(places if parameter.limits is None else np.array(values)[places], dtype=np.float64)
    low, high = parameter.limits or (0.0, 1.0)
    if parameter.axis and parameter.axis.is_logarithmic:
        return np.clip(low * (high / low) ** units, low, high)
    return np.clip(low + (high - low) * units, low, high)


def _unit(parameter: Parameter, numbers: Floats) -> Floats:
    if (values := parameter.values) is not None:
        listed = np.arange(len(values)) if parameter.limits is None else np.array(values, dtype=np.float64)
        return np.asarray((np.abs(numbers[:, None] - listed).argmin(axis=1) + 0.5) / len(listed))
    low, high = parameter.limits or (0.0, 1.0)
    if parameter.axis and parameter.axis.is_logarithmic:
        return np.asarray(np.log(numbers / low) / np.log(high / low))
    return np.asarray((numbers - low) / (high - low))
