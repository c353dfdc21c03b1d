"""What a search may choose: parameters with their ranges, and points, which give each parameter a value.

A new kind of parameter is a new class here, and a case of `from_json`: whatever searches, stores, lists or draws
parameters asks them only for what `Parameter` has.

A parameter is named "PART.NAME" after the part of the experiment that it belongs to, as in "layer_1.sparsity".
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

Value = float | int | str

Point = Mapping[str, Value]
"""One point of a search space: the name of each parameter -> its value."""


@dataclass(frozen=True)
class Bounds:
    """What every value of a parameter must hold.

    Attributes:
        rule: As text, with {} where the value stands: "0 <= {} < 1".
        hold: Tells whether they hold for a number.
    """

    rule: str
    hold: Callable[[float], bool]


@dataclass(frozen=True)
class Axis:
    """An axis of a plot, from `low` to `high`."""

    low: float
    high: float
    is_logarithmic: bool = False


class Parameter(ABC):
    """The values that one parameter may have."""

    @abstractmethod
    def problems(self, name: str, bounds: Bounds) -> Iterator[str]:
        """Yield what is wrong with this range, of a parameter called `name`."""

    @abstractmethod
    def __contains__(self, value: object) -> bool:
        """Tell whether it may have this value."""

    @property
    @abstractmethod
    def values(self) -> Sequence[Value] | None:
        """All its values, ascending where they have an order of their own; None where they cannot be counted."""

    @property
    @abstractmethod
    def default(self) -> Value:
        """What it is where nobody chooses."""

    @abstractmethod
    def draw(self, generator: random.Random) -> Value:
        """Return a value, each as likely as any other in the parameter's own scale."""

    @abstractmethod
    def in_hyperopt(self, name: str, hp: ModuleType) -> object:
        """Return what stands for it in HyperOpt's search space; `hp` is `hyperopt.hp`."""

    def to_hyperopt(self, value: Value) -> Value:
        """Return what HyperOpt writes down for a value."""
        return value

    def from_hyperopt(self, value: float) -> Value:
        """Return the value of what HyperOpt wrote down: `to_hyperopt` backwards."""
        return float(value)

    def taken(self, value: Value) -> Value:
        """Return a value that it may have as it holds it itself, whatever kind of number was given."""
        return value

    @property
    def shown(self) -> str:
        """The range as an experiment file has it."""
        return repr(self)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The least and the greatest of its values; None where they are not numbers."""
        numbers = [value for value in self.values or () if not isinstance(value, str)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.values or ()) else None

    @property
    def axis(self) -> Axis | None:
        """The axis that its values are drawn on, for fractions all from 0 to 1; None where they are not numbers."""
        if self.limits is None:
            return None
        low, high = self.limits
        return Axis(0.0, 1.0) if low >= 0 and 0.5 <= high <= 1 else Axis(low, high)

    @property
    def is_fixed(self) -> bool:
        """Whether it has one value only, so that there is nothing to search."""
        return self.values is not None and len(self.values) == 1

    def middle_and_end(self) -> tuple[Value, Value]:
        """Return a value in the middle and the one at the end, to try what is asked before anything starts."""
        values = self.values
        assert values is not None
        return values[len(values) // 2], values[-1]

    def text(self, value: Value) -> str:
        """Return a value as a line of text shows it."""
        return value if isinstance(value, str) else f"{value:.3g}"


@dataclass(frozen=True)
class Uniform(Parameter):
    """Any number from `low` to `high`.

    Attributes:
        low: The least that may be chosen, in the unit of what is searched.
        high: The greatest, `low` itself for a value that is settled.
    """

    low: float
    high: float

    def problems(self, name: str, bounds: Bounds) -> Iterator[str]:
        """Yield what is wrong with this range."""
        numbers = is_number(self.low) and is_number(self.high)
        if not (numbers and self.low <= self.high and bounds.hold(self.low) and bounds.hold(self.high)):
            yield f"{name} must hold {bounds.rule.format('low <= high')}, but got {self.shown}."

    def __contains__(self, value: object) -> bool:
        """Tell whether it may have this value."""
        return is_number(value) and self.low <= value <= self.high  # type: ignore[operator]

    @property
    def shown(self) -> str:
        """The range as an experiment file has it."""
        return f"{type(self).__name__}({self.low!r}, {self.high!r})"

    def taken(self, value: Value) -> Value:
        """Return it as a float."""
        return float(value)

    @property
    def values(self) -> Sequence[Value] | None:
        """The one value of a range without extent."""
        return (self.low,) if self.low == self.high else None

    @property
    def default(self) -> Value:
        """The least value."""
        return self.low

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return self.low, self.high

    def draw(self, generator: random.Random) -> Value:
        """Return any of the numbers."""
        return generator.uniform(self.low, self.high)

    def in_hyperopt(self, name: str, hp: ModuleType) -> object:
        """Return HyperOpt's uniform distribution."""
        return hp.uniform(name, self.low, self.high)

    def middle_and_end(self) -> tuple[Value, Value]:
        """Return the numbers in the middle and at the end."""
        return (self.low + self.high) / 2, self.high

    def text(self, value: Value) -> str:
        """Return a number with two digits, which are as many as a range from 0 to 1 calls for."""
        return f"{value:.2f}" if self.high - self.low >= 0.1 else super().text(value)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Any number from `low` to `high`, both above 0; each factor as likely as any other.

    Attributes:
        low: The least that may be chosen, above 0.
        high: The greatest.
    """

    def problems(self, name: str, bounds: Bounds) -> Iterator[str]:
        """Yield what is wrong with this range."""
        problems = list(super().problems(name, bounds))
        yield from problems
        if not problems and self.low <= 0:
            yield f"{name} must hold 0 < low <= high, but got {self.shown}; use Uniform for a range from 0."

    @property
    def axis(self) -> Axis:
        """The axis that its values are drawn on, in equal steps for equal factors."""
        return Axis(self.low, self.high, is_logarithmic=True)

    def draw(self, generator: random.Random) -> Value:
        """Return any of the numbers."""
        return self.from_hyperopt(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))

    def in_hyperopt(self, name: str, hp: ModuleType) -> object:
        """Return HyperOpt's log-uniform distribution."""
        return hp.loguniform(name, math.log(self.low), math.log(self.high))

    def from_hyperopt(self, value: float) -> Value:
        """Return a number, within the range in spite of rounding."""
        return min(max(float(value), self.low), self.high)

    def middle_and_end(self) -> tuple[Value, Value]:
        """Return the numbers in the middle, of a logarithmic scale, and at the end."""
        return math.sqrt(self.low * self.high), self.high

    def text(self, value: Value) -> str:
        """Return a number with three digits."""
        return Parameter.text(self, value)


