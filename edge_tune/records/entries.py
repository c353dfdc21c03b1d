"""The entries of a study's files as types: what is read of each is checked, and it may hold more."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from msgspec import Meta

Count = Annotated[int, Meta(ge=0, lt=10**6)]
"""Of trials, epochs or attempts; a study that goes on makes a suggestion for each trial number below its last."""

Width = Annotated[int, Meta(ge=0, lt=2**16)]
Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | float
Metrics = Mapping[str, Number]


class Interval(TypedDict):
    """A ratio to the unpruned network, with its 95 % interval."""

    ratio: Number
    low: Number
    high: Number


class Ratios(TypedDict, total=False):
    """The ratios of a measurement."""

    latency_ratio: Interval
    total_latency_ratio: Interval


class Evidence(TypedDict, total=False):
    """The device's evidence for a measurement."""

    ratios: Ratios


class CurveEntry(TypedDict):
    """An epoch of a curve."""

    epoch: Count


class CutEntry(TypedDict, total=False):
    """What a plan does to one part of the network."""

    part: str
    before: Width
    kept: Width


class DataEntry(TypedDict, total=False):
    """The settings of the images."""

    name: str


class GroupEntry(TypedDict, total=False):
    """A pruner group."""

    weights: list[str]


class BenchmarkEntry(TypedDict, total=False):
    """How the device is measured."""

    device: str
    python: str | None


class Identity(TypedDict, total=False):
    """What the sessions of a study have in common."""

    model: str
    dataset: DataEntry
    pruner_groups: dict[str, GroupEntry]
    benchmark: BenchmarkEntry


class Session(TypedDict, total=False):
    """One start of the study."""

    started_at: str
    versions: dict[str, str]
    device: dict[str, Any]


class Run(TypedDict, total=False):
    """run.json."""

    identity: Identity
    sessions: list[Session]
