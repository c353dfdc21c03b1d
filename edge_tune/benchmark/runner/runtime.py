"""A runtime and a network compiled with it: the one interface to ONNX Runtime and to every generation of OpenVINO.

Each has a file of its own, and makes the checks that stand here.
"""

from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from refusals import RefusalError

CAPABILITIES = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}

Layer = Tuple[str, str, str, int]  # name, type, kernel, microseconds
Take = Callable[[int, Any], None]


class Network(ABC):
    """A network compiled for a device."""

    shape: Tuple[int, ...] = ()

    @abstractmethod
    def infer(self, image: Any) -> Any:
        """Return a copy of the first output for one input, synchronously."""

    @abstractmethod
    def layers(self) -> List[Layer]:
        """Return each layer as the plugin's counters have it now; 0 microseconds when it was not executed."""

    @abstractmethod
    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        """Run all images with as many requests as the device wants; take(index, output) gets each output."""

    @abstractmethod
    def used(self) -> Dict[str, Any]:
        """Return precision, threads, streams and requests as read back; None where the device does not tell."""


class Runtime(ABC):
    """What runs networks.

    Attributes:
        name: What it is called; records, and the sentences of its errors, name it so.
    """

    name = ""
    version = ""

    @abstractmethod
    def devices(self) -> Dict[str, str]:
        """Return the full name of each device there is."""

    def named(self, device: str) -> str:
        """Return the name under which records have a device; no two runtimes have a device of the same name."""
        return device

    @abstractmethod
    def probe(self, device: str) -> str:
        """Return the full name of `device`, or raise whatever the runtime raises when it cannot be used."""

    @abstractmethod
    def check(self, device: str, precision: str, threads: int) -> None:
        """Raise RefusalError unless `device`, which can be used, computes in this precision."""

    @abstractmethod
    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        """Compile for throughput if `full`, else for latency with the counters of the layers."""

    @abstractmethod
    def convert(self, onnx: str, xml: str, weights: str) -> bool:
        """Write the network as IR with uncompressed weights; return False if this runtime has no such thing."""


def check_batch(shape: Tuple[int, ...]) -> None:
    """Raise unless a network takes one image at a time, which latencies are of."""
    if not shape or shape[0] != 1:
        raise RefusalError("the network must take a batch of 1, but got one of input shape %s." % list(shape))


def check_precision(device: str, asked: str, used: Optional[str], capable: List[str]) -> None:
    """Raise unless the device computes in the precision asked for, as read back or, if it does not tell, as listed."""
    if used is None and asked in capable:
        return
    if used != asked:
        raise RefusalError(
            "precision must be one that %s computes in (%s), but got %r%s."
            % (device, sorted(capable), asked, "" if used is None else "; it would use %r" % used)
        )


def number(value: Any) -> Any:
    """Return a whole number that is written as text as one, and anything else as it is."""
    return int(value) if str(value).lstrip("-").isdigit() else value
