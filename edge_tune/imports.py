"""What an experiment brings with it, named "package.module:name"."""

import importlib
from collections.abc import Callable
from typing import Any

from edge_tune.errors import ExperimentError, first_line


def import_callable(name: str, what: str, use: str) -> Callable[..., Any]:
    """Return the function or class that "package.module:name" names; importing its module runs that module's code.

    Args:
        what: What it is for, as in "model".
        use: What a user should name instead of what cannot be called, as in "name the function that ...".

    Raises:
        ExperimentError: It cannot be imported, or cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ExperimentError(
            f"{what} {name!r}: {module_name!r} must be importable, but got {type(error).__name__}: "
            f"{first_line(error)}; check the name and PYTHONPATH."
        ) from error
    if not hasattr(module, attribute):
        raise ExperimentError(
            f"{what} {name!r}: {module_name} must define {attribute!r}, but got no such name; check the spelling."
        )
    found = getattr(module, attribute)
    if not callable(found):
        raise ExperimentError(f"{what} {name!r}: {attribute!r} must be something to call, but got {found!r}; {use}.")
    return found  # type: ignore[no-any-return]
