"""An objective in one line of text.

    minimise latency_ratio where top1 >= 85
    minimise latency_ms where top1 >= unpruned - 2
    maximise top1 where latency_ratio <= 0.7
    maximise top1 where latency_ms < off_the_shelf and parameters <= 0.5 * unpruned
    0.7 * latency_ratio + 0.3 * top1 where top1 >= 80
    front of latency_ratio and top1 where parameters <= 300000

    objective = goal [ "where" condition { "and" condition } ]
    goal      = ( "minimise" | "maximise" ) METRIC | WEIGHT "*" METRIC { "+" WEIGHT "*" METRIC }
              | "front" "of" METRIC "and" METRIC
    condition = METRIC ( ">=" | "<=" | ">" | "<" ) bound
    bound     = NUMBER | [ NUMBER "*" ] BASELINE [ ( "+" | "-" ) NUMBER ]

A METRIC is any that the trials recorded, on the validation split where it is an accuracy; a BASELINE is "unpruned",
"unpruned_retrained" (the same network after the retraining that the pruned ones get) or a name of the experiment's.
top1 and top5 are percent, so `unpruned - 2` is two points below the unpruned network. A weighted sum is of normalised
metrics; objective.py says what that means. "minimize" and "maximize" do as well.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Mapping

from edge_tune.errors import ExperimentError
from edge_tune.metrics import METRICS
from edge_tune.objective import SIGNS, Bound, Condition, FrontOf, Goal, Hybrid, Maximise, Minimise, Objective

GOALS: Mapping[str, type[Goal]] = {
    "minimise": Minimise,
    "minimize": Minimise,
    "maximise": Maximise,
    "maximize": Maximise,
}
EXAMPLE = "minimise latency_ratio where top1 >= unpruned - 2"
WORD = re.compile(r"[<>]=?|[*+]|-(?=\d)|[^\s<>*+]+")  # a name may hold '-', so one within a word is no sign
METRIC = re.compile(r"[A-Za-z]\w*")


def parse(text: str) -> Objective:
    """Return the objective that `text` describes.

    Raises:
        ExperimentError: It does not follow the form above; the sentence says from which word on.
    """
    words = _Words(text)
    first = words.take(
        "'minimise', 'maximise', 'front' or a weight",
        lambda word: word in GOALS or word == "front" or _number(word) is not None,
    )
    goal: Goal | Hybrid
    if first == "front":
        goal = _front(words)
    else:
        goal = GOALS[first](words.metric()) if first in GOALS else _hybrid(first, words)
    conditions = []
    if words.left:
        words.take("'where'", lambda word: word == "where")
        conditions.append(_condition(words))
    while words.left:
        words.take("'and'", lambda word: word == "and")
        conditions.append(_condition(words))
    return Objective(text, goal, tuple(conditions))


class _Words:
    """The words of an objective, taken one by one."""

    def __init__(self, text: str) -> None:
        self.text, self.taken = text, ""
        self.left = deque(WORD.findall(text))

    def take(self, expected: str, fits: Callable[[str], bool]) -> str:
        """Return the next word, which must fit."""
        if not (self.left and fits(self.left[0])):
            place = f"after {self.taken!r} must come" if self.taken else "must begin with"
            given = repr(self.left[0]) if self.left else "the end"
            raise ExperimentError(f"objective {self.text!r}: {place} {expected}, but got {given}; as in '{EXAMPLE}'.")
        self.taken = self.left.popleft()
        return self.taken

    def metric(self) -> str:
        return self.take("the name of a metric", lambda word: METRIC.fullmatch(word) is not None)

    def number(self, expected: str = "a number") -> float:
        return float(self.take(expected, lambda word: _number(word) is not None))

    def take_if(self, *words: str) -> str | None:
        """Return the next word if it is one of these, else leave it."""
        return self.take("", lambda word: True) if self.left and self.left[0] in words else None


def _hybrid(first: str, words: _Words) -> Hybrid:
    weights: dict[str, float] = {}
    weight = float(first)
    while True:
        if weight <= 0:
            raise ExperimentError(f"objective {words.text!r}: a weight must be above 0, but got {weight:g}.")
        words.take("'*'", lambda word: word == "*")
        metric = words.take(
            f"a metric of {list(METRICS)} that is not in the sum yet",
            lambda word: word in METRICS and word not in weights,
        )
        weights[metric] = weight
        if not words.take_if("+"):
            return Hybrid(weights)
        weight = words.number("a weight")


def _front(words: _Words) -> FrontOf:
    words.take("'of'", lambda word: word == "of")
    one = words.take(f"a metric of {list(METRICS)}", lambda word: word in METRICS)
    words.take("'and'", lambda word: word == "and")
    return FrontOf.of(
        one, words.take(f"a metric of {list(METRICS)} that is another", lambda word: word in METRICS and word != one)
    )


def _condition(words: _Words) -> Condition:
    metric = words.metric()
    sign = words.take(f"one of {', '.join(SIGNS)}", lambda word: word in SIGNS)
    return Condition(metric, sign, _bound(words))


def _bound(words: _Words) -> Bound:
    factor = 1.0
    name = words.take("a number or a baseline", lambda word: word not in (*SIGNS, "*", "+", "-", "and", "where"))
    if (number := _number(name)) is not None:
        if not words.take_if("*"):
            return Bound(number)
        factor = number
        name = words.take("the name of a baseline", lambda word: METRIC.match(word) is not None)
    direction = words.take_if("+", "-")
    offset = words.number() if direction else 0.0
    return Bound(-offset if direction == "-" else offset, name, factor)


def _number(word: str) -> float | None:
    """Return a finite number, or None if `word` is none."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
