"""The entries of a study's files as types: what is read of each is checked, and it may hold more.

`jsonfiles.plain` is the way to JSON, `jsonfiles.converted` the way back. What is None is not known, and is not written.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from edge_tune.experiment import MEAN, STD, Channels
from edge_tune.records.jsonfiles import converted

Count = Annotated[int, Meta(ge=0, lt=10**6)]
"""Of trials, epochs or attempts; a study that goes on makes a suggestion for each trial number below its last."""

Width = Annotated[int, Meta(ge=0, lt=2**16)]
Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | float
Positive = Annotated[float, Meta(gt=0)]
Metrics = Mapping[str, Number]
Setting = str | int | Sequence[str] | None
"""A setting of the device as it was read back."""


Images = Annotated[int, Meta(ge=1, lt=2**31)]


@dataclass(frozen=True)
class Answers:
    """Which images of a split a network's first answer is right for, in the order of the split.

    Attributes:
        right: A bit for each image, 1 where it is, the first in the highest bit of the first byte; in base64.
    """

    images: Images
    right: str

    def __post_init__(self) -> None:
        """Check that there is a bit for each image.

        Raises:
            ValueError: There is not.
        """
        try:
            packed = base64.b64decode(self.right, validate=True)
        except binascii.Error as error:
            raise ValueError("expected base64") from error
        if len(packed) != (self.images + 7) // 8:
            raise ValueError(f"expected a bit for each of {self.images} images, got {len(packed)} bytes")

    @classmethod
    def of(cls, images: int, packed: bytes) -> "Answers":
        """Return those whose bits are packed as numpy.packbits does it."""
        return cls(images, base64.b64encode(packed).decode())

    @property
    def correct(self) -> int:
        """How many there are."""
        return self._bits.bit_count()

    def alone(self, other: "Answers") -> int:
        """Return how many of the same images this network alone is right for."""
        return (self._bits & ~other._bits).bit_count()

    @property
    def _bits(self) -> int:
        return int.from_bytes(base64.b64decode(self.right), "big") >> (-self.images % 8)


# A measurement


@dataclass(frozen=True)
class Ratio:
    """Candidate / reference, below 1 when the candidate is faster, and its 95 % interval."""

    ratio: Positive
    low: Positive
    high: Positive

    @property
    def half_width(self) -> float:
        """Half the width of the interval, as a share of the ratio."""
        return (self.high - self.low) / 2 / self.ratio


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """The ratios of a measurement.

    Attributes:
        is_precise: Whether they are known as well as a measurement strives for.
        rounds, runs_a_turn, seed: Of the turns that they were taken in.
        to_itself: Whether the network is the reference itself, so that they are the noise floor.
    """

    latency_ratio: Ratio | None = None
    total_latency_ratio: Ratio | None = None
    is_precise: bool | None = None
    rounds: int | None = None
    runs_a_turn: int | None = None
    seed: int | None = None
    to_itself: bool = False


@dataclass(frozen=True, kw_only=True)
class TimeSummary:
    """A summary of the times of single runs, in milliseconds; a formula has the median alone."""

    median: float
    n: int | None = None
    min: float | None = None
    p10: float | None = None
    mean: float | None = None
    p90: float | None = None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a network's outputs on the device are from the CPU's, over so many images."""

    images: int
    off_by: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the reference took in the turns of a measurement."""

    agreement: Agreement | None = None
    latency: TimeSummary | None = None
    total_latency: TimeSummary | None = None


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """The settings that the device said it used."""

    precision: str | None = None
    threads: Setting = None
    streams: Setting = None
    requests: Setting = None
    execution_devices: Setting = None


@dataclass(frozen=True, kw_only=True)
class Throughput(ReadBack):
    """How many images a second were taken of: so many, in so many seconds, after a warm-up."""

    images: int
    seconds: float
    warm_up_images: int


OPENVINO, ONNX_RUNTIME = "OpenVINO", "ONNX Runtime"
"""The names of the runtimes, as the runner says them."""


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """A device and the process that owns it.

    Attributes:
        devices: Name -> full name of all that there are.
        runtime: What runs the networks there, OPENVINO or ONNX_RUNTIME; None of a formula.
        openvino: The version, in what was recorded before there was another runtime.
        cpus: Cores that the process stays on.
        host: Name of the node, or of the host that a node drives over ssh.
    """

    device: str | None = None
    device_name: str | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    runtime_version: str | None = None
    openvino: str | None = None
    python: str | None = None
    numpy: str | None = None
    cpus: tuple[int, ...] = ()
    host: str | None = None

    @property
    def text(self) -> str:
        """The device in words; empty if it is not known."""
        name, full = self.device or "", self.device_name or ""
        return f"{name} ({full})" if full and full != name else name

    @property
    def measured_by(self) -> tuple[str | None, str | None]:
        """The name and the version of the runtime."""
        return (OPENVINO, self.openvino) if self.openvino else (self.runtime, self.runtime_version)

    @property
    def runtime_text(self) -> str:
        """The runtime in words, without the number of its build; empty if it is not known."""
        name, version = self.measured_by
        return f"{name} {(version or '').partition('-')[0]}".rstrip() if name else ""

    @property
    def owner_text(self) -> str:
        """The device by the name that it gives itself, and its runtime."""
        return " by ".join(part for part in (self.device_name, self.runtime_text) if part)


@dataclass(frozen=True, kw_only=True)
class Evidence(ReadBack, DeviceEntry):
    """The device's evidence for a measurement.

    Attributes:
        restarts: How often the process that owns the device was replaced before.
        runs, warm_up_runs: Inferences that were timed, and those before.
        clock: What runs are timed by, as `answers.Begun` has it.
        counters: What the layers' counters show: "mean of all runs" or "last run".
        seconds: Stage -> seconds.
        stopped_by: What ended the rounds: "interval", "time" or "runs".
        bytes: Of the network, where a formula goes by them.
        metrics: What was measured, under the names that records have for it.
        remembered: Whether an equal network had been measured before.
        repetitions: The ratios of each measurement, where several are summed up.
    """

    restarts: int | None = None
    runs: int | None = None
    warm_up_runs: int | None = None
    clock: str | None = None
    counters: str | None = None
    executed_layers: int | None = None
    agreement: Agreement | None = None
    latency: TimeSummary | None = None
    total_latency: TimeSummary | None = None
    throughput: Throughput | None = None
    load_average: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    stopped_by: str | None = None
    bytes: int | None = None
    reference: Reference = Reference()
    ratios: Ratios | None = None
    metrics: Metrics = field(default_factory=dict)
    remembered: bool | None = None
    repetitions: Sequence[Mapping[str, Ratio]] | None = None

    @property
    def intervals(self) -> dict[str, Ratio]:
        """The ratios to the unpruned network with their intervals, by the metrics' names."""
        known = self.ratios or Ratios()
        found = {"latency_ratio": known.latency_ratio, "total_latency_ratio": known.total_latency_ratio}
        return {metric: ratio for metric, ratio in found.items() if ratio is not None}

    @property
    def reference_ms(self) -> dict[str, float]:
        """Milliseconds of the unpruned network in the turns of this measurement: the only ones to set beside it."""
        found = {"latency_ms": self.reference.latency, "total_latency_ms": self.reference.total_latency}
        return {metric: times.median for metric, times in found.items() if times is not None}

    @property
    def is_precise(self) -> bool:
        """Whether the ratios are known as well as a measurement strives for; its time may have been over before."""
        known = self.ratios.is_precise if self.ratios else None
        return self.stopped_by != "time" if known is None else known

    @property
    def is_unpruned(self) -> bool:
        """Whether what was measured is the unpruned network, because nothing was removed."""
        return self.ratios is not None and self.ratios.to_itself


