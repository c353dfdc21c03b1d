"""How commands end: exit code and sentence of every kind of ending, with real signals, pipes and descriptors."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_tune import command
from edge_tune.errors import BenchmarkError, ExperimentError, PruningError, StudyError

ROOT = Path(__file__).parents[1]
HEAD = """
import signal, sys, time
from edge_tune import command
from edge_tune.command import say

def main(words):
"""


def start(body: str, *words: str, **options: object) -> subprocess.Popen[str]:
    """Start a command of these lines in a process group of its own."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    script = f"{HEAD}{lines}    return 0\n\nsys.exit(command.run(main))\n"
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-c", script, *words], cwd=ROOT, **{**settings, **options})  # type: ignore[call-overload,no-any-return]


WAITS = """
try:
    say("ready")
    for _ in range(600):  # in short steps, should another thread be given the signal
        time.sleep(0.1)
except KeyboardInterrupt:
    time.sleep(0.5)
    say("in order")
    raise"""


def fail(error: BaseException) -> Callable[[object], int]:
    def raising(words: object) -> int:
        raise error

    return raising


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ExperimentError("one", "two"), 2, "one\ntwo\n"),
        (StudyError("ended"), 1, "ended\n"),
        (BenchmarkError("no answer"), 1, "no answer\n"),
        (PruningError("no such plan"), 1, "no such plan\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (KeyboardInterrupt("go on so"), 130, "go on so\n"),
        (command.OutputClosed(), 141, ""),
        (OSError(28, "No space left on device", "a/b"), 1, "a/b: must be at hand, but got No space left on device.\n"),
        (OSError("it broke"), 1, "The system said it broke.\n"),
    ],
)
def test_run_turns_an_exception_into_a_sentence_and_an_exit_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(fail(error), []) == code
    assert capsys.readouterr() == ("", sentence)


def test_run_hides_no_fault_of_its_own() -> None:
    with pytest.raises(ZeroDivisionError, match="by zero"):
        command.run(lambda words: len(words) // 0, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_ends_in_order_when_a_signal_asks_for_it(number: signal.Signals) -> None:
    process = start(WAITS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, number)
    if number != signal.SIGINT:
        os.killpg(process.pid, number)  # `timeout` sends it to its child and to the group: the first one counts
    assert process.communicate(timeout=60) == ("in order\n", "Interrupted.\n")
    assert process.returncode == 128 + number


IN_A_HOOK = """
import os, subprocess
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(NUMBER))
try:
    subprocess.run(["true"], preexec_fn=int, check=True)
    time.sleep(60)"""
IN_A_DESTRUCTOR = """
class Last:
    def __del__(self):
        signal.raise_signal(NUMBER)
try:
    del [Last()][0]
    time.sleep(60)"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", [IN_A_HOOK, IN_A_DESTRUCTOR])
def test_run_ends_in_order_when_python_drops_the_exception_of_a_signal(place: str, number: signal.Signals) -> None:
    ends = "\nexcept KeyboardInterrupt:\n    say('in order')\n    raise"
    process = start(place.replace("NUMBER", str(int(number))) + ends)
    assert process.communicate(timeout=50) == ("in order\n", "Interrupted.\n")
    assert process.returncode == 128 + number


def test_run_repeats_sigterm_that_another_handler_left_by() -> None:
    """As Ray's does while it starts."""
    leaves = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))\n"
    ends = "\nexcept SystemExit as left:\n    say(f'left by {left.code}')"
    process = start(leaves + IN_A_HOOK.replace("NUMBER", "signal.SIGTERM") + ends)
    assert process.communicate(timeout=50) == ("left by 15\n", "")
    assert process.returncode == 0


def test_run_sends_no_signal_again_once_the_command_has_ended() -> None:
    process = start(IN_A_DESTRUCTOR.replace("NUMBER", "signal.SIGTERM").replace("sleep(60)", "sleep(0)\nfinally: pass"))
    assert process.communicate(timeout=50) == ("", "")
    assert process.returncode == 0


def test_run_keeps_what_python_says_of_other_exceptions_that_it_drops() -> None:
    process = start("type('Last', (), {'__del__': lambda self: 1 // 0})()")
    assert "ZeroDivisionError" in process.communicate(timeout=60)[1]


def test_run_leaves_a_signal_ignored_that_is_ignored_from_the_start() -> None:
    process = start(
        'signal.raise_signal(signal.SIGHUP)\nsay("goes on")',
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
    )
    assert process.communicate(timeout=60) == ("goes on\n", "")
    assert process.returncode == 0


def test_run_ends_when_nobody_reads_the_output() -> None:
    process = start('for number in range(100_000):\n    say(f"line {number}")')
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (err, process.returncode) == ("", 141)


def test_run_opens_descriptors_that_are_closed(tmp_path: Path) -> None:
    """Else the first file that is opened gets number 1, and what is printed lands in it."""
    file = tmp_path / "records"
    body = f'with open({str(file)!r}, "w") as file:\n    say("not in there")\n    print(file.fileno(), file=file)'
    process = start(body, preexec_fn=lambda: os.closerange(0, 3), stdout=None, stderr=None)
    assert process.wait(timeout=60) == 0
    assert int(file.read_text()) > 2


def test_run_prints_what_the_locale_has_no_letters_for() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = start('say("gr\\u00f6\\u00dfe")\nraise command.ExperimentError("gr\\u00f6\\u00dfe")', env=environment)
    assert process.communicate(timeout=60) == ("gr\\xf6\\xdfe\n", "gr\\xf6\\xdfe\n")
    assert process.returncode == 2


def test_run_refuses_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(len, ["fine", os.fsdecode(b"r\xfcn")]) == 2
    assert capsys.readouterr().err == "r\\udcfcn: a name must be text in utf-8, but got other bytes; rename it.\n"


def test_run_refuses_to_start_in_a_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert command.run(len, []) == 2
    assert capsys.readouterr().err.startswith("the current folder must be at hand, but got No such file or directory;")
