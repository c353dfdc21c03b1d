"""A child process that is asked over JSON lines, and not waited for when it is silent or takes too long."""

import contextlib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Any

from edge_tune.errors import BenchmarkError

POLL_S = 0.5
CLOSE_S = 5.0
LIMIT_S = 1800.0
"""No command takes so long, not even thousands of images on the slowest device."""

LIMIT_BYTES = 4 << 20
"""No command says so much; arrays come as files. Of each of the process's pipes, and of one request."""

SIGNALS = {one.value: one.name for one in signal.Signals}
TAIL_BYTES = 4096
PART_BYTES = 1 << 16

DEVICE_FAULT = re.compile(r"\b(NC|X_LINK)_[A-Z]{2}")
"""How the stick's plugin names what is wrong; another process, which boots the stick anew, may have more luck."""


class ChildError(BenchmarkError):
    """The process itself failed: it died, was silent for too long or answered garbage. Another one may not."""


class Child:
    """One process and its three pipes; start it, ask it, kill it."""

    where = ""
    """What its refusals begin with, where several hosts are concerned."""

    def __init__(
        self, command: Sequence[str], silence_s: float, limit_s: float = LIMIT_S, *, first: bytes = b""
    ) -> None:
        """Start the process.

        Args:
            command: Program and arguments; it speaks the protocol that runner/protocol.py describes.
            silence_s: Seconds without a line from it, during a request, that mean that it hangs.
            limit_s: Seconds that a request may take, whatever the process signs meanwhile.
            first: What it reads before the first request.

        Raises:
            BenchmarkError: The program cannot be started.
        """
        self._silence_s = silence_s
        self._limit_s = limit_s
        self._requests = 0
        self._buffer = bytearray()
        self._complaints = b""
        self._heard: dict[str, int] = {}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C in a terminal is for the driver, which then closes this
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # which trials compute on
            )
        except OSError as error:
            raise BenchmarkError(f"{command[0]}: the interpreter must start, but got: {error}.") from None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe(self._process.stdout), selectors.EVENT_READ, "stdout")
        self._selector.register(self._pipe(self._process.stderr), selectors.EVENT_READ, "stderr")
        os.set_blocking(self._pipe(self._process.stderr).fileno(), False)
        with contextlib.suppress(OSError):  # one that has ended already is found out when it is asked
            self._pipe(self._process.stdin).write(first)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to one command.

        Raises:
            BenchmarkError: The process answered that it cannot be done, and why.
            ChildError: There is no answer to be had from this process any more, or its device is at fault.
        """
        self._requests += 1
        self._heard = {"stdout": 0, "stderr": 0}
        request = {**arguments, "id": self._requests, "command": command}
        try:
            self._pipe(self._process.stdin).write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._end(command) from None
        end = time.monotonic() + self._limit_s
        while True:
            answer = self._answer(command)
            if "error" in answer and DEVICE_FAULT.search(str(answer["error"])):
                raise ChildError(f"{command}: {answer['error']}")
            if "error" in answer:
                raise BenchmarkError(f"{self.where}{answer['error']}")
            if isinstance(answer.get("result"), dict):
                return dict(answer["result"])
            if answer.get("alive") is not True:
                raise ChildError(
                    f"{command}: its answer must hold an object as result, an error or a sign of life, but got "
                    f"{json.dumps(answer)[:200]}."
                )
            if time.monotonic() > end:
                raise ChildError(f"{command}: it must be done within {self._limit_s:g} s, but only signed.")

    def close(self) -> None:
        """Let the process leave by itself, so that the plugin can close its device; kill it if it does not."""
        self._pipe(self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """End the process at once, with all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _answer(self, command: str) -> dict[str, Any]:
        """Return the next line that belongs to the current request."""
        line = self._line(command)
        try:
            answer = json.loads(line, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or answer.get("id") != self._requests:
            raise ChildError(
                f"{command}: its answer must be JSON, of finite numbers, with id {self._requests}, but got "
                f"{line[:200]!r}."
            )
        return answer

    def _line(self, command: str) -> bytes:
        end = time.monotonic() + self._silence_s
        searched = 0
        while (length := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            part = self._part(command, end)
            if part is None:
                raise ChildError(f"{command}: it must answer or sign within {self._silence_s:g} s, but was silent.")
            if not part:
                raise self._end(command)
            self._buffer += part
        line = bytes(self._buffer[:length])
        del self._buffer[: length + 1]
        return line

    def _part(self, command: str, end: float) -> bytes | None:
        """Return what the process says next; nothing when it has ended, None when it is silent until `end`."""
        while (left := end - time.monotonic()) > 0:
            ready = {key.data for key, _ in self._selector.select(min(left, POLL_S))}
            if "stderr" in ready:
                self._hear("stderr", self._complain(), command)
            if "stdout" in ready:
                part = self._pipe(self._process.stdout).read(PART_BYTES)
                self._hear("stdout", len(part), command)
                return part
            if not ready and self._process.poll() is not None:  # something that it started may keep its pipe open
                return b""
        return None

    def _hear(self, stream: str, length: int, command: str) -> None:
        """Count what came through a pipe for this request."""
        self._heard[stream] += length
        if self._heard[stream] > LIMIT_BYTES:
            raise ChildError(
                f"{command}: it must write at most {LIMIT_BYTES >> 20} MiB to its {stream} for one answer, but wrote "
                f"more."
            )

    def _complain(self) -> int:
        """Take up to PART_BYTES of what the process wrote to stderr, of which the end is kept; return how much."""
        stream = self._pipe(self._process.stderr)
        part = stream.read(PART_BYTES)
        if part == b"" and "stderr" in {key.data for key in self._selector.get_map().values()}:
            self._selector.unregister(stream)  # it was closed, which would be news for ever
        self._complaints = (self._complaints + (part or b""))[-TAIL_BYTES:]
        return len(part or b"")

    def _end(self, command: str) -> BenchmarkError:
        """Return how the process ended, as the failure of a command."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ChildError(f"{command}: it closed its answers but still runs.")
        how = f"signal {SIGNALS.get(-code, -code)}" if code < 0 else f"exit code {code}"
        return ChildError(f"{command}: it ended with {how}.")

    def stderr_tail(self, characters: int = 600) -> str:
        """Return the end of what the process has written to stderr so far, in one line."""
        for _ in range(LIMIT_BYTES // PART_BYTES):  # of a process that writes without end, there is no end to wait for
            if not self._complain():
                break
        return " ".join(self._complaints.decode(errors="replace").split())[-characters:]

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream


def _finite(text: str) -> float:
    """Return the number that a text of JSON stands for; NaN and Infinity are none, and 1e999 is too large for one."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number
