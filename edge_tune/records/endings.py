"""How a trial may end: every way is named here, with its words, for whoever counts, draws or tells of it."""

from edge_tune.records.results import Record

IN_WORDS = {
    "finished": "finished",
    "collapsed": "finished, but no better than chance",
    "hopeless": "stopped as hopeless",
    "asha": "stopped by ASHA",
    "predicted": "paused by the prediction",
    "time_limit": "stopped by its time limit",
    "gate": "not trained, since it could not become the best",
    "failed": "failed",
}
"""A newer version may know other rules that stop trials; these are named as they are."""

GATE = "gate"
"""The rule that ends a trial which cannot become the best, whatever its training does."""

PREDICTED = "predicted"
"""The rule that pauses a trial which is predicted not to reach the objective."""

PAUSES = ("asha", PREDICTED)
"""The rules that pause trials: these may be continued later."""

RULES = ("hopeless", "asha", PREDICTED, "time_limit", GATE)
"""Those of the ways that are rules which stop a trial, as `Record.stopped_by` has them."""

REPEAT = "repeat"
"""How a trial ended that took the record of an equal network over."""

RAN_TO_THE_END = ("finished", "collapsed")
RUINED = ("collapsed", "hopeless")


def ending(record: Record) -> str:
    """Return how a trial ended: a key of IN_WORDS, or the name of another rule that stopped it."""
    if record.status == "stopped":
        return record.stopped_by or "stopped"
    return "collapsed" if record.status == "finished" and record.collapsed else record.status


def ending_text(end: str) -> str:
    """Return an ending in words."""
    return IN_WORDS.get(end, f"stopped by {end}" if end != "stopped" else end)
