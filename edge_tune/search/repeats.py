"""Which networks a study has tried, each known by its plan, and trials that take the record of another over."""

import json
import zlib
from dataclasses import dataclass, replace

from edge_tune.parameters import Point
from edge_tune.records.results import Planned, Record, now


@dataclass(frozen=True)
class Repeat:
    """A trial whose network is that of another trial, which has it now.

    Attributes:
        trial: Its number.
        of: The other's.
    """

    trial: int
    of: int
    point: Point
    planned: Planned

    def take_over(self, record: Record) -> Record:
        """Return the record of this trial, which is that of the other under its own number and point."""
        return replace(
            record,
            trial=self.trial,
            baseline=None,
            same_as=record.trial,
            point=self.point,
            plan=self.planned.plan,
            seconds={},
            started_at=now(),
            ended_at=now(),
            attempts=1,
        )


class Networks:
    """Which networks were tried, and which are tried now, each known by the digest of its plan.

    Attributes:
        searched: Digests of all networks that the search came upon.
        waiting: Digest of a network that is tried now -> the trials that wait for its record.
    """

    def __init__(self) -> None:
        self.searched: set[str] = set()
        self.waiting: dict[str, list[Repeat]] = {}
        self._under_way: dict[int, str] = {}
        self._ended: dict[tuple[str, bool], bytes] = {}

    def begin(self, trial: int, digest: str) -> None:
        """Note that a trial tries a network."""
        self._under_way[trial] = digest

    def reopen(self, digest: str) -> None:
        """Forget how the trial of a network ended, which is continued: others wait for how it ends now."""
        self._ended.pop((digest, False), None)

    def end(self, record: Record) -> list[Repeat]:
        """Note how a trial ended. Returns those that waited for it."""
        digest = self._under_way.pop(record.trial)
        self.know(record, digest)
        return self.waiting.pop(digest, [])

    def know(self, record: Record, digest: str) -> None:
        """Keep a record for others to take over, packed: those of a long study are large."""
        self._ended.setdefault((digest, record.baseline is not None), zlib.compress(record.to_json().encode()))

    def record(self, digest: str) -> Record | None:
        """Return the record of a network; a baseline's only while the search has none of its own."""
        packed = self._ended.get((digest, False)) or self._ended.get((digest, True))
        return Record.from_entry(json.loads(zlib.decompress(packed))) if packed else None

    def is_under_way(self, trial: int) -> bool:
        """Tell whether this trial has begun and not ended."""
        return trial in self._under_way

    def trying(self, digest: str) -> int | None:
        """Return the trial that tries a network now, or None."""
        return next((trial for trial, its in self._under_way.items() if its == digest), None)
