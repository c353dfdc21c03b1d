"""API 2.0: OpenVINO 2022.1 and newer."""
# ruff: noqa: D102 - runtime.py says what the methods do

import importlib
from typing import Any, Dict, Iterable, List, Optional

import numpy as np

from refusals import RefusalError
from runtime import CAPABILITIES, Layer, Network, Runtime, Take, check_batch, check_precision, number


class OpenVinoNetwork(Network):
    """A network compiled by API 2.0."""

    def __init__(self, ov: Any, compiled: Any) -> None:
        self._ov = ov
        self._compiled = compiled
        if len(compiled.inputs) != 1 or compiled.input(0).partial_shape.is_dynamic:
            raise RefusalError("the network must have one input of static shape, but got %s." % compiled.inputs)
        self.shape = tuple(compiled.input(0).shape)
        check_batch(self.shape)
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor(0).data

    def infer(self, image: Any) -> Any:
        # infer({0: image}) does the same with 16 us more of Python.
        np.copyto(self._input, image)
        self._request.infer()
        return self._request.get_output_tensor(0).data.copy()

    def layers(self) -> List[Layer]:
        return [
            (
                info.node_name,
                info.node_type,
                info.exec_type,
                int(info.real_time.total_seconds() * 1e6 + 0.5) if str(info.status).endswith("EXECUTED") else 0,
            )
            for info in self._request.profiling_info
        ]

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        jobs = self._ov.AsyncInferQueue(self._compiled)
        if take is not None:
            jobs.set_callback(lambda request, index: take(index, request.get_output_tensor(0).data))
        for index, image in enumerate(images):
            jobs.start_async({0: image}, index)
        jobs.wait_all()

    def used(self) -> Dict[str, Any]:
        precision = self._property("INFERENCE_PRECISION_HINT")
        return {
            "precision": getattr(precision, "get_type_name", lambda: precision)(),
            "threads": self._property("INFERENCE_NUM_THREADS"),
            "streams": number(self._property("NUM_STREAMS")),
            "requests": self._property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"),
            "execution_devices": self._property("EXECUTION_DEVICES"),
        }

    def _property(self, name: str) -> Any:
        """Ask the compiled network; AUTO and HETERO keep such things one level deeper, by device."""
        try:
            return self._compiled.get_property(name)
        except RuntimeError:
            pass
        try:
            for properties in self._compiled.get_property("DEVICE_PROPERTIES").values():
                if name in properties:
                    return properties[name]
        except (RuntimeError, AttributeError):
            pass
        return None


class OpenVino(Runtime):
    """OpenVINO by API 2.0."""

    name = "OpenVINO"

    def __init__(self, ov: Any) -> None:
        self._ov = ov
        self._core = ov.Core()
        self.version = ov.get_version()

    def devices(self) -> Dict[str, str]:
        return {name: self._core.get_property(name, "FULL_DEVICE_NAME") for name in self._core.available_devices}

    def probe(self, device: str) -> str:
        compiled = self._core.compile_model(self._smallest(), device)
        names = OpenVinoNetwork(self._ov, compiled).used()["execution_devices"] or [device]
        devices = self.devices()
        return ", ".join(devices.get(name.strip("()"), name) for name in names)

    def check(self, device: str, precision: str, threads: int) -> None:
        self._compiled(self._smallest(), device, precision, threads, False)

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        return self._compiled(self._core.read_model(onnx), device, precision, threads, full)

    def _smallest(self) -> Any:
        """Return a network of one layer."""
        opset = importlib.import_module(self._ov.__name__ + ".opset8")
        parameter = opset.parameter([1, 1], np.float32)
        return self._ov.Model([opset.relu(parameter)], [parameter], "probe")

    def _compiled(self, model: Any, device: str, precision: str, threads: int, full: bool) -> Network:
        # Each device gets its settings through the core, since AUTO, HETERO and MULTI refuse most of them.
        wanted = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT" if full else "LATENCY",
            "PERF_COUNT": not full,
        }
        for name in self._core.available_devices:
            supported = self._core.get_property(name, "SUPPORTED_PROPERTIES")
            self._core.set_property(name, {key: value for key, value in wanted.items() if key in supported})
        hints = {key: wanted[key] for key in ("PERFORMANCE_HINT", "PERF_COUNT") if not device.startswith("HETERO")}
        network = OpenVinoNetwork(self._ov, self._core.compile_model(model, device, hints))
        self._check_precision(device, precision, network.used()["precision"])
        return network

    def _check_precision(self, device: str, asked: str, used: Optional[str]) -> None:
        names = [name for name in self._core.available_devices if name in device] or self._core.available_devices
        capable = {
            CAPABILITIES[capability]
            for name in names
            for capability in self._core.get_property(name, "OPTIMIZATION_CAPABILITIES")
            if capability in CAPABILITIES
        }
        check_precision(device, asked, used, sorted(capable))

    def convert(self, onnx: str, xml: str, weights: str) -> bool:
        model = self._core.read_model(onnx)
        if hasattr(self._ov, "save_model"):
            self._ov.save_model(model, xml, compress_to_fp16=False)
        else:
            self._ov.serialize(model, xml, weights)
        return True
