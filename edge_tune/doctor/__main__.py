"""Can this host measure the device? One line a check, and what to mend.

python -m edge_tune.doctor --device MYRIAD --device-python .venv-ncs/bin/python
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edge_tune import command
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.command import say
from edge_tune.doctor import checks, stick
from edge_tune.doctor.checks import Check, Finding, Host
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.waiting import told
from edge_tune.wording import counted

PROBE = Path(__file__).with_name("probe.py")
PROBE_S = 60.0
LIMIT_BYTES = 1 << 20
OF_THE_RUNTIME: tuple[Check, ...] = (checks.interpreter, checks.openvino)
OF_A_STICK: tuple[Check, ...] = (stick.libusb, stick.usb, stick.udev_rule, stick.mutex)
OF_THE_PROCESSOR: tuple[Check, ...] = (checks.governor, checks.cores, checks.quota, checks.gpus)


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.doctor") -> int:
    """Print the findings; return 0 when the device can be measured, else 1; 2 for bad input."""
    return command.run(lambda words: _main(words, program), arguments)


def _main(words: Sequence[str], program: str) -> int:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--device", default="CPU", metavar="NAME", help="OpenVINO device: CPU, GPU, MYRIAD, ...")
    parser.add_argument(
        "--device-python", default=sys.executable, metavar="PATH", help="interpreter that is to own the device"
    )
    given = parser.parse_args(words)
    settings = Benchmark(device=given.device)
    ExperimentError.raise_if(settings.problems())
    with told(lambda line: say(line, sys.stderr), f"{given.device_python} to say what it has"):
        host = this_host(settings, given.device_python)
    findings = list(examine(host))
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
    from edge_tune.networks.compute import gpus_here  # only now: PyTorch takes seconds to import

    return Host(
        settings=settings,
        interpreter=interpreter,
        facts=ask(interpreter, settings.device),
        user_id=os.getuid(),
        cpus=len(usable_cpus()),
        gpus=gpus_here(),
    )


def ask(interpreter: str, device: str, seconds: float = PROBE_S, probe: Path = PROBE) -> dict[str, Any]:
    """Return what an interpreter says of itself and the device; "ended" says how it ended, if not well."""
    ended = None
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as complaints:
        try:
            command = [interpreter, str(probe), device]
            process = subprocess.run(
                command, stdout=answers, stderr=complaints, timeout=seconds, check=False, preexec_fn=_limit_files
            )
            ended = _how_it_ended(process.returncode, complaints)
        except OSError as error:
            ended = f"does not start: {error.strerror}"
        except subprocess.TimeoutExpired:
            ended = f"did not answer within {seconds:g} s"
        said = _facts(_content(answers))
    if not said and not ended:
        ended = "says nothing: is it a Python interpreter?"
    return {**said, "ended": ended}


def _limit_files() -> None:
    """Have the system end this process once a file of its is larger than any probe's answer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


def _how_it_ended(code: int, complaints: IO[bytes]) -> str | None:
    if not code:
        return None
    if -code == signal.SIGXFSZ:
        return f"writes without end: more than {LIMIT_BYTES >> 20} MiB; is it a Python interpreter?"
    last = _content(complaints).decode(errors="replace").strip().splitlines()[-1:]
    return " ".join([f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}", *last])


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _facts(said: bytes) -> dict[str, Any]:
    """Return the facts that the lines of a probe hold together; lines that are none are left out."""
    facts: dict[str, Any] = {}
    for line in said.decode(errors="replace").splitlines():
        if line.startswith("{"):
            with suppress(ValueError, RecursionError):
                facts |= json.loads(line)
    return facts


def _verdict(device: str, findings: Sequence[Finding]) -> str:
    to_mend = sum(finding.level == "fix" for finding in findings)
    if to_mend:
        return f"{device} cannot be measured yet: mend the {counted(to_mend, 'line')} marked fix, from the first on."
    return f"{device} can be measured."


if __name__ == "__main__":
    sys.exit(main())
