"""How a trial may end: every way is named here, with its words, for whoever counts, draws or tells of it."""

from edge_tune.records.results import Record
from edge_tune.wording import counted

IN_WORDS = {
    "finished": "finished",
    "collapsed": "finished, but no better than chance",
    "hopeless": "stopped as hopeless",
    "asha": "stopped by ASHA",
    "predicted": "paused by the prediction",
    "time_limit": "stopped by its time limit",
    "gate": "not trained, or no further, since it could not become the best",
    "failed": "failed",
}
"""A newer version may know other rules that stop trials; these are named as they are."""

GATE = "gate"
"""The rule that ends a trial which cannot become the best, whatever its training does."""

PREDICTED = "predicted"
"""The rule that pauses a trial which is predicted not to reach the objective."""

PAUSES = ("asha", PREDICTED)
"""The rules that pause trials: these may be continued later."""

SHORT = {"asha": "ASHA", PREDICTED: "prediction"}
"""These rules in a word; others are named as they are."""

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


def is_paused(record: Record) -> bool:
    """Tell whether a trial was paused, and may be continued."""
    return record.stopped_by in PAUSES and record.status == "stopped" and record.same_as is None


def pauses(record: Record) -> tuple[str, ...]:
    """Return the rules that have paused a trial, in their order, the one included that it is paused by now."""
    now = [str(record.stopped_by)] if is_paused(record) else []
    return (*(stop.rule for stop in record.paused), *now)


def spared(record: Record) -> str:
    """Return in two words that a trial was trained though a rule would have ended it, or had; empty if none."""
    if record.audit:
        return f"audited ({SHORT.get(record.audit.rule, record.audit.rule)})"
    if record.paused:
        return f"promoted ({SHORT.get(record.paused[-1].rule, record.paused[-1].rule)})"
    return ""


def spared_text(record: Record) -> str:
    """Return the same in sentences, with the reasons; empty if none."""
    told = [
        f"It was promoted: {ending_text(stop.rule)} after {counted(stop.epoch, 'epoch')} ({stop.reason}), it was "
        f"continued later."
        for stop in record.paused
    ]
    if (stop := record.audit) is not None:
        told.append(
            f"It was audited: after {counted(stop.epoch, 'epoch')} it would have been {ending_text(stop.rule)} "
            f"({stop.reason}), and was trained all the same."
        )
    return " ".join(told)
