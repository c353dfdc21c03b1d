"""Every way in which a study is ended from outside, at every stage: real signals to real processes.

Each ends in order: what is recorded, the command that goes on with it, 128 and the signal as exit code, not a word of
Ray's, and no process of the command's or Ray's left behind. `.ci/run` leaves out those marked `figures`: each takes
half a minute, and differs little from another.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edge_tune.records.results import Results

pytestmark = pytest.mark.hostile
ROOT = Path(__file__).parents[2]
MARK = "EDGE_TUNE_TEST"
SIMULATED = [str(ROOT / "experiments" / "resnet56_latency.py"), "--simulate=0.5", "--epochs=40", "--trials=40"]
REAL = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    training=et.Retraining(epochs={training}, lr=0.1, batch_size=32),
    benchmark=et.Benchmark(device="CPU", max_s={seconds}, runs=100_000_000),
    search=et.Search("hyperopt", trials=1),
)
"""
in_full = partial(pytest.param, marks=pytest.mark.figures)
GO_ON = re.compile(r"Interrupted: \d+ of \d+ trials (is|are) recorded in out\.\nTo resume: .* --results=out --resume\n")
NOTHING = "Interrupted before anything was measured; start again.\n"


class Command:
    """A run in a folder of its own, in a process group of its own, that can be found again."""

    def __init__(self, folder: Path, *words: str, before: tuple[str, ...] = ()) -> None:
        self.folder, self.said = folder, ""
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "edge_tune.run", *words, "--results=out"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), MARK: str(folder), "EDGE_TUNE_CACHE": str(folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, expected: str) -> None:
        """Read what is said until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if re.search(expected, line):
                return
        pytest.fail(f"ended before {expected!r}: {self.said} {self.process.communicate()}")

    def wait_for_process(self, name: str) -> None:
        """Wait until a process of Ray's, or of ours, runs."""
        deadline = time.monotonic() + 200
        while not any(name in words for _, words in processes(self.folder)):
            assert time.monotonic() < deadline, name
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def ends(self, code: int) -> str:
        """Check how it ends, and return what it says of that."""
        out, err = self.process.communicate(timeout=200)
        self.said += out
        assert self.process.returncode == code, self.said + err
        assert not re.search(r"\(raylet|\(autoscaler|Traceback|^\[20|\*\*\*|ray\.exceptions", self.said + err), (
            self.said
        )
        nobody_is_left(self.folder)
        return err


def processes(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield the processes that were started for a test, and their command lines."""
    mark = f"{MARK}={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def nobody_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 200  # a worker that was just starting takes half a minute to see that Ray has gone
    while left := list(processes(folder)):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    begun: list[Command] = []

    def begin(*words: str, before: tuple[str, ...] = ()) -> Command:
        begun.append(Command(tmp_path, *words, before=before))
        return begun[-1]

    yield begin
    for command in begun:
        if command.process.poll() is None:
            command.process.kill()
            command.process.communicate()


def real(folder: Path, training: int = 3, seconds: float = 1) -> str:
    (folder / "study.py").write_text(REAL.format(training=training, seconds=seconds))
    return "study.py"


def to_group(command: Command, *numbers: signal.Signals) -> None:
    for place, number in enumerate(numbers):
        time.sleep(0.3 * bool(place))
        os.killpg(command.process.pid, number)


@pytest.mark.parametrize("number", [signal.SIGINT, in_full(signal.SIGTERM), in_full(signal.SIGHUP)])
def test_signal_to_the_group_during_trials(begin: Callable[..., Command], number: signal.Signals) -> None:
    command = begin(*SIMULATED)
    command.wait_for("trials to run")
    command.wait_for_process("ray::ResourceTrainable")
    to_group(command, number)
    assert GO_ON.fullmatch(command.ends(128 + number))


@pytest.mark.figures
def test_signal_to_the_process_during_trials(begin: Callable[..., Command]) -> None:
    command = begin(*SIMULATED)
    command.wait_for("trials to run")
    command.process.send_signal(signal.SIGTERM)
    assert GO_ON.fullmatch(command.ends(143))


def test_ctrl_c_three_times_during_trials(begin: Callable[..., Command]) -> None:
    command = begin(*SIMULATED)
    command.wait_for("trials to run")
    command.wait_for_process("ray::ResourceTrainable")
    to_group(command, signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert GO_ON.fullmatch(command.ends(130))


def test_timeout_that_is_over(begin: Callable[..., Command]) -> None:
    """`timeout` sends SIGTERM to its child, and then to the group; at SIGALRM it does so at once."""
    command = begin(*SIMULATED, before=("timeout", "600"))
    command.wait_for("trials to run")
    command.process.send_signal(signal.SIGALRM)
    assert GO_ON.fullmatch(command.ends(124))  # of `timeout` itself


def test_terminal_that_is_closed(tmp_path: Path) -> None:
    mine, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_tune.run", *SIMULATED, "--results=out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), MARK: str(tmp_path)},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    said = b""
    while b"trials to run" not in said:
        said += os.read(mine, 1000)
    os.close(mine)
    assert process.wait(timeout=200) == 129
    nobody_is_left(tmp_path)
    assert Results(tmp_path / "out").baselines()[0].name == "unpruned"


def test_output_that_nobody_reads_any_more(begin: Callable[..., Command]) -> None:
    command = begin(*SIMULATED[:1], "--simulate=0", "--epochs=1", "--trials=40")
    command.wait_for("trials to run")
    assert command.process.stdout is not None
    command.process.stdout.close()
    assert GO_ON.fullmatch(command.ends(141))


def test_command_that_is_killed_leaves_nobody(begin: Callable[..., Command]) -> None:
    command = begin(*SIMULATED)
    command.wait_for("trials to run")
    command.wait_for_process("ray::ResourceTrainable")
    command.process.kill()
    assert command.ends(-signal.SIGKILL) == ""


@pytest.mark.parametrize(
    ("service", "number"),
    [
        ("gcs_server", signal.SIGTERM),
        in_full("gcs_server", signal.SIGINT),
        ("raylet", signal.SIGINT),
        in_full("raylet", signal.SIGTERM),
    ],
)
def test_signal_while_ray_starts(begin: Callable[..., Command], service: str, number: signal.Signals) -> None:
    command = begin(*SIMULATED)
    command.wait_for_process(service)
    to_group(command, number)
    assert command.ends(128 + number) == NOTHING
    assert not (command.folder / "out").exists()


def test_signal_while_the_network_is_trained(begin: Callable[..., Command], tmp_path: Path) -> None:
    command = begin(real(tmp_path, training=10_000))
    command.wait_for("  epoch 2/")
    to_group(command, signal.SIGTERM)
    assert command.ends(143) == NOTHING
    assert not (tmp_path / "out").exists()


def test_signal_while_the_unpruned_network_is_measured(begin: Callable[..., Command], tmp_path: Path) -> None:
    command = begin(real(tmp_path, seconds=300))
    command.wait_for("Unpruned weights: ")
    time.sleep(10)  # the measurement takes minutes, and only then is there a study
    to_group(command, signal.SIGTERM)
    assert command.ends(143) == NOTHING
    assert not (tmp_path / "out").exists()


def test_signal_during_the_conclusion(begin: Callable[..., Command], tmp_path: Path) -> None:
    command = begin(real(tmp_path))
    command.wait_for("Reading the test split")
    to_group(command, signal.SIGTERM)
    assert GO_ON.fullmatch(command.ends(143))
    assert len(Results(tmp_path / "out").trials()) == 1
