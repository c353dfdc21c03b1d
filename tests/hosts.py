"""Hosts made of a few files, for the doctor's checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_tune.doctor.checks import Check, Finding, Host
from edge_tune.experiment import Benchmark

NEW = {"python": "3.11.7", "numpy": "2.4.6", "openvino": "2026.4.1-22982-e2-releases/2026/4", "libusb": False}
OLD = {"python": "3.9.2", "numpy": "1.19.5", "openvino": "2.1.2021.4.2-3976-0943ed67223", "libusb": True}
NO_PLUGIN = {"error": 'Device with "MYRIAD" name is not registered in the OpenVINO Runtime'}
STICK = {"sys/bus/usb/devices/1-2/idVendor": "03e7\n", "sys/bus/usb/devices/1-2/idProduct": "2485\n"}


def host(
    root: Path,
    files: Mapping[str, str] | None = None,
    *,
    facts: Mapping[str, Any] = OLD,
    device: str = "MYRIAD",
    threads: int = 1,
    user_id: int = 1000,
    cpus: int = 4,
) -> Host:
    """A host with these files below `root`."""
    for name, content in (files or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return Host(Benchmark(device=device, threads=threads), "python3.9", facts, user_id, cpus, root)


def only(check: Check, of: Host) -> Finding:
    (finding,) = check(of)
    return finding
