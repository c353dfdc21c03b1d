import os
import sys
from pathlib import Path

import pytest

from edge_tune.doctor import __main__ as doctor
from edge_tune.doctor.checks import Finding
from edge_tune.experiment import Benchmark
from tests.doubles import ssh_of
from tests.hosts import NEW, NO_PLUGIN, OLD, host


def script(folder: Path, text: str) -> Path:
    path = folder / "probe.py"
    path.write_text(text)
    return path


def test_main_finds_that_the_cpu_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    out = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok   plugin: CPU can be used") for line in out)
    assert out[-1] == "CPU can be measured."


def test_main_says_what_the_stick_needs_that_this_openvino_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--device", "MYRIAD"]) == 1
    out = capsys.readouterr().out
    assert "has no MYRIAD plugin (it was dropped in 2023.0); the newest wheel that has it is openvino==2021.4.2" in out
    assert "MYRIAD cannot be measured yet: mend the " in out.splitlines()[-1]


def test_main_names_an_interpreter_that_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--device-python", "no-such-python"]) == 1
    assert "fix  interpreter: no-such-python does not start: No such file" in capsys.readouterr().out


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a board that is this machine."""
    monkeypatch.setenv("PATH", str(ssh_of(tmp_path / "board")), prepend=os.pathsep)
    return tmp_path / "board"


def test_main_looks_at_a_board(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--device-host", "pi@board", "--device-python", sys.executable]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok   connection: ssh pi@board answers."
    assert lines[3] == "ok   plugin: CPU can be used."
    assert f"cores: {len(os.sched_getaffinity(0))}, of which 1 can measure; nothing is trained there." in lines[5]
    assert not any("GPUs" in line for line in lines)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (
            "echo 'Permission denied (publickey).' >&2; exit 255",
            "fix  connection: pi@board: ssh must reach it, but got: ",
        ),
        (
            "echo 'sh: 1: python3: not found' >&2; exit 127",
            "install it (ssh pi@board sudo apt-get install python3-venv)",
        ),
        ("echo hello", "fix  interpreter: python3 says nothing: is it a Python interpreter?; name another"),
    ],
)
def test_main_says_why_a_board_cannot_be_looked_at(
    fails: str, says: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "fails").write_text(f"{fails}; exit 0")
    assert doctor.main(["--device-host", "pi@board"]) == 1
    out = capsys.readouterr().out
    assert says in out
    assert "frequency" not in out


def test_a_board_needs_ssh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert doctor.main(["--device-host", "pi@board"]) == 1
    assert "there is none here; install it: apt-get install openssh-client." in capsys.readouterr().out


def test_a_stick_on_a_board_is_looked_at_in_copies_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "sys/bus/usb/devices/1-2/idVendor": "03e7",
        "sys/bus/usb/devices/1-2/idProduct": "2485",
        "etc/udev/rules.d/1.rules": 'ATTRS{idVendor}=="03e7"',
        "proc/loadavg": "0.00 0.00 0.00",
        "../outside": "",
    }
    facts = {**OLD, "user_id": 1000, "cpus": 4, "files": files, "parts": {"MYRIAD": {"connected": ["1.2-ma2480"]}}}
    monkeypatch.setattr(doctor, "ask", lambda *_, **__: facts)
    board = doctor.that_host(Benchmark(device="MYRIAD", host="pi@board"), tmp_path / "root")
    found = {finding.check: finding for finding in doctor.examine(board)}
    assert (found["USB"].level, found["udev rule"].level, found["load"].level) == ("ok", "ok", "ok")
    assert "mutex" not in found
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("print('{\"python\": \"3\"}', flush=True); raise SystemExit('NC_ERROR')", "ended with exit code 1 NC_ERROR"),
        ('print(\'{"python": "3"}\', flush=True); import os; os.kill(os.getpid(), 11)', "ended with signal 11"),
        ('print(\'{"python": "3"}\', flush=True); import time; time.sleep(60)', "did not answer within 1 s"),
        ('print(\'{"python": "3"}\')', None),
    ],
)
def test_ask_keeps_what_was_said_before_the_end(text: str, ended: str | None, tmp_path: Path) -> None:
    facts = doctor.ask(sys.executable, "CPU", seconds=1, probe=script(tmp_path, text))
    assert facts == {"python": "3", "ended": ended}


def test_ask_says_when_nothing_was_said(tmp_path: Path) -> None:
    facts = doctor.ask(sys.executable, "CPU", probe=script(tmp_path, "print('warning: no json')"))
    assert facts == {"ended": "says nothing: is it a Python interpreter?"}


def test_main_refuses_a_device_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--device", ""]) == 2
    assert capsys.readouterr().err == "device must be the name of a device, but got an empty text.\n"


def test_finding_is_one_line() -> None:
    assert str(Finding("warn", "load", "3.10")) == "warn load: 3.10"


def test_examine_looks_at_the_stick_only_when_the_device_needs_one(tmp_path: Path) -> None:
    facts = {**NEW, "parts": {"CPU": {"connected": [""]}}}
    names = [finding.check for finding in doctor.examine(host(tmp_path, facts=facts, device="CPU"))]
    assert names == ["interpreter", "OpenVINO", "plugin", "frequency", "cores", "load", "CPU quota"]
    facts = {**NEW, "parts": {"MYRIAD": NO_PLUGIN, "CPU": {"connected": [""]}}}
    names = [finding.check for finding in doctor.examine(host(tmp_path, facts=facts, device="HETERO:MYRIAD,CPU"))]
    assert names[2:8] == ["plugin", "plugin", "libusb", "USB", "udev rule", "mutex"]