@dataclass(frozen=True)
class Layer:
    """A layer as the device's runtime names it.

    Attributes:
        type: What it does, in the runtime's words: Convolution, Reorder, ...
        kernel: What does it: brgconv_avx512_f32, ...
        ms: Mean over the runs; 0 if another layer does its work.
    """

    name: str
    type: str
    kernel: str
    ms: float


# A trial

CONFIRMED = "confirmed"
"""The stage of the measurements that are taken again before a best is named."""

SUGGESTED = "suggested"
"""When the method of search said what it expected of a network: before that was made."""

PRUNED = "pruned"
"""When the study's finished trials said what they expected of a network: before it was retrained."""


@dataclass(frozen=True)
class LayerEntry(Layer):
    """A layer under the network's own name; `share` is its part of the sum of all."""

    share: float


@dataclass(frozen=True, kw_only=True)
class EpochEntry:
    """An epoch of retraining.

    Attributes:
        lr: Of its last step.
        train_loss: Mean of the recipe's loss over the pass, nats.
        steps_ran: How a GPU ran the steps, "captured", or "eager: " and why; None on a CPU.
        metrics: What was found after it: accuracy and loss on the validation split, what was measured.
    """

    epoch: Count
    lr: float
    train_loss: float
    seconds: float
    images_per_s: float | None = None
    steps_ran: str | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Computed:
    """What a trial was retrained and classified with.

    Attributes:
        device: "cpu" or "cuda".
        name: What the processor calls itself.
        precision: Of the retraining's forward passes.
        varies: Why the same trial may end a little differently when it runs again; None: nothing, or not noted.
    """

    device: str
    name: str
    precision: str
    varies: str | None = None


NOUNS = {"out": "filters", "in": "channels", "block": "blocks"}


@dataclass(frozen=True)
class Cut:
    """What happens to one part of a network: a weight for slices, or a block, which stays or goes as one slice.

    Attributes:
        structure: The name of what is removed, as the experiment has it; "blocks" for a block.
        kind: Whether that is what the layer puts "out" or what it takes "in", or a whole "block".
        importance: The name of what the slices were ranked by; of a block, "order".
        sparsity: What was asked of its group, as a share; `1 - kept / before` is what is done.
        before: How many slices there were.
        slices: Which of them stay, ascending.
    """

    part: str
    structure: str
    kind: Literal["out", "in", "block"]
    importance: str
    sparsity: Number
    before: Width
    slices: tuple[Width, ...]

    @property
    def kept(self) -> int:
        """How many slices stay."""
        return len(self.slices)

    @property
    def noun(self) -> str:
        """What the slices are called."""
        return NOUNS[self.kind]


