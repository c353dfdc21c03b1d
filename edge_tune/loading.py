"""An experiment from its file, and as plain JSON beside the results."""

import dataclasses
import difflib
import io
import re
import runpy
import sys
import tokenize
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_tune.errors import ExperimentError
from edge_tune.experiment import NAME, NAME_RULE, Experiment
from edge_tune.objective import Maximise, Minimise, Objective
from edge_tune.objective_text import parse
from edge_tune.parameters import Parameter, from_json

URL = re.compile(r"^(https?://)(?:[^/?#]*@)?([^?#]*).*$", re.IGNORECASE | re.DOTALL)
"""A URL as what is known to everybody, around what may be a secret: a user with a password, and a query."""


IsWanted = Callable[[dataclasses.Field[Any], object], bool]


def load_experiment(path: Path) -> Experiment:
    """Run an experiment file and return its `experiment`.

    Raises:
        ExperimentError: The file is missing, does not run, or holds no valid experiment. A
            failure inside the file names its line.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise ExperimentError(f"{path}: an experiment must be a file that can be read, but got {error}.") from error
    if not is_file:
        raise ExperimentError(f"{path}: an experiment must be a Python file, but there is none; see experiments/.")
    if not NAME.fullmatch(path.stem):
        raise ExperimentError(
            f"{path}: the file's name becomes the study's name and {NAME_RULE}, but got {path.stem!r}; rename the file."
        )
    try:
        names: dict[str, Any] = runpy.run_path(str(path))
    except ExperimentError as error:
        raise ExperimentError(*(f"{path}: {problem}" for problem in error.problems)) from error
    except SystemExit as error:
        raise ExperimentError(
            f"{_place(error, path)}: must define `experiment` and come to its end, but calls exit; remove the call."
        ) from error
    except Exception as error:
        first_line = str(error).partition("\n")[0].removesuffix(".")
        what = f"{type(error).__name__}: {first_line}{_hint(error)}"
        raise ExperimentError(f"{_place(error, path)}: {what}.") from error
    experiment = names.get("experiment")
    if not isinstance(experiment, Experiment):
        raise ExperimentError(
            f"{path}: must define `experiment = et.Experiment(...)`, but got "
            f"{'no such name' if experiment is None else repr(experiment)}."
        )
    return experiment


def without_secrets(source: str) -> str:
    """Return a URL as it may be written down: without the query, which may be a signature, and without a user."""
    return URL.sub(r"\1\2", source)


def as_text(source: bytes) -> str:
    """Return the text of a Python file, in the encoding that its first lines name, if that is one."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    except SyntaxError:
        encoding = "utf-8"
    return source.decode(encoding, errors="replace")


def as_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as plain JSON types, with the class of each part beside its fields."""
    return _written(experiment, lambda *_: True)


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return what must not change between the sessions of a study: every field that is not marked with MAY_CHANGE.

    What is ADDED and has its default is left out, so that a study goes on that was recorded without it.
    """
    normal = dataclasses.replace(experiment, dataset=experiment.data)
    found = _written(normal, _is_identity)
    del found["type"]
    return found


def left_out(kind: type) -> dict[str, Any]:
    """Return the fields of a part of an experiment that its identity lacks where they have these values, as JSON."""
    return {field.name: field.default for field in dataclasses.fields(kind) if "added" in field.metadata}


def _is_identity(field: dataclasses.Field[Any], value: object) -> bool:
    is_as_before = "added" in field.metadata and value == field.default
    return not (is_as_before or "may_change" in field.metadata)


def without_ranges(plain: Any) -> Any:
    """Return settings as JSON with a word in place of each range: a point says which value it has."""
    if from_json(plain) is not None:
        return "searched"
    if isinstance(plain, Mapping):
        return {key: without_ranges(value) for key, value in plain.items()}
    return [without_ranges(value) for value in plain] if isinstance(plain, list) else plain


def parameters_as_json(experiment: Experiment) -> dict[str, Any]:
    """Return the search space as plain JSON types: name -> the class and the fields of each parameter."""
    return {name: parameter_as_json(parameter) for name, parameter in experiment.parameters.items()}


def parameter_as_json(parameter: Parameter) -> dict[str, Any]:
    """Return the class and the fields of a parameter as plain JSON types."""
    plain: dict[str, Any] = _plain(parameter, lambda *_: True)
    return plain


def objective_from_json(plain: object) -> Objective:
    """Return the objective of the target that `as_json` wrote.

    Raises:
        ExperimentError: It is none.
    """
    match plain:
        case {"type": "Minimise", "metric": str(metric)}:
            return Objective.of(Minimise(metric))
        case {"type": "Maximise", "metric": str(metric)}:
            return Objective.of(Maximise(metric))
        case str(text):
            return parse(text)
    raise ExperimentError(
        f"a stored target must be a Minimise or Maximise of a metric, or an objective as text, but got {plain!r}."
    )


def _written(experiment: Experiment, is_wanted: IsWanted) -> dict[str, Any]:
    plain = _plain(experiment, is_wanted)
    assert isinstance(plain, dict)
    if experiment.weights:
        plain["weights"] = without_secrets(experiment.weights)
    return plain


def _plain(value: Any, is_wanted: IsWanted) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        wanted = {field.name: _plain(its, is_wanted) for field, its in values.items() if is_wanted(field, its)}
        return {"type": type(value).__name__, **wanted}
    if isinstance(value, Mapping):
        return {key: _plain(item, is_wanted) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, is_wanted) for item in value]
    return value


def _hint(error: Exception) -> str:
    """Return the name that was probably meant where one is unknown: et.Minimize, et.PruneGroup."""
    if not isinstance(error, AttributeError) or error.name is None:
        return ""
    close = difflib.get_close_matches(error.name, dir(error.obj), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _place(error: BaseException, path: Path) -> str:
    """Return the file, and the line of it that failed if one did."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(sys.exc_info()[2]) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines and lines[-1] else str(path)
