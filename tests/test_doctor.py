import sys
from pathlib import Path

import pytest

from edge_tune.doctor import __main__ as doctor
from edge_tune.doctor.checks import Finding
from tests.hosts import NEW, NO_PLUGIN, host


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
    assert capsys.readouterr().err == "device must be the name of an OpenVINO device, but got an empty text.\n"


def test_finding_is_one_line() -> None:
    assert str(Finding("warn", "load", "3.10")) == "warn load: 3.10"


def test_examine_looks_at_the_stick_only_when_the_device_needs_one(tmp_path: Path) -> None:
    facts = {**NEW, "parts": {"CPU": {"connected": [""]}}}
    names = [finding.check for finding in doctor.examine(host(tmp_path, facts=facts, device="CPU"))]
    assert names == ["interpreter", "OpenVINO", "plugin", "frequency", "cores", "load", "CPU quota"]
    facts = {**NEW, "parts": {"MYRIAD": NO_PLUGIN, "CPU": {"connected": [""]}}}
    names = [finding.check for finding in doctor.examine(host(tmp_path, facts=facts, device="HETERO:MYRIAD,CPU"))]
    assert names[2:8] == ["plugin", "plugin", "libusb", "USB", "udev rule", "mutex"]
