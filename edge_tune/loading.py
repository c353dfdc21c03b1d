"""An experiment from its file, and as plain JSON beside the results."""

import dataclasses
import difflib
import runpy
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_tune.errors import ExperimentError
from edge_tune.experiment import NAME, Experiment, Goal, Maximise, Minimise


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
            f"{path}: the file's name becomes the study's name and must consist of letters, digits, "
            f"'_', '.' and '-', but got {path.stem!r}; rename the file."
        )
    try:
        names: dict[str, Any] = runpy.run_path(str(path))
    except ExperimentError as error:
        raise ExperimentError(*(f"{path}: {problem}" for problem in error.problems)) from error
    except Exception as error:
        raise ExperimentError(f"{path}:{_line(error, path)}: {type(error).__name__}: {error}{_hint(error)}.") from error
    experiment = names.get("experiment")
    if not isinstance(experiment, Experiment):
        raise ExperimentError(
            f"{path}: must define `experiment = et.Experiment(...)`, but got "
            f"{'no such name' if experiment is None else repr(experiment)}."
        )
    return experiment


def as_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as plain JSON types, with the class of each part beside its fields."""
    plain = _plain(experiment)
    assert isinstance(plain, dict)
    return plain


def goal_from_json(plain: object) -> Goal:
    """Return the goal that `as_json` wrote.

    Raises:
        ExperimentError: It is none.
    """
    match plain:
        case {"type": "Minimise", "metric": str(metric)}:
            return Minimise(metric)
        case {"type": "Maximise", "metric": str(metric)}:
            return Maximise(metric)
    raise ExperimentError(f"a stored target must be a Minimise or Maximise of a metric, but got {plain!r}.")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _hint(error: Exception) -> str:
    """Return the name that was probably meant where one is unknown: et.Minimize, et.PruneGroup."""
    if not isinstance(error, AttributeError) or error.name is None:
        return ""
    close = difflib.get_close_matches(error.name, dir(error.obj), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _line(error: Exception, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(sys.exc_info()[2]) if frame.filename == str(path)]
    return lines[-1] if lines else None
