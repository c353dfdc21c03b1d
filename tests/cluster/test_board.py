"""A board over real ssh: a host of this machine that has a Python with numpy and OpenVINO, and nothing else of ours."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tune.benchmark import backend as backends
from edge_tune.benchmark.__main__ import main as benchmark
from edge_tune.benchmark.backend import RunnerBackend
from edge_tune.doctor.__main__ import main as doctor
from edge_tune.experiment import Benchmark
from edge_tune.networks.onnx_export import to_onnx
from edge_tune.records.results import Results
from tests.benchmark.conftest import IMAGE, cnn
from tests.cluster.hosts import Host, Hosts
from tests.interpreters import folders_of, interpreter_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
ADDRESS = "127.77.1.1"
SESSIONS = "'^sshd: root@notty'"
PACKAGES = ("numpy", "openvino")
SECOND = "127.77.1.2"
CONFIG = """
Host second
    HostName {second}
Host locked
    IdentityFile {folder}/other_key
Host unknown
    UserKnownHostsFile /dev/null
Host off
    Port {closed}
Host nowhere
    HostName nowhere.invalid
Host * !locked
    IdentityFile {folder}/key
Host *
    HostName {address}
    Port {port}
    User root
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
"""
STUDY = """
import edge_tune as et
from tests.networks import experiment as make
experiment = make(retraining=et.Retraining(epochs=0, lr=0.1), benchmark=et.Benchmark(runs=1_000_000, max_s=4))
"""
"""Most of a trial is its measurement, so that of two at once, one finds the first board busy, on a busy host too."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind((ADDRESS, 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def places() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="board-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def python(places: Path) -> str:
    return interpreter_with(places / "python", *PACKAGES)


@pytest.fixture(scope="module")
def board(places: Path, python: str) -> Iterator[Host]:
    """The host, which `ssh board` reaches with a configuration of this test's own."""
    port = free_port()
    interpreter_with(places / "bare")
    interpreter_with(places / "numpy", "numpy")
    for name in ("key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", places / name], check=True)
    shown = [places / "python", places / "bare", places / "numpy", *folders_of(*PACKAGES)]
    with Hosts(places / "hosts") as hosts:
        for name, address in (("second", SECOND), ("board", ADDRESS)):
            host = hosts.start(name, listen=f"{address}:{port}", shown=shown)
            host.path(".ssh").mkdir(mode=0o700)
            host.path(".ssh/authorized_keys").write_text((places / "key.pub").read_text())
        scan = ["ssh-keyscan", "-p", str(port), ADDRESS, SECOND]
        (places / "known_hosts").write_bytes(subprocess.run(scan, capture_output=True, check=True).stdout)
        own = {"address": ADDRESS, "second": SECOND, "port": port, "folder": places, "closed": free_port()}
        (places / "config").write_text(CONFIG.format(**own))
        yield host


