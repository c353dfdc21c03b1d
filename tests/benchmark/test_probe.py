import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import openvino as ov
import pytest

from edge_tune.doctor import probe
from edge_tune.doctor.__main__ import PROBE, ask
from tests.benchmark.runner.test_main import python36


def test_probe_says_what_this_interpreter_has() -> None:
    facts = ask(sys.executable, "CPU")
    assert facts["python"] == sys.version.split()[0]
    assert facts["openvino"] == ov.get_version()
    assert facts["parts"] == {"CPU": {"connected": [""]}}
    assert facts["ended"] is None


def test_probe_says_which_onnx_runtime_there_is_where_the_device_is_its() -> None:
    facts = ask(sys.executable, "onnxruntime:CPU")
    assert facts["onnxruntime"] == onnxruntime.__version__
    assert "parts" not in facts
    assert facts["ended"] is None


def test_probe_says_that_this_openvino_has_no_plugin_for_the_stick() -> None:
    assert "not registered" in ask(sys.executable, "MYRIAD")["parts"]["MYRIAD"]["error"]


def test_probe_has_the_syntax_of_python_3_6() -> None:
    assert ast.parse(PROBE.read_text(), feature_version=(3, 6)).body  # newer syntax raises SyntaxError


def test_probe_runs_on_python_3_6() -> None:
    python = python36()
    if python is None:
        pytest.skip("no Python 3.6 here; pyenv install 3.6.15")
    facts = ask(python, "CPU", "proc/loadavg")
    assert facts["python"].startswith("3.6.")
    assert facts["ended"] is None
    assert "proc/loadavg" in facts["files"]


@pytest.mark.parametrize(
    ("device", "parts"),
    [
        ("CPU", ["CPU"]),
        ("GPU.1", ["GPU"]),
        ("MYRIAD.1.2-ma2480", ["MYRIAD"]),
        ("HETERO:MYRIAD.1.2-ma2480,CPU", ["MYRIAD", "CPU"]),
        ("AUTO", ["AUTO"]),
        ("AUTO:-GPU", ["AUTO"]),
        ("MULTI:GPU(2), CPU", ["GPU", "CPU"]),
    ],
)
def test_parts_of_names_each_device(device: str, parts: list[str]) -> None:
    assert probe.parts_of(device) == parts


def test_look_asks_the_older_api_for_its_metric() -> None:
    core = SimpleNamespace(get_metric=lambda part, name: [f"{part} {name}"])
    assert probe.look(core, "MYRIAD") == {"connected": ["MYRIAD AVAILABLE_DEVICES"]}


def test_probe_says_what_is_in_the_files_that_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("0.20 0.18")
    (tmp_path / "proc/large").write_text("x" * probe.MOST_BYTES)
    (tmp_path / "proc/folder").mkdir()
    assert probe.contents(["proc/*", "sys/*"], tmp_path) == {"proc/loadavg": "0.20 0.18"}


def test_has_libusb_agrees_with_the_loader() -> None:
    libraries = [*Path("/usr/lib").rglob("libusb-1.0.so.0")]
    assert probe.has_libusb() == bool(libraries)
