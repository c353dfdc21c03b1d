"""How every command begins and ends: an exception or a signal becomes a sentence and an exit code, the same for all.

0              done
1              something went wrong while it ran: training that diverges, a device that fails midway, a full disk;
               or the answer is no: a host that `doctor` cannot measure on, a channel granularity that noise hides
2              bad input, which the user can mend before anything starts: an option, a file, a device that is not there
129, 130, 143  the terminal was closed, Ctrl-C, SIGTERM: 128 and the number of the signal, as shells count
141            whoever read the output has gone, as after `| head`
"""

import errno
import io
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from edge_tune.errors import EdgeTuneError, ExperimentError

ASKED_TO_END = (signal.SIGTERM, signal.SIGHUP)
"""What service managers send, and what comes when a terminal is closed. They are taken as Ctrl-C is."""

AT_ONCE_S = 1.0
"""Signals that follow each other faster than this are one."""

AGAIN_S = AT_ONCE_S + 0.1
"""A signal of which Python dropped the exception comes again after so long."""


def tool(name: str) -> str:
    """Return the path of a command of this environment, from here."""
    return os.path.relpath(Path(sys.executable).with_name(name))


class OutputClosed(KeyboardInterrupt):
    """Nobody reads the output any more, which ends a command as Ctrl-C does.

    Args:
        number: The signal that says so: that a terminal was closed may be seen before its signal comes.
    """

    def __init__(self, number: int = signal.SIGPIPE) -> None:
        super().__init__()
        self.number = number


def run(command: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what ends it is told on stderr.

    Args:
        command: Takes the words of the command line, and returns the exit code.
        arguments: The words; None: those that the process was started with.
    """
    _open_streams()
    words = sys.argv[1:] if arguments is None else arguments
    with _signals_as_ctrl_c() as received, _dropped_ones_again(received):
        try:
            _check_text((*words, _current_folder()))
            return command(words)
        except (EdgeTuneError, KeyboardInterrupt, OSError) as error:
            code, sentence = ending(error, next(iter(received), None))
            _complain(sentence)
            return code


def ending(error: BaseException, received: int | None = None) -> tuple[int, str]:
    """Return the exit code and the sentence for what ended a command.

    Args:
        received: The signal that came first, if one did; Ctrl-C is not counted here.
    """
    match error:
        case ExperimentError():
            return 2, str(error)
        case EdgeTuneError():
            return 1, str(error)
        case OutputClosed():
            return 128 + (received or error.number), str(error)
        case KeyboardInterrupt():
            return 128 + (received or signal.SIGINT), str(error) or "Interrupted."
        case OSError():
            where = f"{error.filename}: must be at hand, but got" if error.filename else "The system said"
            return 1, f"{where} {error.strerror or error}."
    raise error


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, on stdout or `stream`.

    Raises:
        OutputClosed: Nobody reads it.
    """
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe without reader, a terminal that was closed
            raise
        _silence(stream)
        raise OutputClosed(signal.SIGHUP if error.errno == errno.EIO else signal.SIGPIPE) from error


def _complain(sentence: str) -> None:
    """Print a sentence on stderr, if anybody is there."""
    if not sentence:
        return
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Lead a stream nowhere: Python would flush what is left in it at the end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_streams() -> None:
    """Make the standard streams take any text, and open those that are closed: a file would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (they stay open)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a name, to be checked as one
    except OSError as error:
        raise ExperimentError(
            f"the current folder must be at hand, but got {error.strerror}; change to another one."
        ) from error


def _check_text(words: Sequence[str]) -> None:
    """Check that each word can be written to a file and shown: Python carries bytes that are no text as surrogates."""
    encoding = sys.getfilesystemencoding()
    advice = "rename it" if encoding == "utf-8" else "rename it, or set the locale to one of UTF-8 (LC_ALL=C.UTF-8)"
    ExperimentError.raise_if(
        f"{word.encode(errors='backslashreplace').decode()}: a name must be text in {encoding}, but got other bytes; "
        f"{advice}."
        for word in words
        if any("\udc80" <= letter <= "\udcff" for letter in word)
    )


@contextmanager
def _signals_as_ctrl_c() -> Iterator[list[int]]:
    """Let the signals that ask a process to end do what Ctrl-C does; yield those that came.

    Those that follow at once are not counted: `timeout` sends its signal twice, and a closing terminal several. One
    that is ignored from the start (nohup) stays so.
    """
    received: list[int] = []
    last = -math.inf

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal last
        earlier, last = last, time.monotonic()
        if last - earlier < AT_ONCE_S:
            return
        received.append(number)
        ctrl_c = signal.getsignal(signal.SIGINT)  # Ray Tune has one of its own while it runs trials
        if callable(ctrl_c):
            ctrl_c(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ASKED_TO_END}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, take)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _dropped_ones_again(received: Sequence[int]) -> Iterator[None]:
    """Send a signal again of which Python dropped the exception, unless the command has ended meanwhile.

    It prints and drops whatever is raised in a destructor or in a hook of fork(), where a signal may well arrive. Ray
    leaves by SystemExit with the number of the signal while it starts.
    """
    before, process = sys.unraisablehook, os.getpid()
    again: list[threading.Timer] = []

    def take(dropped: "sys.UnraisableHookArgs") -> None:
        match dropped.exc_value:
            case KeyboardInterrupt():
                number = received[-1] if received else int(signal.SIGINT)
            case SystemExit(code=int(code)) if code in ASKED_TO_END:
                number = code
            case _:
                before(dropped)
                return
        if os.getpid() == process:
            again.append(threading.Timer(AGAIN_S, signal.pthread_kill, [threading.get_ident(), number]))
            again[-1].start()

    sys.unraisablehook = take
    try:
        yield
    finally:
        sys.unraisablehook = before
        for one in again:
            one.cancel()
