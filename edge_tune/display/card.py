"""A study in a page of Markdown: what was searched, what came of it, how to do it again."""

from collections.abc import Iterator, Mapping, Sequence

from edge_tune.display import console
from edge_tune.loading import objective_from_json
from edge_tune.parameters import Choice, Parameter, from_json
from edge_tune.records.entries import GroupEntry, Run, SearchEntry
from edge_tune.records.verdict import Verdict
from edge_tune.wording import counted


def study_card(name: str, run: Run, verdict: Verdict | None) -> str:
    """Return the card.

    Args:
        verdict: None while the study runs.
    """
    what, search = run.settings, run.searched
    parts = [
        [f"# {name}"],
        [console.SIMULATED] if run.simulated else [],
        [
            f"{what.model} on {what.dataset.name}: {objective_from_json(what.target).text}, "
            f"{_how_many(search)} ({search.method}), "
            f"{counted(what.retraining.epochs, 'epoch')} of retraining."
        ],
        _table(*zip(*console.verdict_cells(verdict), strict=True))
        if verdict
        else ["This study has not come to its end."],
        [f"- {line}" for line in console.verdict_lines(verdict)] if verdict else [],
        _groups(what.pruner_groups),
        _searched(run.parameters),
        list(_again(run)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _how_many(search: SearchEntry) -> str:
    limits = [
        *([counted(search.trials, "trial")] if search.trials else []),
        *([f"{counted(search.epochs, 'epoch')} in all"] if search.epochs else []),
    ]
    return " or ".join(limits) or "trials"


def _groups(groups: Mapping[str, GroupEntry]) -> list[str]:
    return _table(
        ("pruner group", "parts"),
        *(
            (label, counted(len(group.blocks), "block") if group.blocks else counted(len(group.weights), "weight"))
            for label, group in groups.items()
        ),
    )


def _searched(parameters: Mapping[str, object]) -> list[str]:
    """Return what was searched, a row for each parameter that has more than one value."""
    known = {name: parameter for name, plain in parameters.items() if (parameter := from_json(plain))}
    rows = [(name, _range(parameter)) for name, parameter in known.items() if not parameter.is_fixed]
    return _table(("searched", "range"), *rows) if rows else []


def _table(header: Sequence[str], *rows: Sequence[str]) -> list[str]:
    """Return a table in Markdown; the verdict's lies on its side, a column a network: a card is narrow."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return [lines[0], "|---" * len(header) + "|", *lines[1:]]


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return f"one of {', '.join(map(str, parameter.values))}"
    low, high = parameter.limits or (0.0, 0.0)
    scale = ", each factor as likely" if parameter.axis and parameter.axis.is_logarithmic else ""
    return f"{low:g} to {high:g}{scale}"


def _again(run: Run) -> Iterator[str]:
    """Yield what a reader needs to run the study again; `run.json` has the rest."""
    session = run.sessions[-1]
    device = session.device
    yield f"- Device: {device.owner_text} ({device.device})"
    yield f"- Command: `{session.command}`"
    images = run.settings.dataset
    yield f"- Input: RGB in 0..1, normalised by mean {images.mean} and std {images.std}"
    yield f"- Seed: {run.seed}; session {len(run.sessions)}, begun {session.started_at}"
    yield f"- Commit: {session.commit or 'none'}"
    yield f"- Versions: {', '.join(f'{package} {version}' for package, version in session.versions.items())}"
