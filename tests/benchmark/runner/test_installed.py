import sys

import pytest

from installed import open_runtime
from refusals import RefusalError

OPENVINO = ("openvino", "openvino.runtime", "openvino.inference_engine", "openvino_telemetry")


@pytest.fixture(autouse=True)
def with_telemetry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("device", "hidden", "name"),
    [
        ("CPU", (), "OpenVINO"),
        ("AUTO:CPU", (), "OpenVINO"),
        ("onnxruntime:CPU", (), "ONNX Runtime"),
        ("CPU", OPENVINO, "ONNX Runtime"),
    ],
)
def test_open_runtime_takes_openvino_unless_the_device_says_otherwise(
    device: str, hidden: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, *hidden)
    runtime = open_runtime(device)
    assert runtime.name == name
    assert runtime.named(device) in runtime.devices() or device == "AUTO:CPU"


@pytest.mark.parametrize(
    ("device", "hidden", "says"),
    [
        ("CPU", (*OPENVINO, "onnxruntime"), r"must have OpenVINO or ONNX Runtime, but {} has neither; pip install"),
        (
            "onnxruntime:CPU",
            ("onnxruntime",),
            r"have ONNX Runtime for the device 'onnxruntime:CPU', but {} has none",
        ),
        (
            "MYRIAD",
            OPENVINO,
            r"have OpenVINO for the device 'MYRIAD', but {} has ONNX Runtime only; .*onnxruntime:CPU",
        ),
    ],
)
def test_open_runtime_says_what_the_interpreter_lacks(
    device: str, hidden: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, *hidden)
    with pytest.raises(RefusalError, match=says.format(sys.executable)):
        open_runtime(device)
