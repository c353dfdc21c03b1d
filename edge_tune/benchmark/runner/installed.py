"""Which runtime this interpreter has."""

import importlib
import os
import sys
from typing import Any, Optional

from onnx_runtime import OnnxRuntime
from openvino_api1 import InferenceEngine
from openvino_api2 import OpenVino
from refusals import RefusalError
from runtime import Runtime

OPENVINOS = (
    ("openvino", OpenVino, "Core"),
    ("openvino.runtime", OpenVino, "Core"),
    ("openvino.inference_engine", InferenceEngine, "IECore"),
)
OTHERS = (("onnxruntime", OnnxRuntime, "InferenceSession"),)
"""Module, which is how the names of its devices begin, too; class; what the module has if it is the one."""


def open_runtime(device: str) -> Runtime:
    """Return the runtime that has a device: the one that its name begins with, as in "onnxruntime:CPU".

    Any other name is OpenVINO's, of which the newest API counts that this interpreter has; "CPU" is another runtime's
    where there is no OpenVINO.
    """
    named = [line for line in OTHERS if device.startswith(line[0] + ":")]
    for module, generation, marker in () if named else OPENVINOS:
        if hasattr(_module(module), marker):
            return generation(_module(module))
    for module, runtime, marker in named or OTHERS:
        if hasattr(_module(module), marker):
            if not named and device != "CPU":
                raise RefusalError(
                    "the interpreter must have OpenVINO for the device %r, but %s has %s only; pip install openvino, "
                    "or pass --device %s:CPU." % (device, sys.executable, runtime.name, module)
                )
            return runtime(_module(module))
        if named:
            raise RefusalError(
                "the interpreter must have %s for the device %r, but %s has none; pip install %s."
                % (runtime.name, device, sys.executable, module)
            )
    raise RefusalError(
        "the interpreter must have OpenVINO or ONNX Runtime, but %s has neither; pip install openvino, or pip install "
        "onnxruntime." % sys.executable
    )


def _module(name: str) -> Optional[Any]:
    # Where openvino_telemetry is installed, importing openvino forks a process that reports to the network: on the
    # very core that measures, and with this process's pipes. Without it OpenVINO uses its own stub.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # ONNX Runtime reports home from 1.29 on, on Linux too, by a thread of its own, unless this is set before it starts.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
