"""When the trials ran and what they spent their time on. The hours between two sessions of a study do not count."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np

from edge_tune.records.results import Record

STAGES = ("plan", "prune", "evaluate", "retrain", "export", "queue", "measure")
OTHER, IDLE = "other", "idle"
"""Time of a trial that belongs to no stage; time in which a node ran no trial while the study did."""

Span = tuple[float, float]


def seconds_by_node(records: Sequence[Record], session_starts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return node -> stage -> seconds, summed over its trials, with `other` and `idle`.

    Args:
        session_starts: When each session of the study began, ISO 8601.
    """
    nodes = sorted({record.node for record in records if record.node})
    sessions = _sessions(records, session_starts)
    spans = {trial: span for session in sessions for span, trial in session}
    there = sum(_length([span for span, _ in session]) for session in sessions)
    found = {}
    for node in nodes:
        mine = [record for record in records if record.node == node]
        stages = dict.fromkeys((*STAGES, *(stage for record in mine for stage in record.seconds)), 0.0)
        other = 0.0
        for record in mine:
            for stage, seconds in record.seconds.items():
                stages[stage] += seconds
            if (span := spans.get(record.trial)) is not None:
                other += max(0.0, span[1] - span[0] - sum(record.seconds.values()))
        busy = _union(spans[record.trial] for record in mine if record.trial in spans)
        found[node] = {**stages, OTHER: other, IDLE: max(0.0, there - busy)}
    return found


def hours_of_work(records: Sequence[Record], session_starts: Sequence[str]) -> dict[int, float]:
    """Return trial -> hours of work on the study at its end, counted from the first trial's start."""
    hours: dict[int, float] = {}
    before = 0.0
    for session in _sessions(records, session_starts):
        first = min(span[0] for span, _ in session)
        for (_, end), trial in session:
            hours[trial] = (before + end - first) / 3600
        before += _length([span for span, _ in session])
    return hours


def _sessions(records: Sequence[Record], session_starts: Sequence[str]) -> list[list[tuple[Span, int]]]:
    """Return the span and number of each trial, by the session in which it ended; those without one are left out.

    What an earlier session began and a later one ended counts from the latter's start.
    """
    starts = sorted(time for time in map(_time, session_starts) if time is not None)
    sessions: dict[int, list[tuple[Span, int]]] = {}
    for record in records:
        if (span := _span(record)) is not None:
            session = int(np.searchsorted(starts, span[1], side="right"))
            start = max([span[0], *starts[max(0, session - 1) : session]])
            sessions.setdefault(session, []).append(((start, span[1]), record.trial))
    return [sessions[number] for number in sorted(sessions)]


def _length(spans: Sequence[Span]) -> float:
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _union(spans: Iterable[Span]) -> float:
    """Return the seconds that at least one span covers."""
    covered, until = 0.0, -np.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _span(record: Record) -> Span | None:
    start, end = _time(record.started_at), _time(record.ended_at)
    return (start, end) if start is not None and end is not None and end >= start else None


def _time(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def stages_of(nodes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the stages that took any time on any node, in their order."""
    names = dict.fromkeys(stage for stages in nodes.values() for stage in stages)
    order = [*(name for name in names if name not in (OTHER, IDLE)), OTHER, IDLE]
    return [name for name in order if any(stages.get(name, 0.0) > 0 for stages in nodes.values())]


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit to show times of up to so many seconds in, and how many seconds it has."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)