@dataclass(frozen=True)
class Integer(Parameter):
    """Any whole number from `low` to `high`, both included.

    Attributes:
        low: The least that may be chosen.
        high: The greatest.
    """

    low: int
    high: int

    def problems(self, name: str, bounds: Bounds) -> Iterator[str]:
        """Yield what is wrong with this range."""
        whole = is_whole(self.low) and is_whole(self.high)
        if not (whole and self.low <= self.high and bounds.hold(self.low) and bounds.hold(self.high)):
            rule = bounds.rule.format("low <= high")
            yield f"{name} must hold {rule} with whole numbers, but got Integer({self.low!r}, {self.high!r})."

    def __contains__(self, value: object) -> bool:
        """Tell whether it may have this value."""
        return is_whole(value) and self.low <= value <= self.high  # type: ignore[operator]

    def taken(self, value: Value) -> Value:
        """Return it as a whole number."""
        return int(value)

    @property
    def values(self) -> Sequence[Value]:
        """The whole numbers, ascending."""
        return range(self.low, self.high + 1)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return self.low, self.high

    @property
    def shown(self) -> str:
        """The range as an experiment file has it."""
        return f"Integer({self.low!r}, {self.high!r})"

    @property
    def default(self) -> Value:
        """The least value."""
        return self.low

    def draw(self, generator: random.Random) -> Value:
        """Return any of the numbers."""
        return generator.randint(self.low, self.high)

    def in_hyperopt(self, name: str, hp: ModuleType) -> object:
        """Return HyperOpt's distribution of rounded numbers, in which neighbours are alike and ends as likely."""
        return hp.quniform(name, self.low - 0.5, self.high + 0.5, 1)

    def from_hyperopt(self, value: float) -> Value:
        """Return a whole number within the range: HyperOpt writes it as a float, and may round a half out of it."""
        return min(max(int(value), self.low), self.high)

    def text(self, value: Value) -> str:
        """Return all digits."""
        return str(value)


