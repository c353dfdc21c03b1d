"""How far the trials are within an epoch: their processes say it now and then, the driver asks when it has no news."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_S = 2.0
"""Seconds that the driver waits for an answer; it has more to do."""


class Note(NamedTuple):
    """What a trial said last.

    Attributes:
        at: When, in seconds of the driver's node's clock since the epoch of `time.time`.
    """

    line: str
    at: float


class _Board:
    """Holds the last line of each trial, in a process of its own on the driver's node."""

    def __init__(self) -> None:
        self.notes: dict[int, Note] = {}

    def write(self, trial: int, line: str) -> None:
        """Keep a line in place of the trial's last."""
        self.notes[trial] = Note(line, time.time())

    def take(self) -> Mapping[int, Note]:
        """Return trial -> its line, of those that said something since the last call."""
        taken, self.notes = self.notes, {}
        return taken


class Board:
    """A handle that trials on any node write to, and the driver reads."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here)
        self.actor = cast(Any, remote).remote()

    def writer(self, trial: int) -> Callable[[str], None]:
        """Return what takes the lines of one trial, and waits for nobody."""
        return partial(self.actor.write.remote, trial)

    def take(self) -> Mapping[int, Note]:
        """Return trial -> its line, of those that said something since the last call; none if nobody answers."""
        try:
            return cast(Mapping[int, Note], ray.get(self.actor.take.remote(), timeout=ANSWER_S))
        except RayError:
            return {}
