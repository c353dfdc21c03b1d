"""The parameters of a W&B sweep: each a range for a pruner, or a setting of the retraining."""

import math
import re
from collections.abc import Collection, Iterator

from edge_tune.convert.command import KINDS, Setting
from edge_tune.convert.reading import Entry, number
from edge_tune.errors import ExperimentError
from edge_tune.parameters import Choice, Uniform

Range = Uniform | Choice

LIMIT = 0.99
"""No range goes further: of a sparsity of 1 nothing would be left."""

SETTING_WORDS = {
    **{name.replace("_", ""): name for name in KINDS},
    **{"learningrate": "lr", "batch": "batch_size", "b": "batch_size", "wd": "weight_decay", "model": "arch"},
}


def read_parameters(
    sweep: Entry, labels: Collection[str], method: str, notes: list[str]
) -> tuple[dict[str, Range], dict[str, Setting]]:
    """Return the range of each pruner group of `labels`, and each setting, that a parameter names.

    Raises:
        ExperimentError: No parameter names a pruner group.
    """
    ranges: dict[str, Range] = {}
    settings: dict[str, Setting] = {}
    parameters = list(_flat(sweep))
    for name, inner, parameter in parameters:
        found = _named(labels, name) or _named(labels, inner)
        setting = SETTING_WORDS.get(letters(name.rpartition(".")[2]))
        if len(found) == 1 and found[0] not in ranges:
            if read := _read_range(name, parameter, method, notes):
                ranges[found[0]] = read
        elif found:
            notes.append(
                f"{parameter.place}: parameter {name!r} is not carried over: it must name one pruner of its own, but "
                f"got {found}; rename it."
            )
        elif setting:
            if (value := _fixed(setting, parameter)) is not None:
                settings[setting] = Setting(value, parameter.place)
            else:
                notes.append(
                    f"{parameter.place}: parameter {name!r} is not carried over: EdgeTune searches sparsities only, so "
                    f"it must have one value that is a {setting}; choose one and write it in the file."
                )
        else:
            notes.append(f"{parameter.place}: parameter {name!r} is not carried over: it names none of {list(labels)}.")
    if not ranges:
        raise ExperimentError(
            f"{(sweep.get('parameters') or sweep).place}: parameters must give a range to at least one of the pruners "
            f"{list(labels)}, but got {[name for name, *_ in parameters]}; name a parameter after its pruner."
        )
    return ranges, settings


def letters(name: str) -> str:
    """Return a name without capitals and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _flat(entry: Entry) -> Iterator[tuple[str, str, Entry]]:
    """Yield the name of each parameter, that of a nested one as "outer.inner", its own name, and the parameter."""
    for name, parameter in entry.named("parameters"):
        if parameter.get("parameters"):
            yield from ((f"{name}.{nested}", inner, found) for nested, inner, found in _flat(parameter))
        else:
            yield name, name, parameter


def _named(labels: Collection[str], parameter: str) -> list[str]:
    """Return the pruners that a parameter is named after: exactly, or else nearly."""
    return [label for label in labels if label == parameter] or [label for label in labels if _same(label, parameter)]


def _same(label: str, parameter: str) -> bool:
    """Tell whether a parameter is named after a pruner, with "sparsity" or "pruner" added or left out."""

    def words(name: str) -> str:
        return re.sub(r"desired|sparsity|pruners?", "", letters(name))

    return words(label) == words(parameter) != ""


def _read_range(name: str, parameter: Entry, method: str, notes: list[str]) -> Range | None:
    """Return the sparsities that a parameter offers; None when there is none."""
    value, values, step = parameter.get("value"), parameter.plain("values"), number(parameter.plain("q"))
    distribution = parameter.plain("distribution") or _usual_distribution(parameter)
    if parameter.get("probabilities"):
        notes.append(f"{parameter.place}: probabilities of {name!r} are not carried over: each value is as likely.")
    if value is not None:
        return _choice(name, parameter, [value.value], notes)
    if isinstance(values, list):
        return _choice(name, parameter, values, notes)
    low, high = number(parameter.plain("min")), number(parameter.plain("max"))
    if low is None or high is None or distribution in ("log_uniform", "q_log_uniform", "inv_log_uniform"):
        notes.append(
            f"{parameter.place}: the distribution of {name!r} is not carried over: EdgeTune knows values and "
            f"uniform ranges, but got {distribution!r}; Uniform(0.0, {LIMIT}) is taken, narrow it."
        )
        return Uniform(0.0, LIMIT)
    if method == "grid" and distribution == "q_uniform" and step and step > 0 and (high - low) / step < 1000:
        steps = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        return _choice(name, parameter, [round(count * step, 10) for count in steps], notes)
    if distribution not in (None, "uniform", "int_uniform"):
        notes.append(
            f"{parameter.place}: {distribution} of {name!r} becomes uniform without steps: EdgeTune knows no other, "
            f"and a sparsity becomes a whole number of filters or channels anyway."
        )
    if min(low, high) > LIMIT or max(low, high) < 0:
        notes.append(
            f"{parameter.place}: the range of {name!r} must hold sparsities, fractions from 0 to {LIMIT}, but got "
            f"{parameter.plain('min')} to {parameter.plain('max')}; Uniform(0.0, {LIMIT}) is taken, narrow it."
        )
        return Uniform(0.0, LIMIT)
    if distribution == "int_uniform":
        notes.append(
            f"{parameter.place}: int_uniform of {name!r} becomes uniform: W&B draws whole numbers alone where min and "
            f"max are whole, here {parameter.plain('min')} and {parameter.plain('max')}, and a sparsity is a fraction; "
            f"check the range."
        )
    if not (0 <= low <= high <= LIMIT):
        low, high = sorted((min(max(low, 0.0), LIMIT), min(max(high, 0.0), LIMIT)))
        notes.append(
            f"{parameter.place}: the range of {name!r} must hold 0 <= min <= max <= {LIMIT}, but got "
            f"{parameter.plain('min')} to {parameter.plain('max')}; {low} to {high} is taken, a sparsity is a fraction."
        )
    return Uniform(float(low), float(high))


def _usual_distribution(parameter: Entry) -> str | None:
    """Return what W&B takes for a range without a distribution."""
    ends = [parameter.plain("min"), parameter.plain("max")]
    return "int_uniform" if all(isinstance(end, int) and not isinstance(end, bool) for end in ends) else None


def _choice(name: str, parameter: Entry, given: list[object], notes: list[str]) -> Choice | None:
    numbers = dict.fromkeys(float(found) for value in given if (found := number(value)) is not None)
    values = [value for value in numbers if 0 <= value < 1]
    if not values or len(values) < len(given):
        notes.append(
            f"{parameter.place}: each value of {name!r} must be a sparsity, 0 <= sparsity < 1, and offered once, but "
            f"got {given}; {values} are taken."
        )
    return Choice(values) if values else None


def _fixed(setting: str, parameter: Entry) -> object:
    """Return the only value of a parameter, read as `setting` is; None when there are several or it cannot be read."""
    value, values = parameter.plain("value"), parameter.plain("values")
    only = values[0] if isinstance(values, list) and len(values) == 1 else value
    return None if only is None else KINDS[setting](only)