@dataclass(frozen=True)
class Choice(Parameter):
    """One of the listed numbers, or of the listed texts; what `Search("grid")` takes its product over.

    Attributes:
        values: All that may be chosen, each once. Of a baseline that does not say, the first.
    """

    values: Sequence[Value] = ()

    def __post_init__(self) -> None:
        if isinstance(self.values, list):
            object.__setattr__(self, "values", tuple(self.values))

    def problems(self, name: str, bounds: Bounds) -> Iterator[str]:
        """Yield what is wrong with this list of numbers."""
        if not isinstance(self.values, tuple):
            yield f"{name} must be a list of values, but got Choice({self.values!r})."
            return
        if not self.values:
            yield f"{name} must offer at least one value, but got Choice([])."
        for value in self.values:
            if not (is_number(value) and bounds.hold(value)):
                yield f"{name} must hold {bounds.rule.format(name)}, but got {value!r} in Choice."
        if any(value in self.values[:place] for place, value in enumerate(self.values)):
            yield f"{name} must offer each value once, but got Choice({list(self.values)})."

    def __contains__(self, value: object) -> bool:
        """Tell whether it may have this value."""
        is_value = is_number(value) or isinstance(value, str)
        return is_value and isinstance(self.values, tuple) and value in self.values

    def taken(self, value: Value) -> Value:
        """Return the listed value that is equal."""
        return next(one for one in self.values if one == value)

    @property
    def shown(self) -> str:
        """The list as an experiment file has it."""
        return f"Choice({list(self.values)!r})"

    @property
    def default(self) -> Value:
        """The first value."""
        return self.values[0]

    def draw(self, generator: random.Random) -> Value:
        """Return any of the values."""
        return generator.choice(self.values)

    def in_hyperopt(self, name: str, hp: ModuleType) -> object:
        """Return HyperOpt's choice, in which no two values are more alike than others."""
        return hp.choice(name, list(self.values))

    def to_hyperopt(self, value: Value) -> Value:
        """Return the place of a value in the list."""
        return self.values.index(value)

    def from_hyperopt(self, value: float) -> Value:
        """Return the value at a place of the list."""
        return self.values[int(value)]

    def middle_and_end(self) -> tuple[Value, Value]:
        """Return the values in the middle and at the end; of texts, the first, which are not ordered."""
        if self.limits is None:
            return self.default, self.default
        ascending = sorted(self.values)
        return ascending[len(ascending) // 2], ascending[-1]

    def text(self, value: Value) -> str:
        """Return a fraction with two digits at least and all that it has; of "package.module:name", the name."""
        if isinstance(value, float):
            return f"{value:.2f}" if round(value, 2) == value and abs(value) < 1000 else f"{value:g}"
        return str(value).rpartition(":")[2]


def from_json(plain: object) -> Parameter | None:
    """Return the parameter of which the class, as "type", and the fields were written to JSON; None if it is none."""
    match plain:
        case {"type": "Uniform" | "LogUniform" as kind, "low": int() | float() as low, "high": int() | float() as high}:
            return LogUniform(low, high) if kind == "LogUniform" else Uniform(low, high)
        case {"type": "Integer", "low": int() as low, "high": int() as high}:
            return Integer(low, high)
        case {"type": "Choice", "values": [*values]} if values and all(isinstance(one, Value) for one in values):
            return Choice(values)
    return None


def of_part(point: Point, part: str) -> dict[str, Value]:
    """Return what a point says of one part: {"sparsity": 0.5} of {"layer_1.sparsity": 0.5} for "layer_1"."""
    return {name.rpartition(".")[2]: value for name, value in point.items() if name.rpartition(".")[0] == part}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return what to call parameters where there is little room: their parts, if they are of one name otherwise."""
    names = list(names)
    own = {name.rpartition(".")[2] for name in names}
    return {name: name.rpartition(".")[0] if len(own) == 1 else name for name in names}


def column_type(values: Iterable[Value | None]) -> type[Value]:
    """Return the type of a table's column that holds these values of one parameter, as far as they are known."""
    types = {type(value) for value in values if value is not None}
    return str if str in types else float if float in types else int


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number, which a file and every library can hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number."""
    return isinstance(value, int) and is_number(value)
