"""What the doctor looks at: pure functions of a host, each of which says one or more findings.

A host is a folder that holds /sys, /proc, /etc and /tmp, and what an interpreter said of itself (probe.py). Of a board
the folder holds copies of what is looked at.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_tune.benchmark.board import PYTHON
from edge_tune.doctor.probe import ONNX_RUNTIME, is_for_onnx_runtime
from edge_tune.experiment import Benchmark

if TYPE_CHECKING:
    from edge_tune.networks.compute import Gpus

STICK = "MYRIAD"
STICK_RUNTIME = (
    "the newest wheel that has it is openvino==2021.4.2, for Python 3.6 to 3.9: `make legacy-runtime` makes an "
    "environment with it; then give --device-python .venv-ncs/bin/python"
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: ok; warn: measurable, but not well; fix: not measurable before this is mended."""

    level: Literal["ok", "warn", "fix"]
    check: str
    says: str

    def __str__(self) -> str:
        return f"{self.level:<5}{self.check}: {self.says}"


@dataclass(frozen=True)
class Host:
    """What the checks look at.

    Attributes:
        settings: The device and how it is to be measured.
        facts: What probe.py says, run by the interpreter that is to own the device; and "ended", how it
            ended, if that was not well. Of a board "unreachable" or "does_not_start" says why nothing is known.
        cpus: Cores that a process may run on.
        gpus: What PyTorch sees, for the trials that run here; None if nobody asked.
        root: The folder that stands for /.
    """

    settings: Benchmark
    interpreter: str
    facts: Mapping[str, Any]
    user_id: int
    cpus: int
    root: Path = Path("/")
    gpus: "Gpus | None" = None

    @property
    def needs_stick(self) -> bool:
        """Tell whether the device is, or is made of, a Neural Compute Stick."""
        return STICK in self.settings.device

    def install(self, package: str) -> str:
        """Return the command that gives the interpreter a package, or what else there is to do."""
        if self.settings.board is None:
            return f"{self.interpreter} -m pip install {package}"
        if self.interpreter != PYTHON:
            return f"ssh {self.settings.board} {shlex.quote(self.interpreter)} -m pip install {package}"
        both = f"numpy {'openvino' if package == 'numpy' else package}"
        own = f"python3 -m venv edge_tune && edge_tune/bin/pip install {both}"  # Debian's own is not to be changed
        return f"ssh {self.settings.board} '{own}', then give --device-python edge_tune/bin/python"

    def read(self, path: str) -> str | None:
        """Return the content of a file, or None if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None


Check = Callable[[Host], Iterator[Finding]]


def connection(host: Host) -> Iterator[Finding]:
    """Say whether a board can be reached."""
    if "unreachable" in host.facts:
        yield Finding("fix", "connection", host.facts["unreachable"])
    else:
        yield Finding("ok", "connection", f"ssh {host.settings.board} answers.")


def interpreter(host: Host) -> Iterator[Finding]:
    """Say whether the interpreter starts and has numpy."""
    if "unreachable" in host.facts:
        return
    if "python" not in host.facts:
        ended = f"{host.interpreter} {host.facts['ended']}; name another: --device-python."
        yield Finding("fix", "interpreter", host.facts.get("does_not_start", ended))
        return
    yield Finding("ok", "interpreter", f"Python {host.facts['python']}, {host.interpreter}.")
    if host.facts["numpy"] is None:
        yield Finding("fix", "numpy", f"the runner needs it: {host.install('numpy')}.")


def runtime(host: Host) -> Iterator[Finding]:
    """Say whether it has the runtime of the device that is asked for, and OpenVINO the plugin of each part of it."""
    if "python" not in host.facts:
        return
    device, version, other = host.settings.device, _openvino_version(host), host.facts.get(ONNX_RUNTIME)
    if is_for_onnx_runtime(device, version) and (other or device != "CPU"):
        yield from _onnx_runtime(host, device, other)
        return
    if device == "CPU" and version is None:
        wheels = f"{host.install('openvino')}, or the same with onnxruntime"
        yield Finding("fix", "runtime", f"this interpreter has neither OpenVINO nor ONNX Runtime; {wheels}.")
        return
    if version is None:
        wheel = f"for a stick, {STICK_RUNTIME}" if host.needs_stick else host.install("openvino")
        yield Finding("fix", "OpenVINO", f"this interpreter has none; {wheel}.")
        return
    yield Finding("ok", "OpenVINO", f"{version}.")
    if "parts" not in host.facts:
        yield Finding("fix", "plugin", f"looking for {host.settings.device}, the interpreter {host.facts['ended']}.")
    for part, found in host.facts.get("parts", {}).items():
        yield _plugin(part, found, version)


def governor(host: Host) -> Iterator[Finding]:
    """Say whether the processor keeps its frequency."""
    files = sorted((host.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({host.read(str(file)) or "unknown" for file in files})
    if not governors:
        yield Finding("ok", "frequency", "this host has no governor to set (usual for a virtual machine).")
    elif governors == ["performance"]:
        yield Finding("ok", "frequency", "the governor is performance.")
    else:
        advice = "for steady figures: sudo cpupower frequency-set -g performance"
        yield Finding("warn", "frequency", f"the governor is {', '.join(governors)}; {advice}.")


def cores(host: Host) -> Iterator[Finding]:
    """Say whether there is a core for the measurement alone, and whether it is free."""
    threads = host.settings.threads
    if host.settings.board:
        yield Finding(
            "ok", "cores", f"{host.cpus}, of which {min(threads, host.cpus)} can measure; nothing is trained there."
        )
    elif host.cpus > threads:
        yield Finding("ok", "cores", f"{host.cpus}, of which {threads} can measure and the others retrain.")
    else:
        yield Finding(
            "warn",
            "cores",
            f"{host.cpus}, and {threads} must measure, so that retraining disturbs them: use a host with more "
            f"cores, or one trial at a time.",
        )
    load = float((host.read("proc/loadavg") or "0").split()[0])
    if load <= max(0, host.cpus - threads) + 0.25:
        yield Finding("ok", "load", f"{load:.2f} in the last minute.")
    else:
        advice = "end what else runs here, or trust the ratios more than the milliseconds"
        yield Finding("warn", "load", f"{load:.2f} in the last minute on {host.cpus} cores: {advice}.")


def gpus(host: Host) -> Iterator[Finding]:
    """Say what trials that run here compute on."""
    if host.gpus is None:
        return
    if not host.gpus.names:
        yield Finding("ok", "GPUs", f"trials that run here compute on the CPU: {host.gpus.problem}.")
    elif host.gpus.problem:
        yield Finding(
            "warn", "GPUs", f"trials that run here compute on the CPU, but could on a GPU: {host.gpus.problem}."
        )
    else:
        how = "is on: several trials can share one" if host.gpus.shared else "is off: several trials on one take turns"
        yield Finding("ok", "GPUs", f"{', '.join(host.gpus.names)}; CUDA's Multi-Process Service {how}.")


def quota(host: Host) -> Iterator[Finding]:
    """Say whether a control group allows less processor time than there are cores."""
    allowed = min(_quotas(host), default=float(host.cpus))
    if allowed >= host.cpus:
        yield Finding("ok", "CPU quota", "no control group limits this process.")
        return
    yield Finding(
        "warn",
        "CPU quota",
        f"a control group allows the time of {allowed:g} of {host.cpus} cores, which a runtime does not see: keep "
        f"Benchmark(threads=...) and what runs besides below that, or lift it (docker run --cpus).",
    )


def _onnx_runtime(host: Host, device: str, version: str | None) -> Iterator[Finding]:
    if version is None:
        yield Finding("fix", "ONNX Runtime", f"this interpreter has none; {host.install(ONNX_RUNTIME)}.")
    elif device in ("CPU", f"{ONNX_RUNTIME}:CPU"):
        yield Finding("ok", "ONNX Runtime", f"{version}; it measures the CPU, as {ONNX_RUNTIME}:CPU.")
    else:
        yield Finding("fix", "ONNX Runtime", f"{version} measures the CPU only: give --device {ONNX_RUNTIME}:CPU.")


def _openvino_version(host: Host) -> str | None:
    said = host.facts["openvino"]
    found = re.search(r"20\d\d(\.\d+)*", said or "")
    return found.group() if found else said


def _plugin(part: str, found: Mapping[str, Any], version: str) -> Finding:
    if found.get("connected"):
        return Finding("ok", "plugin", f"{part} can be used.")
    says = found.get("error")
    if says is None:
        return Finding("fix", "plugin", f"{part} has its plugin, but no such device is connected.")
    if part != STICK:
        return Finding("fix", "plugin", f"{part} cannot be used with this OpenVINO, which says: {says}.")
    if "not registered" not in says:
        return Finding("fix", "plugin", f"{part}: OpenVINO says: {says}; the checks of the stick tell more.")
    why = "the wheels of 2022 lack it" if version.startswith("2022") else "it was dropped in 2023.0"
    return Finding("fix", "plugin", f"OpenVINO {version} has no {part} plugin ({why}); {STICK_RUNTIME}.")


def _quotas(host: Host) -> Iterator[float]:
    """Yield each limit in cores that a control group of this process, or one above it, sets."""
    for line in (host.read("proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = host.root / "sys/fs/cgroup" / controllers
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (limit := _limit(host, folder)):
                yield limit


def _limit(host: Host, folder: Path) -> float | None:
    """Return the cores that one control group allows, of version 2 or 1; None if it does not limit them."""
    both = (host.read(f"{folder}/cpu.max") or "").split() or [
        host.read(f"{folder}/cpu.cfs_quota_us") or "-1",
        host.read(f"{folder}/cpu.cfs_period_us") or "100000",
    ]
    return None if both[0] in ("max", "-1") else int(both[0]) / int(both[1])
