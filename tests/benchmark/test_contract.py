"""What the runner promises under every runtime.

Those are this environment's OpenVINO, 2021.4.2 of `make legacy-runtime`, and ONNX Runtime in an interpreter that has
numpy besides and no OpenVINO.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import openvino as ov
import pytest
import torch
from onnx import load_from_string
from torch import nn

from edge_tune.benchmark.backend import RunnerBackend, check_device
from edge_tune.benchmark.names import Names
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark, Precision
from edge_tune.networks.onnx_export import to_onnx
from edge_tune.records.jsonfiles import plain
from tests.benchmark.conftest import IMAGE, cnn
from tests.interpreters import interpreter_with

LEGACY = Path(__file__).parents[2] / ".venv-ncs" / "bin" / "python"
QUICK = Benchmark(runs=10)


TODAYS, OLD, OTHER = "today's OpenVINO", "OpenVINO 2021.4.2", "ONNX Runtime"


@pytest.fixture(scope="module", params=[TODAYS, pytest.param(OLD, marks=pytest.mark.legacy_openvino), OTHER])
def runtime(request: pytest.FixtureRequest) -> str:
    assert request.param != OLD or LEGACY.exists(), "these tests need `make legacy-runtime`"
    return str(request.param)


@pytest.fixture(scope="module")
def python(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    if runtime == OTHER:
        return interpreter_with(tmp_path_factory.mktemp("other"), "numpy", "onnxruntime")
    return str(LEGACY) if runtime == OLD else None


@pytest.fixture(scope="module")
def cpu(python: str | None) -> Iterator[RunnerBackend]:
    backend = RunnerBackend(Benchmark(python=python))
    yield backend
    backend.close()


def test_describe_names_the_runtime(cpu: RunnerBackend, runtime: str) -> None:
    described = cpu.describe()
    name, version, device = {
        TODAYS: ("OpenVINO", ov.get_version(), "CPU"),
        OLD: ("OpenVINO", "2021.4.2", "CPU"),
        OTHER: ("ONNX Runtime", onnxruntime.__version__, "onnxruntime:CPU"),
    }[runtime]
    assert (described.runtime, described.device) == (name, device)
    assert described.runtime_version.startswith(version)
    assert described.devices == {device: described.device_name}


def test_measure_gives_figures_with_their_evidence(cpu: RunnerBackend, onnx: bytes) -> None:
    measured = cpu.measure(onnx, QUICK)
    evidence = plain(measured.evidence)
    # Counters are whole microseconds and the host is noisy; both are medians over the same runs.
    assert 0 < measured.latency_ms < 1.5 * measured.total_latency_ms
    assert measured.throughput_fps > 0
    assert (measured.latency_ratio, measured.total_latency_ratio) == (None, None)
    assert (evidence["precision"], evidence["threads"], evidence["streams"]) == ("f32", 1, 1)
    assert (evidence["runs"], evidence["stopped_by"]) == (10, "runs")
    assert evidence["counters"] == "mean of all runs"
    assert evidence["executed_layers"] > 0
    assert sum(layer.ms for layer in measured.layers) == pytest.approx(measured.latency_ms)
    names = Names(onnx).all_own([layer.name for layer in measured.layers])
    assert {"0", "3", "7"} <= set(names.values())  # the modules with weights
    assert evidence["warm_up_runs"] >= 40
    assert evidence["total_latency"]["n"] == evidence["latency"]["n"] == 10


def test_measure_takes_turns_with_the_reference(cpu: RunnerBackend, onnx: bytes, wide_onnx: bytes) -> None:
    measured = cpu.measure(onnx, QUICK, wide_onnx)
    evidence = plain(measured.evidence)
    assert measured.latency_ratio is not None
    assert measured.total_latency_ratio is not None
    # A quarter of the channels are about a 14th of the work here; a half leaves room for overheads.
    assert 0 < measured.latency_ratio < 0.5
    assert 0 < measured.total_latency_ratio < 0.5
    ratios = evidence["ratios"]
    for name in ("latency_ratio", "total_latency_ratio"):
        assert ratios[name]["low"] <= ratios[name]["ratio"] <= ratios[name]["high"]
    assert evidence["runs"] == 5 * ratios["rounds"] == evidence["reference"]["total_latency"]["n"]
    assert evidence["stopped_by"] in ("interval", "time")
    assert measured.latency_ms < evidence["reference"]["latency"]["median"]


def test_measure_gives_a_network_the_ratio_1_to_itself_and_keeps_its_noise(cpu: RunnerBackend, onnx: bytes) -> None:
    measured = cpu.measure(onnx, QUICK, onnx)
    assert (measured.latency_ratio, measured.total_latency_ratio) == (1.0, 1.0)
    assert measured.evidence.is_unpruned
    # Two copies of one network on a host that does other work; without turns they differ by up to 30 %.
    assert measured.evidence.intervals["total_latency_ratio"].ratio == pytest.approx(1, abs=0.2)


def test_measure_keeps_the_ratios_of_a_tiny_network_together(cpu: RunnerBackend) -> None:
    """Below 0.1 ms the counters, whole microseconds, show little; what is made of them must not contradict the rest."""
    small, wide = (to_onnx(cnn(width), (3, 8, 8)) for width in (8, 16))
    evidence = plain(cpu.measure(small, QUICK, wide).evidence)
    device, total = (evidence["ratios"][name] for name in ("latency_ratio", "total_latency_ratio"))
    assert 0 <= device["low"] <= device["ratio"] <= device["high"]
    # Device time is at least as far from equal as total time, on the same side.
    assert (device["ratio"] - total["ratio"]) * (total["ratio"] - 1) >= 0
    assert device["low"] <= total["high"]
    if evidence["stopped_by"] == "interval":
        assert all((one["high"] - one["low"]) / 2 <= 0.01 * one["ratio"] for one in (device, total))


def test_measure_checks_the_outputs_first(cpu: RunnerBackend, onnx: bytes) -> None:
    agreement = cpu.measure(onnx, QUICK).evidence.agreement
    assert agreement.off_by <= agreement.tolerance == 1e-3


def test_predict_agrees_with_torch(cpu: RunnerBackend, network: nn.Module, onnx: bytes) -> None:
    images = torch.randn(65, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth = network(images).numpy()
    np.testing.assert_allclose(cpu.predict(onnx, images.numpy(), QUICK), truth, atol=1e-4)  # another order of sums


def test_convert_gives_uncompressed_ir_that_computes_the_same(
    cpu: RunnerBackend, runtime: str, network: nn.Module, onnx: bytes, tmp_path: Path
) -> None:
    if runtime == OTHER:
        assert cpu.convert(onnx) is None  # it runs the ONNX file itself
        return
    xml, weights = cpu.convert(onnx)
    tmp_path.joinpath("model.xml").write_bytes(xml)
    tmp_path.joinpath("model.bin").write_bytes(weights)
    model = ov.Core().read_model(tmp_path / "model.xml")
    assert not any(op.get_element_type() == ov.Type.f16 for op in model.get_ops() if op.get_type_name() == "Constant")
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = torch.ones(1, *IMAGE)
    with torch.no_grad():
        np.testing.assert_allclose(compiled(image.numpy())[0], network(image).numpy(), atol=1e-4)


def test_measure_uses_bf16_when_asked_or_refuses(cpu: RunnerBackend, runtime: str, onnx: bytes) -> None:
    settings = Benchmark(runs=10, precision="bf16")
    if runtime != OTHER and "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert cpu.measure(onnx, settings).evidence.precision == "bf16"
    else:
        with pytest.raises(BenchmarkError, match=r"precision must be one that .*CPU computes in .* but got 'bf16'"):
            cpu.measure(onnx, settings)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_describe_refuses_the_very_precisions_that_measure_refuses(
    cpu: RunnerBackend, python: str | None, precision: Precision, onnx: bytes
) -> None:
    settings = Benchmark(runs=10, precision=precision, python=python)
    refusal = ""
    try:
        cpu.measure(onnx, settings)
    except BenchmarkError as error:
        refusal = str(error)
    if not refusal:
        assert check_device(settings).device in ("CPU", "onnxruntime:CPU")
        return
    with pytest.raises(BenchmarkError, match=r"precision must be one that .*CPU computes in") as refused:
        check_device(settings)
    assert str(refused.value) == refusal


def test_describe_refuses_more_threads_than_cores(python: str | None) -> None:
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(BenchmarkError, match=rf"threads must be at most .* cores they run on, {cores}, but got 4096"):
        check_device(Benchmark(threads=4096, python=python))


def test_measure_refuses_a_batch(cpu: RunnerBackend, onnx: bytes) -> None:
    model = load_from_string(onnx)
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(BenchmarkError, match=r"must take a batch of 1, but got one of input shape \[2, 3, 16, 16\]"):
        cpu.measure(model.SerializeToString(), QUICK)


def test_measure_refuses_a_file_that_is_no_network(cpu: RunnerBackend, runtime: str) -> None:
    with pytest.raises(BenchmarkError, match=r"^ONNX Runtime says: " if runtime == OTHER else r"^OpenVINO says: "):
        cpu.measure(b"no network", QUICK)


def a_stick_is_plugged_in() -> bool:
    vendors = Path("/sys/bus/usb/devices").glob("*/idVendor")
    return any(vendor.read_text().strip() == "03e7" for vendor in vendors)


@pytest.mark.legacy_openvino
@pytest.mark.skipif(a_stick_is_plugged_in(), reason="there is a stick")
def test_describe_says_what_a_missing_stick_needs() -> None:
    without_libusb = r"install libusb \(Debian: apt-get install libusb-1.0-0\) or pass --device CPU\. OpenVINO says: .*"
    without_stick = r"plug it in or pass --device CPU\. no such device is connected"
    with pytest.raises(BenchmarkError, match=rf"but got 'MYRIAD'; ({without_libusb}|{without_stick})$"):
        RunnerBackend(Benchmark(device="MYRIAD", python=str(LEGACY))).describe()
