"""The process that owns the device on another host, such as a board: reached over ssh, with nothing installed there.

The runner travels through the connection, and so does what is in the files that requests and answers name. The host
needs an sshd and a Python with numpy and OpenVINO or ONNX Runtime. How it is reached (user, key, port, a jump host) is
OpenSSH's to know, from ~/.ssh/config.
"""

import base64
import io
import re
import shlex
import shutil
import zipfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_tune.benchmark.child import Child, ChildError
from edge_tune.errors import BenchmarkError

RUNNER = Path(__file__).with_name("runner")
ARRIVAL = RUNNER / "arrival.py"
PYTHON = "python3"
SSH = (
    *("ssh", "-T", "-x"),
    *("-S", "none"),  # a connection of its own: one that others share may be lost without a word
    *("-o", "BatchMode=yes"),  # asks nothing: nobody is there to answer
    *("-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4"),
    *("-o", "ClearAllForwardings=yes"),
)
TEXT_FOLLOWS = "import sys; exec(eval(sys.stdin.readline()))"

SSH_FAILED = 255
DOES_NOT_START = (126, 127)
FAILURES = (SSH_FAILED, *DOES_NOT_START)
"""Exit codes with which nothing of ours has run."""

PART_BYTES = 1 << 19
MOST_BYTES = 4 << 30
"""No file that comes back is so large."""

SENT = ("networks", "onnx", "images")
BROUGHT = ("readings_us", "outputs", "xml", "bin")
"""The fields of requests and answers (runner/commands.py) that name files."""

REMEDIES = {
    r"Permission denied": "let your key in: ssh-copy-id {host}",
    r"Host key verification failed": "see that it is the host you mean, and say so once: ssh {host}",
    r"Could not resolve hostname": "give the name or address that the network or ~/.ssh/config knows it by",
    r"timed out|not responding|refused|No route|unreachable|closed|reset|Broken pipe": (
        "see that it is switched on, in this network and runs an sshd: ssh {host}"
    ),
}


class LostError(ChildError):
    """There is no connection to the host, or no more."""


class Board(Child):
    """A process on another host, asked as one on this host is."""

    def __init__(self, host: str, python: str, silence_s: float, *arguments: str) -> None:
        """Connect, and start the runner there.

        Args:
            host: As ssh names it.
            python: Interpreter there; a path that does not begin with / is one below the home folder.
            silence_s: As a child has it.
            arguments: Of the runner.

        Raises:
            BenchmarkError: This host has no ssh.
        """
        if shutil.which("ssh") is None:
            raise BenchmarkError(no_ssh(host))
        self.where = f"{host}: "
        self._host, self._python = host, python
        self._put: dict[str, bytes] = {}
        super().__init__(ssh(host, python, *arguments), silence_s, first=text_of(ARRIVAL) + zipped())

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to one command; the files that it names are here, in the `folder` of the request.

        Raises:
            BenchmarkError: The process answered that it cannot be done, and why; or there is no such interpreter.
            LostError: There is no connection.
            ChildError: There is no answer to be had from this process any more, or its device is at fault.
        """
        there = {name: self._there(name, value) for name, value in arguments.items()}
        answer = super().ask(command, **there)
        if "folder" not in arguments:
            return answer
        return {name: self._here(name, value, Path(arguments["folder"])) for name, value in answer.items()}

    def _there(self, name: str, value: Any) -> Any:
        """Return a field of a request as it is to be there, with the content of files sent."""
        if name == "folder":
            return "."
        if name not in SENT:
            return value
        return [self._sent(Path(path)) for path in value] if isinstance(value, list) else self._sent(Path(value))

    def _sent(self, path: Path) -> str:
        """Send the content of a file, unless it is there already; return its name there."""
        content = path.read_bytes()
        digest = sha256(content).digest()
        if self._put.get(path.name) != digest:
            for start in range(0, max(1, len(content)), PART_BYTES):
                part = base64.b64encode(content[start : start + PART_BYTES]).decode()
                super().ask("put", path=path.name, content=part, start=start)
            self._put[path.name] = digest
        return path.name

    def _here(self, name: str, value: Any, folder: Path) -> Any:
        """Return a field of an answer with the content of files brought here."""
        if isinstance(value, Mapping):
            return {key: self._here(key, part, folder) for key, part in value.items()}
        if isinstance(value, list):
            return [self._here(name, part, folder) for part in value]
        is_file = name in BROUGHT and isinstance(value, str) and re.fullmatch(r"\w+\.\w+", value)
        return str(self._brought(value, folder)) if is_file else value  # answers.py refuses other names

    def _brought(self, name: str, folder: Path) -> Path:
        path = folder / name
        with path.open("wb") as file:
            while (start := file.tell()) < MOST_BYTES:
                said = super().ask("get", path=name, start=start, length=PART_BYTES).get("content")
                try:
                    part = base64.b64decode(said or "", validate=True)
                except (TypeError, ValueError):
                    raise ChildError(f"get: its content must be base64, but got {said!r:.100}.") from None
                file.write(part)
                if len(part) < PART_BYTES:
                    return path
        raise ChildError(f"get: {name} must have less than {MOST_BYTES >> 30} GiB, but has more.")

    def _end(self, command: str) -> BenchmarkError:
        error = super()._end(command)
        code, said = self._process.returncode, self.stderr_tail()
        if code == SSH_FAILED:
            return LostError(unreachable(self._host, said))
        if code in DOES_NOT_START:
            return BenchmarkError(does_not_start(self._host, self._python, said))
        return error


def ssh(host: str, python: str, *arguments: str) -> list[str]:
    """Return the command that has a Python on a host run the text that follows on stdin."""
    return [*SSH, "--", host, shlex.join([python, "-c", TEXT_FOLLOWS, *arguments])]


def text_of(script: Path) -> bytes:
    """Return a script as the line in which `ssh` wants it."""
    return f"{script.read_text(encoding='utf-8')!a}\n".encode()


@cache
def zipped() -> bytes:
    """Return the runner as the line in which arrival.py wants it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(RUNNER.glob("*.py")):
            archive.writestr(file.name, file.read_bytes())
    return base64.b64encode(content.getvalue()) + b"\n"


def no_ssh(host: str) -> str:
    """Say that this host cannot reach any."""
    return f"{host}: is reached by OpenSSH's ssh, but there is none here; install it: apt-get install openssh-client."


def unreachable(host: str, said: str) -> str:
    """Say that a host cannot be reached, and what may be done about what ssh said."""
    remedy = next((advice for what, advice in REMEDIES.items() if re.search(what, said)), "try it by hand: ssh {host}")
    return f"{host}: ssh must reach it, but {_says(said)}; {remedy.format(host=host)}."


def does_not_start(host: str, python: str, said: str) -> str:
    """Say that a host has no such interpreter."""
    advice = "name another with --device-python"
    if python == PYTHON:
        advice = f"install it (ssh {host} sudo apt-get install python3-venv) or {advice}"
    return f"{host}: the interpreter {python} must start there, but {_says(said)}; {advice}."


def _says(said: str) -> str:
    return f"got: {said.rstrip('.')}" if said else "nothing was said"
