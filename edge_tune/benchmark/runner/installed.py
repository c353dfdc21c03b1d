"""Which OpenVINO this interpreter has."""

import importlib
import sys

from openvino_api1 import InferenceEngine
from openvino_api2 import OpenVino
from refusals import RefusalError
from runtime import Runtime


def open_runtime() -> Runtime:
    """Return the newest API that this interpreter's OpenVINO has."""
    # Where openvino_telemetry is installed, importing openvino forks a process that reports to the network: on the
    # very core that measures, and with this process's pipes. Without it OpenVINO uses its own stub.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    for module, generation, marker in (
        ("openvino", OpenVino, "Core"),
        ("openvino.runtime", OpenVino, "Core"),
        ("openvino.inference_engine", InferenceEngine, "IECore"),
    ):
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        if hasattr(found, marker):
            return generation(found)
    raise RefusalError("the interpreter must have OpenVINO, but %s has none; pip install openvino." % sys.executable)
