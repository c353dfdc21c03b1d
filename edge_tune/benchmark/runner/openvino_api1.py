"""API 1.0, the Inference Engine: OpenVINO 2021.4, the last with the MYRIAD plugin on PyPI."""
# ruff: noqa: D102 - runtime.py says what the methods do

from typing import Any, Dict, Iterable, List, Optional

from refusals import RefusalError
from runtime import CAPABILITIES, Layer, Network, Runtime, Take, check_batch, check_precision, number


class InferenceEngineNetwork(Network):
    """A network that the Inference Engine has loaded."""

    def __init__(self, network: Any, executable: Any, used: Dict[str, Any]) -> None:
        self._executable = executable
        self._input, info = next(iter(network.input_info.items()))
        self._output = next(iter(network.outputs))
        self._used = used
        self.shape = tuple(info.input_data.shape)
        check_batch(self.shape)

    def infer(self, image: Any) -> Any:
        request = self._executable.requests[0]
        request.infer({self._input: image})
        return request.output_blobs[self._output].buffer.copy()

    def layers(self) -> List[Layer]:
        counters = self._executable.requests[0].get_perf_counts()
        return [
            (
                name,
                counter["layer_type"],
                counter["exec_type"],
                counter["real_time"] if counter["status"] == "EXECUTED" else 0,
            )
            for name, counter in counters.items()
        ]

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        running: Dict[int, int] = {}

        def collect(slot: int) -> None:
            index = running.pop(slot, None)
            if index is not None and take is not None:
                take(index, self._executable.requests[slot].output_blobs[self._output].buffer)

        for index, image in enumerate(images):
            if self._executable.get_idle_request_id() < 0:
                self._executable.wait(num_requests=1)
            slot = self._executable.get_idle_request_id()
            collect(slot)
            running[slot] = index
            self._executable.requests[slot].async_infer({self._input: image})
        self._executable.wait()
        for slot in list(running):
            collect(slot)

    def used(self) -> Dict[str, Any]:
        return dict(self._used, requests=len(self._executable.requests))


class InferenceEngine(Runtime):
    """The Inference Engine."""

    name = "OpenVINO"

    def __init__(self, module: Any) -> None:
        self._core = module.IECore()
        self.version = module.get_version()

    def devices(self) -> Dict[str, str]:
        return {name: self._core.get_metric(name, "FULL_DEVICE_NAME") for name in self._core.available_devices}

    def probe(self, device: str) -> str:
        # MYRIAD is never among available_devices before it is opened, and opening without a stick takes 5 s.
        if not self._core.get_metric(device, "AVAILABLE_DEVICES"):
            raise RefusalError("no such device is connected")
        return str(self._core.get_metric(device, "FULL_DEVICE_NAME"))

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        self.check(device, precision, threads)
        config = {"PERF_COUNT": "NO" if full else "YES"}
        if device == "CPU":
            config["CPU_THREADS_NUM"] = str(threads)
            config["CPU_THROUGHPUT_STREAMS"] = "CPU_THROUGHPUT_AUTO" if full else "1"
            config["ENFORCE_BF16"] = "YES" if precision == "bf16" else "NO"
        network = self._core.read_network(onnx)
        if len(network.input_info) != 1:
            raise RefusalError("the network must have one input, but got %s." % sorted(network.input_info))
        executable = self._core.load_network(network, device, config, num_requests=0 if full else 1)
        used = self._used(device, executable)
        check_precision(device, precision, used["precision"], self._capable(device))
        return InferenceEngineNetwork(network, executable, used)

    def check(self, device: str, precision: str, threads: int) -> None:
        check_precision(device, precision, None, self._capable(device))

    def _capable(self, device: str) -> List[str]:
        capabilities = self._core.get_metric(device, "OPTIMIZATION_CAPABILITIES")
        capable = [CAPABILITIES[capability] for capability in capabilities if capability in CAPABILITIES]
        # The CPU plugin reads weights in FP16, and lists it, but computes in f32 or bf16.
        return [precision for precision in capable if (device, precision) != ("CPU", "f16")]

    def _used(self, device: str, executable: Any) -> Dict[str, Any]:
        if device != "CPU":
            return {"precision": None, "threads": None, "streams": None, "execution_devices": [device]}
        return {
            "precision": "bf16" if executable.get_config("ENFORCE_BF16") == "YES" else "f32",
            "threads": number(executable.get_config("CPU_THREADS_NUM")),
            "streams": number(executable.get_config("CPU_THROUGHPUT_STREAMS")),
            "execution_devices": [device],
        }

    def convert(self, onnx: str, xml: str, weights: str) -> bool:
        self._core.read_network(onnx).serialize(xml, weights)
        return True
