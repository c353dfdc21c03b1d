"""What one may do with a study that has ended, as commands that work as they stand."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_tune.command import tool
from edge_tune.loading import objective_from_json
from edge_tune.objective_text import EXAMPLE
from edge_tune.records.entries import Run
from edge_tune.records.results import Record, Results
from edge_tune.records.verdict import Row, Verdict

OTHERWISE = (EXAMPLE, "front of latency_ratio and top1")
"""Objectives to choose by; the first that is not the study's own is shown."""

REPLACED = {"--results": 1, "--resume": 0, "--trials": 1, "--epoch-budget": 1, "--promote": 1, "--warm-start": math.inf}
"""Options of a session that the next one has others of, or none, and how many words each is given."""


@dataclass(frozen=True)
class Step:
    """What to do, and the command that does it; None where there is none."""

    what: str
    command: str | None

    @property
    def text(self) -> str:
        """Both in a line."""
        return f"{self.what}: {self.command}" if self.command else self.what


def next_lines(results: Results, verdict: Verdict) -> list[str]:
    """Return what to do next at the end of a study, a line each."""
    if verdict.all_failed:
        return []
    run = results.run()
    target = objective_from_json(run.settings.target).text
    return [step.text for step in next_steps(results, run, networks_of(verdict.alternatives), target)]


def networks_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of each of these trials -> what it is, such as "fastest within 1 point"."""
    return {Record(trial=row.trial).name: row.name.partition(":")[0] for row in rows}


def next_steps(
    results: Results, run: Run, networks: Mapping[str, str], target: str, *, has_ended: bool = True
) -> list[Step]:
    """Return what to do next.

    Args:
        networks: Name of a trial -> what it is, of those to take out.
        target: What the study looked for, as text.
        has_ended: Whether the study has come to its end; else it runs, or was interrupted.
    """
    steps = [] if run.simulated else [_export(results, run, name, what) for name, what in networks.items()]
    if command := resumed(run, results.folder, times=2 if has_ended else 1):
        steps.append(Step("To try more networks" if has_ended else "To go on, if it was interrupted", command))
    otherwise = next(text for text in OTHERWISE if text != target)
    report = _python("edge_tune.report", str(results.folder), "--objective", otherwise)
    return [*steps, Step("To choose otherwise among those that were tried; nothing runs again", report)]


def _export(results: Results, run: Run, name: str, what: str) -> Step:
    if not (results.networks / f"{name}.pt").is_file():
        how = "a study keeps those of every trial with --keep-weights all"
        return Step(f"{name}, {what}, cannot be taken out, since its weights were not kept; {how}", None)
    trust = ["--trust-model"] if ":" in run.settings.model else []
    folder = f"{results.folder}-{name}" if results.folder.name.strip(".") else name
    return Step(f"To take out {name}, {what}", _python("edge_tune.export", str(results.folder), name, folder, *trust))


def resumed(run: Run, folder: Path, times: int) -> str | None:
    """Return the command that resumes a study with so many times the trials, or epochs; None if there is no command."""
    try:
        words = shlex.split(run.sessions[-1].command or "") if run.sessions else []
    except ValueError:  # what called the library need not be words of a shell
        return None
    search = run.searched
    if words[:3] != ["python", "-m", "edge_tune.run"] or search.method == "grid":
        return None
    budgets = {"--trials": search.trials, "--epoch-budget": search.epochs}
    more = [f"{option}={times * count}" for option, count in budgets.items() if count]
    if not more:
        return None
    end = words.index("--") if "--" in words else len(words)  # what follows it is never an option
    options = [*_without(words[3:end], REPLACED), f"--results={folder}", *more, "--resume"]
    return _python("edge_tune.run", *options, *words[end:])


def _without(words: Sequence[str], options: Mapping[str, float]) -> Iterator[str]:
    """Yield words without these options, which argparse lets one shorten, and what each is given."""
    left = 0.0
    for word in words:
        if word.startswith("--"):
            name, is_given, _ = word.partition("=")
            option = next((option for option in options if option.startswith(name)), None)
            left = 0.0 if is_given or option is None else options[option]
            if option is None:
                yield word
        elif left:
            left -= 1
        else:
            yield word


def _python(module: str, *words: str) -> str:
    return shlex.join([tool("python"), "-m", module, *words])