@pytest.fixture(autouse=True)
def _own_configuration(board: Host, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH knows the home folder from the system, whatever HOME is; so its configuration is named."""
    own = places / "bin/ssh"
    own.parent.mkdir(exist_ok=True)
    own.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {places}/config "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(own.parent), prepend=os.pathsep)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(to_onnx(cnn(32), IMAGE))
    return path


@pytest.fixture
def device(board: Host, python: str) -> Iterator[RunnerBackend]:
    backend = RunnerBackend(Benchmark(host="board", python=python, runs=20))
    yield backend
    backend.close()


def left_there(host: Host) -> list[str]:
    """Return what runs there besides its sshd, and what lies in its /tmp; waits a while for both to be nothing."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        running = host.run("ps -eo args= | grep -v -e ^ps -e sshd -e bash -e grep || true").splitlines()
        left = [*running, *(file.name for file in host.path("/tmp").iterdir())]
        if not left:
            break
        time.sleep(0.2)
    return left


def test_benchmark_measures_there_and_leaves_nothing(
    network: Path, board: Host, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board.path("own").symlink_to(places / "python")
    options = ["--device-host", "board", "--device-python", "own/bin/python", "--runs", "20", "--json"]
    assert benchmark([str(network), *options]) == 0
    evidence = json.loads(capsys.readouterr().out)["model"]["evidence"]
    assert evidence["host"] == "board"
    assert evidence["cpus"] == [max(os.sched_getaffinity(0))]  # which this host shares with the machine
    assert evidence["agreement"]["off_by"] <= evidence["agreement"]["tolerance"]
    assert left_there(board) == []


def test_a_study_is_measured_on_two_boards(python: str, board: Host, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY)
    command = [sys.executable, "-m", "edge_tune.run", tmp_path / "study.py", "--results", tmp_path / "out"]
    boards = ["--device-host", "board", "--device-host", "second"]
    options = ["--trials", "6", *boards, "--device-python", python]
    said = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r", 2 devices \(.*, on board, second\)\. Results: ", said.stdout)
    results = Results(tmp_path / "out")
    assert results.run().sessions[0].device.host == "board, second"
    assert results.identity()["benchmark"]["host"] == ["board", "second"]
    assert {one.host for trial in results.trials() for one in trial.measurements.values()} == {"board", "second"}
    assert (tmp_path / "out/best/model.bin").is_file()  # converted there
    assert left_there(board) == []


def test_a_connection_that_is_killed_is_made_anew(
    device: RunnerBackend, network: Path, board: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "BACK_S", 0.1)
    device.describe()
    killer = threading.Timer(0.5, board.run, [f"pkill -f {SESSIONS}"])  # in the host's own processes
    killer.start()
    measured = device.measure(network.read_bytes(), Benchmark(runs=20))
    killer.join()
    assert measured.evidence.restarts == 1
    device.close()
    assert left_there(board) == []


def test_a_host_that_falls_asleep_is_a_lost_connection(
    device: RunnerBackend, network: Path, board: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "BACK_S", 0.1)
    device.describe()
    board.run(f"pkill -STOP -f {SESSIONS}")
    started = time.monotonic()
    measured = device.measure(network.read_bytes(), Benchmark(runs=20))
    assert measured.evidence.restarts == 1
    assert time.monotonic() - started < backends.SILENCE_S  # ssh noticed, not the silence of the process
    board.run("for pid in $(ps -eo pid=,stat= | awk '$2 ~ /^T/ {print $1}'); do kill -KILL $pid; done")
    device.close()
    assert left_there(board) == []


@pytest.mark.parametrize(
    ("host", "options", "says"),
    [
        ("locked", [], "locked: ssh must reach it, but got: root@127.77.1.1: Permission denied (publickey"),
        ("locked", [], "; let your key in: ssh-copy-id locked.\n"),
        (
            "unknown",
            [],
            "Host key verification failed; see that it is the host you mean, and say so once: ssh unknown.\n",
        ),
        ("off", [], "Connection refused; see that it is switched on, in this network and runs an sshd: ssh off.\n"),
        ("nowhere", [], "Could not resolve hostname nowhere.invalid"),
        ("board", ["--device-python", "ov/bin/python"], "ov/bin/python: No such file or directory; name another with "),
        ("board", ["--device-python", "{places}/bare/bin/python"], "board: the interpreter must have numpy, but "),
        ("board", ["--device-python", "{places}/numpy/bin/python"], "board: the interpreter must have OpenVINO or "),
        ("board", ["--device-python", "{places}/python/bin/python", "--threads", "999"], "board: threads must be at "),
        ("board", ["--device-python", "{places}/python/bin/python", "--device", "GPU"], "board: device must be one Op"),
        ("-oProxyCommand=touch", [], "host must be one as ssh names it, such as 'pi@board', or None, but got '-oProxy"),
        ("pi board", [], "host must be one as ssh names it, such as 'pi@board', or None, but got 'pi board'.\n"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    host: str, options: list[str], says: str, network: Path, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(places=places) for option in options]
    assert benchmark([str(network), f"--device-host={host}", *given]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_host_that_sleeps_from_the_start_is_not_waited_for(
    network: Path, board: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    os.kill(board.pid, signal.SIGSTOP)  # its sshd
    try:
        assert benchmark([str(network), "--device-host", "board"]) == 2
        assert doctor(["--device-host", "board"]) == 1
    finally:
        os.kill(board.pid, signal.SIGCONT)
    out, err = capsys.readouterr()
    for said in (out, err):
        assert "board: ssh must reach it, but got: " in said
        assert "timed out" in said
        assert "; see that it is switched on, in this network and runs an sshd: ssh board." in said


def test_doctor_says_what_is_there(board: Host, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board.path("edge_tune").symlink_to(places / "python")
    assert doctor(["--device-host", "board", "--device-python", "edge_tune/bin/python"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok   connection: ssh board answers."
    assert lines[1].endswith(", edge_tune/bin/python.")
    assert lines[2].startswith("ok   OpenVINO: 20")
    assert lines[3] == "ok   plugin: CPU can be used."
    assert [line.split()[1] for line in lines[4:-1]] == ["frequency:", "cores:", "load:", "CPU"]
    assert lines[-1] == "CPU can be measured."


@pytest.mark.parametrize(
    ("host", "interpreter", "says"),
    [
        ("locked", None, "fix  connection: locked: ssh must reach it, but got: root@127.77.1.1: Permission denied "),
        ("board", "ov/python", "fix  interpreter: board: the interpreter ov/python must start there, but got: "),
        (
            "board",
            "{places}/bare/bin/python",
            "fix  numpy: the runner needs it: ssh board {places}/bare/bin/python -m pip",
        ),
        (
            "board",
            "{places}/numpy/bin/python",
            "neither OpenVINO nor ONNX Runtime; ssh board {places}/numpy/bin/python -m pip in",
        ),
        (
            "board",
            None,
            "ssh board 'python3 -m venv edge_tune && edge_tune/bin/pip install numpy openvino', then give ",
        ),
    ],
)
def test_doctor_says_what_mends_it(
    host: str, interpreter: str | None, says: str, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device-python", interpreter.format(places=places)] if interpreter else []
    assert doctor(["--device-host", host, *options]) == 1
    assert says.format(places=places) in capsys.readouterr().out
