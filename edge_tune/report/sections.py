"""What the report says, in its order. A section without data says why."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from edge_tune.display.next_steps import Step, networks_of, next_steps
from edge_tune.records.results import Results
from edge_tune.report import account, comparison, findings, predicted, verdict
from edge_tune.report.blocks import Block, Html, Note, Section, Text, prose
from edge_tune.report.data import StudyData
from edge_tune.report.style import Axes
from edge_tune.wording import counted

SHOWN = 5
"""How many damaged lines are named before the rest are counted."""


def all_sections(studies: Sequence[StudyData], axes: Axes, first_rows: Sequence[int]) -> list[Section]:
    """Return the whole report: one study's sections, or the studies side by side and then one by one.

    Args:
        first_rows: Row of each study's first trial in the cards.
    """
    if len(studies) == 1:
        (study,), (first,) = studies, first_rows
        verdict_, *others = study_sections(study, axes, first, 0)
        return [verdict_, *shared_sections(studies, axes, first_rows), *others]
    found = [Section("side-by-side", "Side by side", [comparison.studies_table(studies)])]
    found += shared_sections(studies, axes, first_rows)
    for place, (study, first) in enumerate(zip(studies, first_rows, strict=True)):
        found.append(Section(f"study-{place}", study.label, [Text([about(study)])]))
        found += [
            Section(part.key, part.title, part.blocks, 3, part.kind)
            for part in study_sections(study, axes, first, place)
        ]
    return found


def shared_sections(studies: Sequence[StudyData], axes: Axes, first_rows: Sequence[int]) -> list[Section]:
    """Return the sections whose plots hold all studies, on the same axes."""
    return [
        Section("front", "Latency against accuracy", findings.front(studies, axes, first_rows)),
        Section("progress", "Best so far", findings.progress(studies, first_rows)),
        Section("latencies", "Trials by latency", findings.latencies(studies, axes)),
    ]


def study_sections(study: StudyData, axes: Axes, first: int, place: int) -> list[Section]:
    """Return the sections of one study."""
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("verdict", "Verdict", _verdict(study)),
        ("parameters", "Parameters against metrics", findings.parameters(study, axes, first)),
        ("importance", "Which parameter matters", findings.importance(study)),
        ("retraining", "Before and after retraining", findings.retraining(study, axes, first)),
        ("predicted", "Predicted and found", predicted.predicted(study, first)),
        ("ruined", "Ruined networks", findings.ruined(study)),
        ("stops", "Stopped early", account.stops(study)),
        ("time", "Where the time went", account.time(study)),
        ("layers", "Time of each layer", account.layers(study)),
        ("trials", "All trials", account.trials(study, place)),
        ("run", "How it was run", account.run(study)),
    ]
    suffix = f"-{place}" if place else ""
    return [Section(f"{key}{suffix}", title, blocks, kind=key) for key, title, blocks in parts]


def about(study: StudyData) -> str:
    """Return one line on a study."""
    session = study.sessions[0]
    parts = [
        f"{study.settings.model or 'a network'} on {Path(study.settings.dataset.name).name}",
        study.target.text,
        counted(study.tried, "trial"),
        session.device.text,
        session.device.runtime_text,
        session.started_at[:10],
    ]
    return ", ".join(part for part in parts if part) + "."


def damage(study: StudyData) -> list[str]:
    """Return what is left out because it is damaged, the first few and how many more."""
    more = len(study.problems) - SHOWN
    return [*study.problems[:SHOWN], *([f"{more} more lines are damaged and left out."] if more > 0 else [])]


def _verdict(study: StudyData) -> list[Block]:
    blocks: list[Block] = [Text([*verdict.sentences(study), verdict.endings_line(study)])]
    blocks += [Note(problem) for problem in damage(study)]
    networks = verdict.rows(study)
    if not networks:
        return [*blocks, Note("No table: neither a baseline nor a trial has come to its end.")]
    return [*blocks, comparison.networks_table(study, networks), *_next(study)]


def _next(study: StudyData) -> list[Block]:
    """Return what one may do now, with the commands."""
    if not study.trials:
        return []
    networks = networks_of(verdict.alternatives(study))
    if study.chosen and not (study.verdict and study.verdict.chosen == study.chosen.trial):
        networks = {study.chosen.name: "the chosen network", **networks}
    target = (study.objective or study.target).text
    steps = next_steps(Results(study.folder), study.run, networks, target, has_ended=study.has_ended)
    best = study.folder / "best"
    if study.verdict and study.chosen and study.verdict.chosen == study.chosen.trial and best.is_dir():
        steps = [Step(f"{study.chosen.name} lies ready in {best}", None), *steps]
    items = (
        f"<li>{prose(step.what)}{f':<pre>{escape(step.command)}</pre>' if step.command else '.'}</li>" for step in steps
    )
    return [Html(f"<p>What next:</p><ul>{''.join(items)}</ul>")]
