"""Devices for tests of what stands above the benchmark: the package's formula, without Ray."""

from dataclasses import dataclass, field

from edge_tune.benchmark.backend import FakeBackend
from edge_tune.benchmark.measurement import Measurement
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark


@dataclass(frozen=True)
class Answer:
    measurement: Measurement
    queue_s: float
    measure_s: float
    remembered: bool


@dataclass
class Formula:
    """Answers at once and notes what was asked; fails from request number `fails_from` on."""

    fails_from: int = 10**6
    reference: bytes = bytes(10_000)
    queue_s: float = 0.25
    asked: list[str | None] = field(default_factory=list)

    def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
        self.asked.append(remember)
        if len(self.asked) >= self.fails_from:
            raise BenchmarkError("the stick is gone")
        measurement = FakeBackend().measure(onnx, Benchmark(device="fake"), self.reference)
        return Answer(measurement, self.queue_s, 0.5, remembered=False)
