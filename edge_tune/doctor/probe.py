"""What an interpreter has for a device. Runs alone: Python 3.6 or newer, nothing of edge_tune, numpy not needed.

    python probe.py MYRIAD

Prints JSON objects, one a line, which together are the answer: a plugin may end the process, or hang, and what
was said before that stays said.
    {"python": "3.9.2", "numpy": "1.19.5" or null, "openvino": "2021.4.2-..." or null, "libusb": true}
    {"parts": {"MYRIAD": {"connected": ["1.2-ma2480"]}}}    or {"MYRIAD": {"error": "what OpenVINO says"}}
"""

import ctypes
import importlib
import json
import re
import sys
from typing import Any

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


def parts_of(device: str) -> list[str]:
    """Return the devices that a name such as HETERO:MYRIAD,CPU is made of, without their numbers."""
    kind, _, list_of_parts = device.partition(":")
    return re.findall(r"(?:^|,)\s*([A-Za-z_]+)", list_of_parts) or re.findall("^[A-Za-z_]+", kind)


def look(core: Any, part: str) -> dict[str, Any]:
    """Return which devices of a kind are connected, or what its plugin says instead."""
    if part in ("AUTO", "MULTI", "HETERO", "BATCH"):  # they use what there is
        return {"connected": list(core.available_devices)}
    ask = core.get_property if hasattr(core, "get_property") else core.get_metric
    try:
        return {"connected": list(ask(part, "AVAILABLE_DEVICES"))}
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return {"error": " ".join(line for line in lines if line and not line.startswith("Exception from"))[:400]}


def main(device: str) -> None:
    """Say what there is."""
    found = open_runtime()
    say(
        python=sys.version.split()[0],
        numpy=version_of("numpy"),
        openvino=found[0].get_version() if found else None,
        libusb=has_libusb(),
    )
    if found:
        say(parts={part: look(found[1], part) for part in parts_of(device)})


if __name__ == "__main__":
    main(sys.argv[1])
