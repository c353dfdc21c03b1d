"""An experiment as the text of its file, in the form that ruff gives it."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, replace
from typing import Any

from edge_tune.experiment import Experiment, Group
from edge_tune.objective import Minimise
from edge_tune.parameters import Uniform

WIDTH = 120
INDENT = "    "
ANY = Uniform(0.0, 0.99)
SHOWN = ("benchmark", "device", "runs", "seed")
"""Fields that a reader looks for, so they are written even where they have their defaults."""


@dataclass(frozen=True)
class _Bracket:
    """What can be broken: an opening, items with what stands before each ("name=", '"key": '), a closing.

    Attributes:
        comments: What stands before an item -> a comment on the lines above it.
    """

    opening: str
    items: Sequence[tuple[str, "_Bracket | str"]]
    closing: str
    comments: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.opening + ", ".join(f"{before}{item}" for before, item in self.items) + self.closing


def experiment_source(
    experiment: Experiment,
    *,
    command: str,
    origin: str,
    notes: Sequence[str],
    heading: str = "Not carried over, or not as it was:",
    comments: Mapping[str, str] | None = None,
) -> str:
    """Return the text of a file that makes `experiment`.

    Args:
        command: How to run it.
        origin: What it was made from.
        notes: Comments at its top.
        heading: The line above them.
        comments: Label of a pruner group -> the comment above it.
    """
    ranges = [group.sparsity for group in experiment.pruners.values()]
    named = {ANY: "ANY"} if ranges.count(ANY) > 1 else {}
    parts = [
        _docstring(_title(experiment), command, origin),
        "\n".join(_comment(note) for note in (heading, *notes)) + "\n" if notes else "",
        "import edge_tune as et\n",
        "ANY = et.Uniform(0.0, 0.99)  # sparsity: fraction of the filters (or channels) of each weight to remove\n"
        if named
        else "",
        f"experiment = {_layout(_commented(_form(experiment, named), comments or {}), 13, '', broken=True)}\n",
    ]
    return "\n".join(part for part in parts if part)


def _commented(form: _Bracket | str, comments: Mapping[str, str]) -> _Bracket | str:
    """Return the form of an experiment with comments above its pruner groups."""
    if isinstance(form, str) or not comments:
        return form
    above = {f"{_text(label)}: ": comment for label, comment in comments.items()}
    items = [
        (before, replace(item, comments=above) if before == "pruner_groups=" and isinstance(item, _Bracket) else item)
        for before, item in form.items
    ]
    return replace(form, items=items)


def _title(experiment: Experiment) -> str:
    if isinstance(experiment.target, str):
        return f"{experiment.model} on {experiment.data.name}: {experiment.target}."
    direction = "lowest" if isinstance(experiment.target, Minimise) else "highest"
    when = "after retraining" if experiment.retraining.epochs else "right after pruning"
    return f"{experiment.model} on {experiment.data.name}: {direction} {experiment.objective.label} {when}."


def _docstring(title: str, *lines: str) -> str:
    text = "\n".join(" ".join(line.split()) for line in (title, "", *lines))
    return '"""' + text.replace("\\", "\\\\").replace('"""', r"\"\"\"") + '\n"""\n'


def _comment(note: str) -> str:
    """Return a note as lines of comment; what a YAML file says cannot leave them."""
    return textwrap.fill(" ".join(note.split()), WIDTH, initial_indent="# ", subsequent_indent="#     ")


def _above(comment: str | None, indent: str) -> str:
    """Return a comment as the lines above an item."""
    if not comment:
        return ""
    return (
        textwrap.fill(" ".join(comment.split()), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        + "\n"
    )


def _form(value: Any, named: dict[Any, str]) -> _Bracket | str:
    if isinstance(value, Uniform) and value in named:
        return named[value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = [field for field in dataclasses.fields(value) if _is_written(field, getattr(value, field.name))]
        items = [(f"{field.name}=" if field.kw_only else "", _field(value, field.name, named)) for field in written]
        return _Bracket(f"et.{type(value).__name__}(", items, ")")
    if isinstance(value, dict):
        return _Bracket("{", [(f"{_text(key)}: ", _form(item, named)) for key, item in value.items()], "}")
    if isinstance(value, tuple | list):
        return _Bracket("[", [("", _form(item, named)) for item in value], "]")
    return _text(value) if isinstance(value, str) else repr(value)


def _field(owner: Any, name: str, named: dict[Any, str]) -> _Bracket | str:
    value = getattr(owner, name)
    is_names = isinstance(owner, Group) and name in ("weights", "blocks", "order") and value
    numbered = _numbered(value) if is_names else None
    return str(numbered) if numbered else _form(value, named)


def _is_written(field: "Field[Any]", value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return field.name in SHOWN or value != default


def _text(text: str) -> str:
    """Return a string literal in double quotes, as ruff prefers them."""
    return repr(text) if '"' in text else json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class _Numbered:
    """Names that differ in one number: [f"layer1.{i}.conv1.weight" for i in [0, 1, 2]]."""

    before: str
    numbers: Sequence[int]
    after: str

    def __str__(self) -> str:
        return f'[f"{self.before}{{i}}{self.after}" for i in {list(self.numbers)}]'


def _numbered(names: Sequence[str]) -> _Numbered | None:
    """Return the names as a short comprehension; None when they differ in more than a number, or it would be long."""
    rows = [name.split(".") for name in names]
    if not all(re.fullmatch(r"[\w.]+", name, re.ASCII) for name in names) or len({len(row) for row in rows}) > 1:
        return None
    different = [place for place, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]
    numbers = [row[different[0]] for row in rows] if len(different) == 1 else []
    if not numbers or not all(number.isdecimal() and str(int(number)) == number for number in numbers):
        return None
    before, after = rows[0][: different[0]], rows[0][different[0] + 1 :]
    found = _Numbered(
        "".join(f"{part}." for part in before),
        [int(number) for number in numbers],
        "".join(f".{part}" for part in after),
    )
    return found if len(str(found)) < WIDTH - 3 * len(INDENT) else None


def _layout(form: _Bracket | str, column: int, indent: str, *, broken: bool = False) -> str:
    """Return a form on one line where it fits from `column` on, else an item a line with ruff's trailing comma."""
    fits = not broken and column + len(str(form)) < WIDTH
    if isinstance(form, str) or not form.items or (fits and not form.comments):
        return str(form)
    inner = indent + INDENT
    lines = [
        f"{_above(form.comments.get(before), inner)}{inner}{before}{_layout(item, len(inner + before), inner)},\n"
        for before, item in form.items
    ]
    return f"{form.opening}\n{''.join(lines)}{indent}{form.closing}"