def left_out(plan: Sequence[Cut]) -> tuple[str, ...]:
    """Return the blocks that a plan leaves out."""
    return tuple(cut.part for cut in plan if cut.kind == "block" and not cut.kept)


@dataclass(frozen=True)
class Effect:
    """What a network without a part of it does on some of the validation split, with batch norm estimated anew.

    Attributes:
        top1: Percent.
        loss: Mean cross-entropy, nats; it ranks parts more finely than top1, which moves in steps.
        images: How many were classified.
    """

    top1: Number
    loss: Number
    images: int


# run.json


@dataclass(frozen=True, kw_only=True)
class DataEntry:
    """The settings of the images; those that a study was recorded without have their defaults."""

    name: str = ""
    mean: Channels = MEAN
    std: Channels = STD


@dataclass(frozen=True, kw_only=True)
class GroupEntry:
    """A pruner group."""

    weights: Sequence[str] = ()
    blocks: Sequence[str] = ()
    order: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class RetrainingEntry:
    """How a pruned network is retrained."""

    epochs: Count = 0


@dataclass(frozen=True, kw_only=True)
class BenchmarkEntry:
    """How the device is measured."""

    device: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchEntry:
    """How points are chosen, and how many."""

    method: str = ""
    trials: Count | None = None
    epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is read of the settings that the sessions of a study have in common.

    Attributes:
        target: As `loading.objective_from_json` takes it.
    """

    model: str = ""
    dataset: DataEntry = DataEntry()
    pruner_groups: Mapping[str, GroupEntry] = field(default_factory=dict)
    target: object = None
    retraining: RetrainingEntry = RetrainingEntry()
    benchmark: BenchmarkEntry = BenchmarkEntry()


@dataclass(frozen=True, kw_only=True)
class NodeEntry:
    """A node of the cluster that a session ran on."""

    host: str
    cpus: int
    devices: int
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class ClusterEntry:
    """The cluster that a session ran on; `where` is the address of its Ray, in words."""

    where: str
    nodes: Sequence[NodeEntry]


@dataclass(frozen=True, kw_only=True)
class Session:
    """One start of the study.

    Attributes:
        started_at: ISO 8601.
        command: What starts it again, without secrets.
        commit: Of the checkout, with "+" when files differ from it; None outside of one.
        versions: Package -> version.
    """

    started_at: str = ""
    experiment_file: str | None = None
    command: str | None = None
    commit: str | None = None
    host: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    cluster: ClusterEntry | None = None
    device: DeviceEntry = DeviceEntry()


@dataclass(frozen=True)
class Taught:
    """An earlier study that taught this one when it began.

    Attributes:
        folder: Where its results were, as it was given.
        started_at: When it began.
        trials: How many of its trials teach; they are kept in earlier.jsonl.
        what: "latency", "accuracy" or both.
    """

    folder: str
    started_at: str = ""
    trials: Count = 0
    what: tuple[str, ...] = ()


FORM = 2
"""Of the files of a study; another one when they change so that an earlier version's cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was run: run.json.

    Attributes:
        identity: What must be the same in all sessions, as it was written; None if the file does not say.
        simulated: Whether the figures follow from formulas.
        search: The settings of the search, as they were written.
        parameters: Name -> what the search chooses, as it was written.
        effects: Block -> what the network does without it alone, where the order of blocks was measured.
        network, images: Digests of the unpruned network and of the images that trials see; None if not noted.
        taught_by: The earlier studies that taught this one.
        form: FORM, or that of another version; None if the file does not say.
    """

    form: int | None = None
    identity: Mapping[str, object] | None = None
    simulated: bool = False
    seed: int | None = None
    search: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    effects: Mapping[str, Effect] = field(default_factory=dict)
    network: str | None = None
    images: str | None = None
    taught_by: Sequence[Taught] = ()
    sessions: Sequence[Session] = ()

    @classmethod
    def from_entry(cls, entry: object) -> "Run":
        """Return what parsed JSON says.

        Raises:
            DamageError: It is something else; the text says what is wrong, and where.
        """
        run = converted(entry, cls)
        assert run._read
        return run

    @property
    def settings(self) -> Settings:
        """What is read of the identity."""
        return self._read.identity or Settings()

    @property
    def searched(self) -> SearchEntry:
        """What is read of the settings of the search."""
        return self._read.search

    @cached_property
    def _read(self) -> "_Read":
        return converted({"identity": self.identity, "search": self.search}, _Read)


@dataclass(frozen=True)
class _Read:
    """What is read of a run, under its keys: so a problem is named with its place in the file."""

    identity: Settings | None
    search: SearchEntry
