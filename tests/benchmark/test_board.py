"""The runner as it is sent to a board, by an ssh that stays on this machine; over a real one in tests/cluster."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tune.benchmark import backend as backends
from edge_tune.benchmark import board
from edge_tune.benchmark.backend import RunnerBackend, check_device
from edge_tune.benchmark.board import Board
from edge_tune.benchmark.child import Child, ChildError
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from tests.benchmark.conftest import IMAGE
from tests.benchmark.runner.test_main import python36
from tests.doubles import ssh_of
from tests.interpreters import interpreter_with

QUICK = Benchmark(runs=20, host="pi@board", python=sys.executable)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a board."""
    folder = tmp_path / "board"
    monkeypatch.setenv("PATH", str(ssh_of(folder)), prepend=os.pathsep)
    return folder


@pytest.fixture
def backend(there: Path) -> Iterator[RunnerBackend]:
    backend = RunnerBackend(QUICK)
    yield backend
    backend.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processes(backend: RunnerBackend) -> tuple[int, int]:
    """Return, of a board that is this machine, the process that watches and the runner."""
    assert backend.pid
    (runner,) = children(backend.pid)
    return backend.pid, runner


def wait_until_gone(pid: int, there: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while (Path(f"/proc/{pid}").exists() or [*(there / "tmp").iterdir()]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert [*(there / "tmp").iterdir()] == []


def test_a_board_measures_with_files_that_are_sent_to_it(
    backend: RunnerBackend, onnx: bytes, wide_onnx: bytes, there: Path
) -> None:
    measured = backend.measure(onnx, QUICK, wide_onnx)
    assert measured.evidence.host == "pi@board"
    assert measured.latency_ratio is not None
    assert measured.latency_ratio < 0.5
    assert measured.evidence.executed_layers
    (own,) = (there / "tmp").iterdir()
    assert sorted(file.name for file in own.iterdir()) == [
        *("model0.onnx", "model1.onnx", "readings0.npy", "readings1.npy", "runner.zip")
    ]
    assert [*(there / "home").iterdir()] == []


def test_a_board_without_openvino_measures_by_onnx_runtime(there: Path, onnx: bytes, tmp_path: Path) -> None:
    settings = replace(QUICK, python=interpreter_with(tmp_path / "venv", "numpy", "onnxruntime"))
    backend = RunnerBackend(settings)
    try:
        evidence = backend.measure(onnx, settings).evidence
        assert (evidence.host, evidence.device, evidence.runtime) == ("pi@board", "onnxruntime:CPU", "ONNX Runtime")
        assert backend.predict(onnx, np.zeros((3, *IMAGE), dtype=np.float32), settings).shape == (3, 10)
        assert backend.convert(onnx) is None
        assert len([*(there / "tmp").iterdir()]) == 1  # the runner's folder, and nothing to be reported home
    finally:
        backend.close()


def test_a_board_stays_on_its_own_last_cores(backend: RunnerBackend) -> None:
    assert backend.describe().cpus == (max(os.sched_getaffinity(0)),)
    with pytest.raises(BenchmarkError, match=r"^pi@board: threads must be at most the number of cores they run on"):
        check_device(Benchmark(threads=4096, host="pi@board", python=sys.executable))


def test_a_board_predicts_and_converts_as_this_host_does(
    backend: RunnerBackend, onnx: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "PART_BYTES", 5000)
    images = np.random.default_rng(0).normal(size=(7, *IMAGE)).astype(np.float32)
    here = RunnerBackend(Benchmark())
    np.testing.assert_array_equal(backend.predict(onnx, images, QUICK), here.predict(onnx, images, Benchmark()))
    weights, others = backend.convert(onnx)[1], here.convert(onnx)[1]
    here.close()
    assert weights == others
    assert len(weights) > 5000


def test_a_file_that_is_there_is_not_sent_again(
    backend: RunnerBackend, onnx: bytes, wide_onnx: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []
    ask = Child.ask

    def listen(self: Child, command: str, **arguments: Any) -> dict[str, Any]:
        asked.append((command, arguments.get("path")))
        return ask(self, command, **arguments)

    monkeypatch.setattr(Child, "ask", listen)
    backend.measure(onnx, QUICK, wide_onnx)
    backend.measure(wide_onnx, QUICK, wide_onnx)
    sent = [path for command, path in asked if command == "put"]
    assert sent.count("model1.onnx") * board.PART_BYTES >= len(wide_onnx)
    assert sent.count("model1.onnx") == -(-len(wide_onnx) // board.PART_BYTES)
    assert sent.count("model0.onnx") == 1 + sent.count("model1.onnx")


def test_nothing_is_left_there_after_close(backend: RunnerBackend, there: Path) -> None:
    backend.describe()
    _, runner = processes(backend)
    backend.close()
    wait_until_gone(runner, there)


def test_a_runner_that_hangs_is_ended_with_the_connection(backend: RunnerBackend, there: Path) -> None:
    backend.describe()
    _, runner = processes(backend)
    os.kill(runner, signal.SIGSTOP)
    closing = threading.Thread(target=backend.close)  # the connection ends at once, the runner 4 s later
    closing.start()
    wait_until_gone(runner, there)
    closing.join()


def test_a_runner_that_dies_says_of_what_and_is_replaced(backend: RunnerBackend, onnx: bytes) -> None:
    backend.describe()
    _, runner = processes(backend)
    os.kill(runner, signal.SIGSEGV)
    assert backend.measure(onnx, QUICK).evidence.restarts == 1
    _, runner = processes(backend)
    assert backend._child
    os.kill(runner, signal.SIGSEGV)
    with pytest.raises(ChildError, match=r"hello: it ended with exit code 139"):
        backend._child.ask("hello", device="CPU", precision="f32", threads=1)
    assert backend._child.stderr_tail().endswith("The runner was ended by signal 11.")


def test_a_connection_that_is_lost_is_made_anew(
    backend: RunnerBackend, onnx: bytes, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "BACK_S", 0.01)
    backend.describe()
    (there / "fails").write_text(f"rm {there}/fails; echo 'No route to host' >&2; exit 255")
    os.kill(processes(backend)[1], signal.SIGKILL)
    assert backend.measure(onnx, QUICK).evidence.restarts == 2
    assert not (there / "fails").exists()


def test_a_board_that_stays_away_is_given_up_with_the_reason(
    backend: RunnerBackend, onnx: bytes, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "BACK_S", 0.01)
    backend.describe()
    (there / "fails").write_text("echo 'Timeout, server board not responding.' >&2; exit 255")
    os.kill(processes(backend)[1], signal.SIGKILL)
    with pytest.raises(
        BenchmarkError,
        match=r"owns CPU on pi@board must answer, but failed 3 times: .* Then: pi@board: ssh must reach it, but got: "
        r"Timeout, server board not responding; see that it is switched on, .*: ssh pi@board\.$",
    ):
        backend.measure(onnx, QUICK)
    (there / "fails").unlink()
    assert backend.measure(onnx, QUICK).latency_ms > 0


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("pi@board: Permission denied (publickey).", "let your key in: ssh-copy-id pi@board"),
        ("Host key verification failed.", "see that it is the host you mean, and say so once: ssh pi@board"),
        ("ssh: Could not resolve hostname board: Name or service not known", "give the name or address"),
        ("ssh: connect to host board port 22: Connection timed out", "see that it is switched on"),
        ("ssh: connect to host board port 22: Connection refused", "see that it is switched on"),
        ("Bad configuration option: prot", "try it by hand: ssh pi@board"),
        ("", "nothing was said; try it by hand: ssh pi@board"),
    ],
)
def test_a_board_that_was_never_there_is_asked_once(said: str, advice: str, there: Path) -> None:
    (there / "fails").write_text(f"echo again >>{there}/times; echo '{said}' >&2; exit 255")
    with pytest.raises(BenchmarkError, match=r"^pi@board: ssh must reach it, but ") as raised:
        check_device(QUICK)
    assert said.rstrip(".") in str(raised.value)
    assert advice in str(raised.value)
    assert (there / "times").read_text() == "again\n"


def test_an_interpreter_that_is_not_there_is_named(there: Path) -> None:
    with pytest.raises(
        BenchmarkError,
        match=r"^pi@board: the interpreter ov/bin/python must start there, but got: .*not found; name another with "
        r"--device-python\.$",
    ):
        check_device(Benchmark(host="pi@board", python="ov/bin/python"))
    (there / "fails").write_text("echo 'sh: python3: not found' >&2; exit 127")
    with pytest.raises(BenchmarkError, match=r"install it \(ssh pi@board sudo apt-get install python3-venv\) or name"):
        check_device(Benchmark(host="pi@board"))


def test_a_host_without_ssh_is_told_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchmarkError, match=r"^pi@board: .* but there is none here; install it: apt-get install open"):
        check_device(QUICK)


@pytest.mark.parametrize(
    ("has", "lacks"), [([], "numpy, but {} has none"), (["numpy"], "OpenVINO or ONNX Runtime, but {} has neither")]
)
def test_an_interpreter_says_what_it_lacks(has: list[str], lacks: str, there: Path, tmp_path: Path) -> None:
    python = interpreter_with(tmp_path / "venv", *has)
    with pytest.raises(
        BenchmarkError, match=rf"^pi@board: the interpreter must have {lacks.format(python)}; pip install "
    ):
        check_device(Benchmark(host="pi@board", python=python))


def test_an_answer_names_files_only_where_a_folder_was_given(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = Board("pi@board", sys.executable, 30.0)
    monkeypatch.setattr(Child, "ask", lambda *_, **__: {"xml": "model.py", "content": ""})
    assert one.ask("begin")["xml"] == "model.py"
    assert not (tmp_path / "model.py").exists()
    assert one.ask("convert", folder=str(there / "home"))["xml"] == str(there / "home/model.py")
    one.kill()


@pytest.mark.parametrize("name", ["../key", "/etc/passwd", "..", "", 5, None])
def test_an_answer_cannot_name_other_files(name: object, there: Path, tmp_path: Path) -> None:
    one = Board("pi@board", sys.executable, 30.0)
    try:
        assert one._here("xml", name, tmp_path) == name
    finally:
        one.close()


def test_what_comes_back_must_be_base64(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Board("pi@board", sys.executable, 30.0)
    monkeypatch.setattr(Child, "ask", lambda *_, **__: {"content": "no base64!"})
    with pytest.raises(ChildError, match=r"get: its content must be base64, but got 'no base64!'"):
        one._here("xml", "model.xml", tmp_path)
    monkeypatch.undo()
    one.kill()


def test_the_runner_arrives_under_python_3_6(there: Path) -> None:
    python = python36()
    if python is None:
        pytest.skip("no Python 3.6 here; pyenv install 3.6.15")
    with pytest.raises(BenchmarkError, match=r"^pi@board: the interpreter must have numpy, but .*3\.6.* has none"):
        check_device(Benchmark(host="pi@board", python=python))


def test_ssh_asks_nothing_and_does_not_wait_for_ever() -> None:
    said = subprocess.run([*board.SSH, "-G", "pi@board"], capture_output=True, text=True, check=True).stdout
    lines = said.lower().splitlines()
    assert {"batchmode yes", "connecttimeout 10", "serveraliveinterval 5", "serveralivecountmax 4"} <= {*lines}
    assert board.ssh("-oProxyCommand=x", "python3")[-3:-1] == ["--", "-oProxyCommand=x"]
