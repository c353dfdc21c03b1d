"""Can this host measure the device? One line a check, and what to mend.

python -m edge_tune.doctor --device MYRIAD --device-python .venv-ncs/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_tune import command
from edge_tune.benchmark import checks, stick
from edge_tune.benchmark.checks import Check, Finding, Host
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.command import say
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.wording import counted

PROBE = Path(__file__).with_name("benchmark") / "probe.py"
PROBE_S = 60.0
OF_THE_RUNTIME: tuple[Check, ...] = (checks.interpreter, checks.openvino)
OF_A_STICK: tuple[Check, ...] = (stick.libusb, stick.usb, stick.udev_rule, stick.mutex)
OF_THE_PROCESSOR: tuple[Check, ...] = (checks.governor, checks.cores, checks.quota)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return 0 when the device can be measured, else 1; 2 for bad input."""
    return command.run(_main, arguments)


def _main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge_tune.doctor", description=__doc__)
    parser.add_argument("--device", default="CPU", metavar="NAME", help="OpenVINO device: CPU, GPU, MYRIAD, ...")
    parser.add_argument(
        "--device-python", default=sys.executable, metavar="PATH", help="interpreter that is to own the device"
    )
    given = parser.parse_args(words)
    settings = Benchmark(device=given.device)
    ExperimentError.raise_if(settings.problems())
    findings = list(examine(this_host(settings, given.device_python)))
    for finding in findings:
        say(str(finding))
    say(_verdict(given.device, findings))
    return int(any(finding.level == "fix" for finding in findings))


def examine(host: Host) -> Iterator[Finding]:
    """Yield all findings on a host and its device."""
    for check in (*OF_THE_RUNTIME, *(OF_A_STICK if host.needs_stick else ()), *OF_THE_PROCESSOR):
        yield from check(host)


def this_host(settings: Benchmark, interpreter: str) -> Host:
    """Return the host that this process runs on, as the checks see it."""
    return Host(
        settings=settings,
        interpreter=interpreter,
        facts=ask(interpreter, settings.device),
        user_id=os.getuid(),
        cpus=len(usable_cpus()),
    )


def ask(interpreter: str, device: str, seconds: float = PROBE_S, probe: Path = PROBE) -> dict[str, Any]:
    """Return what an interpreter says of itself and the device; "ended" says how it ended, if not well."""
    ended = None
    try:
        process = subprocess.run([interpreter, str(probe), device], capture_output=True, timeout=seconds, check=False)
        said, code = process.stdout, process.returncode
        if code:
            last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
            ended = " ".join([f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}", *last])
    except OSError as error:
        said, ended = b"", f"does not start: {error.strerror}"
    except subprocess.TimeoutExpired as error:
        said, ended = error.stdout or b"", f"did not answer within {seconds:g} s"
    lines = [json.loads(line) for line in said.decode().splitlines() if line.startswith("{")]
    if not lines and not ended:
        ended = "says nothing: is it a Python interpreter?"
    return {key: value for facts in (*lines, {"ended": ended}) for key, value in facts.items()}


def _verdict(device: str, findings: Sequence[Finding]) -> str:
    to_mend = sum(finding.level == "fix" for finding in findings)
    if to_mend:
        return f"{device} cannot be measured yet: mend the {counted(to_mend, 'line')} marked fix, from the first on."
    return f"{device} can be measured."


if __name__ == "__main__":
    sys.exit(main())
