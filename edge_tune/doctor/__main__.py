"""Can this host measure the device? One line a check, and what to mend.

python -m edge_tune.doctor --device MYRIAD --device-python .venv-ncs/bin/python
python -m edge_tune.doctor --device-host pi@board
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
from edge_tune.arguments import given_text
from edge_tune.benchmark import board
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.command import say
from edge_tune.doctor import checks, stick
from edge_tune.doctor.checks import STICK, Check, Finding, Host
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.waiting import told
from edge_tune.wording import counted

PROBE = Path(__file__).with_name("probe.py")
PROBE_S = 60.0
LIMIT_BYTES = 1 << 20
OF_THE_RUNTIME: tuple[Check, ...] = (checks.interpreter, checks.runtime)
OF_A_STICK: tuple[Check, ...] = (stick.libusb, stick.usb, stick.udev_rule)
OF_THE_PROCESSOR: tuple[Check, ...] = (checks.governor, checks.cores, checks.quota, checks.gpus)

FILES = (
    "proc/loadavg",
    "proc/self/cgroup",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "sys/fs/cgroup/**/cpu.max",
    "sys/fs/cgroup/**/cpu.cfs_*_us",
)
FILES_OF_A_STICK = (
    "sys/bus/usb/devices/*/idVendor",
    "sys/bus/usb/devices/*/idProduct",
    "sys/bus/usb/devices/*/speed",
    "etc/udev/rules.d/*.rules",
    "run/udev/rules.d/*.rules",
    "usr/lib/udev/rules.d/*.rules",
)
"""What the checks look at, on a board."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.doctor") -> int:
    """Print the findings; return 0 when the device can be measured, else 1; 2 for bad input."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--device", default="CPU", metavar="NAME", help="OpenVINO device, or onnxruntime:CPU")
    parser.add_argument(
        "--device-python",
        type=given_text,
        metavar="PATH",
        help=f"interpreter that is to own the device (default: this one; {board.PYTHON} on a --device-host)",
    )
    parser.add_argument(
        "--device-host",
        type=given_text,
        action="append",
        metavar="USER@HOST",
        help="look at a board that has the device instead of this host: as ssh names it; once for each of several",
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    settings = Benchmark(device=given.device, python=given.device_python, host=given.device_host)
    ExperimentError.raise_if(settings.problems())
    return max(_look(one) for one in settings.each_board or (settings,))


def _look(settings: Benchmark) -> int:
    """Print what is found on one host. Returns 1 if something is to be mended, 0 if nothing is."""
    with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder:
        with told(lambda line: say(line, sys.stderr), f"{settings.board or 'the interpreter'} to say what it has"):
            host = that_host(settings, Path(folder)) if settings.board else this_host(settings)
        findings = list(examine(host))
    for finding in findings:
        say(str(finding))
    say(_verdict(settings.device, findings))
    return int(any(finding.level == "fix" for finding in findings))


def examine(host: Host) -> Iterator[Finding]:
    """Yield all findings on a host and its device."""
    is_here = host.settings.board is None
    look: list[Check] = [*OF_THE_RUNTIME] if is_here else [checks.connection, *OF_THE_RUNTIME]
    if is_here or "files" in host.facts:
        if host.needs_stick:
            look += [*OF_A_STICK, stick.mutex] if is_here else OF_A_STICK  # whose the mutex is, no copy tells
        look += OF_THE_PROCESSOR
    for check in look:
        yield from check(host)


def that_host(settings: Benchmark, root: Path) -> Host:
    """Return the board that the settings name, as the checks see it, with copies of its files below `root`."""
    assert settings.board is not None
    interpreter = settings.python or board.PYTHON
    files = (*FILES, *(FILES_OF_A_STICK if STICK in settings.device else ()))
    facts = ask(interpreter, settings.device, *files, host=settings.board)
    for name, content in facts.get("files", {}).items():
        copy = root / name
        if copy.resolve().is_relative_to(root.resolve()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(content)
    return Host(
        settings=settings,
        interpreter=interpreter,
        facts=facts,
        user_id=facts.get("user_id", 0),
        cpus=facts.get("cpus", 0),
        root=root,
    )


def this_host(settings: Benchmark) -> Host:
    """Return the host that this process runs on, as the checks see it."""
    from edge_tune.networks.compute import gpus_here  # only now: PyTorch takes seconds to import

    interpreter = settings.python or sys.executable
    return Host(
        settings=settings,
        interpreter=interpreter,
        facts=ask(interpreter, settings.device),
        user_id=os.getuid(),
        cpus=len(usable_cpus()),
        gpus=gpus_here(),
    )


def ask(
    interpreter: str,
    device: str,
    *files: str,
    host: str | None = None,
    seconds: float = PROBE_S,
    probe: Path = PROBE,
) -> dict[str, Any]:
    """Return what an interpreter says of itself and the device; "ended" says how it ended, if not well.

    Args:
        files: Patterns of those that it is to say as well.
        host: Where it is, if not here; "unreachable" or "does_not_start" says why it cannot be asked.
    """
    ended = None
    arguments = (device, *files)
    command = board.ssh(host, interpreter, *arguments) if host else [interpreter, str(probe), *arguments]
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.run(
                command,
                input=board.text_of(probe) if host else b"",
                stdout=answers,
                stderr=complaints,
                timeout=seconds,
                check=False,
                preexec_fn=_limit_files,
            )
            if host and process.returncode in board.FAILURES:
                return _not_asked(host, interpreter, process.returncode, complaints)
            ended = _how_it_ended(process.returncode, complaints)
        except OSError as error:
            if host:
                return {"unreachable": board.no_ssh(host)}
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


def _not_asked(host: str, interpreter: str, code: int, complaints: IO[bytes]) -> dict[str, Any]:
    """Return why the interpreter of a board cannot be asked."""
    said = " ".join(_content(complaints).decode(errors="replace").split())[-600:]
    if code == board.SSH_FAILED:
        return {"unreachable": board.unreachable(host, said)}
    return {"does_not_start": board.does_not_start(host, interpreter, said), "ended": "does not start"}


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
