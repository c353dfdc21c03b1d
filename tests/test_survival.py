"""What ends a study early, and what does not: limits, failures, a lost process. Simulated trials, real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tune.records.results import Results
from edge_tune.run import main

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "experiments" / "resnet56_latency.py"


def command(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_tune.run", str(STUDY), "--results", "out", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGE_TUNE_TEST": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(folder: Path, name: str) -> Iterator[int]:
    """Yield the processes that a command started in `folder` and whose command line holds `name`."""
    mark = f"EDGE_TUNE_TEST={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (entry / "cmdline").read_bytes() and mark in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:
            continue


def run(folder: Path, *options: str) -> int:
    """Run the command in this process, which has already imported all that it needs."""
    return main([str(STUDY), f"--results={folder / 'out'}", *options])


@pytest.mark.slow
def test_time_budget_ends_with_what_there_is_and_resume_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--epochs=4", "--trials=4"]
    assert run(tmp_path, *options, "--simulate=0.75", "--time-budget=6s") == 0  # of 9 s, two trials at a time
    out = capsys.readouterr().out
    assert re.search(r"\d of 6 trials (is|are) recorded in .*out: the time budget of 6 s is used up\.", out), out
    assert "| network " in out
    done = Results(tmp_path / "out").trials()
    assert len(done) < 4
    under_way = len(Results(tmp_path / "out").unfinished())
    capsys.readouterr()
    assert run(tmp_path, "--epochs=2", "--trials=4", "--simulate=0", "--resume") == 2
    expected = "out: a resumed study must be the one that was started, but got another retraining; give the same"
    assert expected in capsys.readouterr().err
    assert run(tmp_path, *options, "--resume") == 2
    assert "out: holds a simulated study, which must be resumed with --simulate; choose" in capsys.readouterr().err
    assert run(tmp_path, *options, "--simulate=0", "--resume") == 0
    found = Results(tmp_path / "out").trials()
    assert [record.trial for record in found] == [3, 4, 5, 6]
    assert [record for record in found if record.trial <= len(done) + 2] == done
    if under_way:  # a slow host may not have begun in the time it had
        assert f"; {under_way} under way, to be run again" in capsys.readouterr().out


@pytest.mark.slow
def test_trial_whose_process_is_killed_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    process = command(tmp_path, "--simulate", "0.5", "--epochs", "5", "--trials", "1")
    checkpoint = tmp_path / "out" / "checkpoints" / "0002.pt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (pid, *_) = processes(tmp_path, "ray::ResourceTrainable")
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lost = re.search(r"trial (\d) will be run again: its process was lost: ActorDiedError", out)
    assert lost, out
    results = Results(tmp_path / "out")
    records = {record.trial: record for record in (*results.baselines(), *results.trials()) if record.trial}
    assert {number: record.attempts for number, record in records.items()} == {1: 1, 2: 1, 3: 1} | {int(lost[1]): 2}
    for record in records.values():
        assert record.status == "finished"
        assert [entry.epoch for entry in record.curve] == [1, 2, 3, 4, 5]
    assert not list(results.checkpoints.glob("*"))


@pytest.mark.parametrize("text", ["8", "0h", "h", "8d", "-1s"])
def test_time_budget_must_be_a_time(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, f"--time-budget={text}")
    assert f"must be a time such as 8h, 90m or 300s, but got {text!r}" in capsys.readouterr().err
