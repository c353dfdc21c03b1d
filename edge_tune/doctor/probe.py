"""What an interpreter has for a device. Runs alone: Python 3.6 or newer, nothing of edge_tune, numpy not needed.

    python probe.py MYRIAD [PATTERN...]

With patterns of files, for a host whose files cannot be looked at from where they are checked, it says these as well.
Prints JSON objects, one a line, which together are the answer: a plugin may end the process, or hang, and what
was said before that stays said.
    {"python": "3.9.2", "numpy": "1.19.5" or null, "openvino": "2021.4.2-..." or null, "onnxruntime": "1.32.0" or null,
     "libusb": true}
    {"parts": {"MYRIAD": {"connected": ["1.2-ma2480"]}}}    or {"MYRIAD": {"error": "what OpenVINO says"}}
    {"user_id": 1000, "cpus": 4, "files": {"proc/loadavg": "0.20 0.18 0.12 1/80 11206"}}
"""

import ctypes
import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List

MOST_BYTES = 1 << 16
"""No file that is checked is so large."""

ONNX_RUNTIME = "onnxruntime"
RUNTIMES = (("openvino", "Core"), ("openvino.runtime", "Core"), ("openvino.inference_engine", "IECore"))


def say(**facts: Any) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def has_libusb() -> bool:
    """Tell whether this interpreter can load the library that the stick's plugin needs."""
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        return False
    return True


def version_of(module: str) -> Any:
    """Return the version of a module, or None where there is none."""
    try:
        return importlib.import_module(module).__version__
    except ImportError:
        return None


def open_runtime() -> Any:
    """Return (module, its core) of the newest API there is, or None."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as in the runner's installed.py: nothing reports home
    for name, core in RUNTIMES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, core):
            return module, getattr(module, core)()
    return None


def parts_of(device: str) -> List[str]:
    """Return the devices that a name such as HETERO:MYRIAD,CPU is made of, without their numbers."""
    kind, _, list_of_parts = device.partition(":")
    return re.findall(r"(?:^|,)\s*([A-Za-z_]+)", list_of_parts) or re.findall("^[A-Za-z_]+", kind)


def look(core: Any, part: str) -> Dict[str, Any]:
    """Return which devices of a kind are connected, or what its plugin says instead."""
    if part in ("AUTO", "MULTI", "HETERO", "BATCH"):  # they use what there is
        return {"connected": list(core.available_devices)}
    ask = core.get_property if hasattr(core, "get_property") else core.get_metric
    try:
        return {"connected": list(ask(part, "AVAILABLE_DEVICES"))}
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return {"error": " ".join(line for line in lines if line and not line.startswith("Exception from"))[:400]}


def is_for_onnx_runtime(device: str, openvino: Any) -> bool:
    """Tell whether the runner would have ONNX Runtime measure this device (runner/installed.py)."""
    return device.startswith(ONNX_RUNTIME + ":") or (device == "CPU" and not openvino)


def contents(patterns: List[str], root: Path = Path("/")) -> Dict[str, str]:
    """Return the content of each file that can be read, by its path below the root."""
    found = {}
    for file in (file for pattern in patterns for file in root.glob(pattern)):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        if len(text) < MOST_BYTES:
            found[str(file.relative_to(root))] = text
    return found


def main(device: str, *patterns: str) -> None:
    """Say what there is."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as in the runner's installed.py
    if patterns:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        say(user_id=os.getuid(), cpus=cpus, files=contents(list(patterns)))
    found = open_runtime()
    say(
        python=sys.version.split()[0],
        numpy=version_of("numpy"),
        openvino=found[0].get_version() if found else None,
        onnxruntime=version_of(ONNX_RUNTIME) if is_for_onnx_runtime(device, found) else None,
        libusb=has_libusb(),
    )
    if found and not is_for_onnx_runtime(device, found):
        say(parts={part: look(found[1], part) for part in parts_of(device)})


if __name__ == "__main__":
    main(*sys.argv[1:])
