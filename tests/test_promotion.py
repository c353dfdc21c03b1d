"""A study with ASHA by its objective and a budget of epochs, as a command: killed, resumed, and continued on demand."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_tune.records.results import Record, Results
from edge_tune.run import main
from edge_tune.wording import counted

ROOT = Path(__file__).parents[1]
EPOCHS = 4
FILE = f"""
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    target="front of latency_ratio and top1",
    retraining=et.Retraining(epochs={EPOCHS}, lr=0.05),
    stopping=[et.Asha(audit=0.1), et.Predicted()],
    search=et.Search("random", epochs=40, seed=0, max_concurrent_trials=1),
)
"""


def ends(folder: Path) -> list[tuple[object, ...]]:
    return [
        (one.trial, one.status, one.reason, one.epoch, one.audit, list(one.paused), dict(one.point), dict(one.metrics))
        for one in Results(folder).trials()
    ]


def spent(records: list[Record]) -> int:
    return sum(record.epoch for record in records)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_study_that_is_killed_decides_as_one_that_is_not_and_continues_what_it_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("study.py").write_text(FILE)
    assert main(["study.py", "--simulate=0", "--results=whole"]) == 0
    out = capsys.readouterr().out
    assert "40 of 40 epochs of retraining are left: 4 for each trial that comes to its end" in out
    whole = Results(Path("whole")).trials()
    assert 40 - EPOCHS < spent(whole) <= 40
    assert f", {40 - spent(whole)} of 40 epochs left" in out
    paused = [record for record in whole if record.status == "stopped"]
    assert any(record.stopped_by == "asha" for record in paused)
    kept = {int(file.stem) for file in Path("whole/checkpoints").glob("*.pt")}
    assert kept == {record.trial for record in paused if record.epoch}
    epochs = sum(EPOCHS - record.epoch for record in paused)
    continued, audited = sum(len(one.paused) for one in whole), sum(one.audit is not None for one in whole)
    told = f"{counted(len(paused), 'trial')} stopped by ASHA, {counted(epochs, 'epoch')} saved"
    told += f", {continued} more continued later" if continued else ""
    assert f"{told}; {audited} more {'was' if audited == 1 else 'were'} audited" in out

    command = [sys.executable, "-m", "edge_tune.run", "study.py", "--simulate=0.4", "--results=killed"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while len(Results(Path("killed")).trials()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= len(Results(Path("killed")).trials()) < len(whole)
    assert main(["study.py", "--simulate=0", "--results=killed", "--resume"]) == 0
    assert ends(Path("killed")) == ends(Path("whole"))

    capsys.readouterr()
    assert main(["study.py", "--simulate=0", "--results=whole", "--resume", "--promote=1"]) == 0
    out = capsys.readouterr().out
    said = re.search(r"(trial_\d+), paused after \d epochs?, is continued: .* it promises most\.", out)
    assert said
    after = {record.name: record for record in Results(Path("whole")).trials()}
    before = {record.name: record for record in whole}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [said[1]]
    one, former = after[said[1]], before[said[1]]
    assert (one.status, one.epoch, one.attempts) == ("finished", EPOCHS, 1)
    assert [(stop.rule, stop.epoch, stop.reason) for stop in one.paused] == [
        *((stop.rule, stop.epoch, stop.reason) for stop in former.paused),
        (former.stopped_by, former.epoch, former.reason),
    ]
    assert not Results(Path("whole")).checkpoint_file(one.trial).exists()
    lines = [json.loads(line) for line in Path("whole/trials.jsonl").read_text().splitlines()]
    ended = [line["status"] for line in lines if line["trial"] == one.trial]
    assert ended == ["stopped", "finished"]  # the former line stays


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--promote=0", "--resume"], "must be a whole number of at least 1, but got '0'"),
        (["--promote=2"], "--promote: continues trials of a study that was run before; give --resume as well."),
        (["--epoch-budget=3"], "search: epochs must be those of one trial at least, 4, but got 3."),
    ],
)
def test_what_cannot_be_continued_or_afforded_is_told(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.py").write_text(FILE)
    try:
        code = main(["study.py", "--simulate=0", *options])
    except SystemExit as end:  # argparse's
        code = int(str(end))
    assert code == 2
    assert said in capsys.readouterr().err


REAL = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    target="maximise top1",
    retraining=et.Retraining(epochs=3, lr=0.05, batch_size=32, precision="f32", average=et.Ema(0.9)),
    stopping={stopping},
    search=et.Search("random", trials=4, seed=1, max_concurrent_trials=1),
    baselines={{}},
)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_paused_trial_that_is_continued_comes_to_the_figures_of_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really trained; the points of a random search do not depend on what came of others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    for name, stopping in (("paused", "[et.Asha(reduction_factor=4)]"), ("whole", "[]")):
        Path(f"{name}.py").write_text(REAL.format(stopping=stopping))
        assert main([f"{name}.py", f"--results={name}"]) == 0
    before = {record.trial: record for record in Results(Path("paused")).trials()}
    assert main(["paused.py", "--results=paused", "--resume", "--promote=1"]) == 0
    (one,) = (record for record in Results(Path("paused")).trials() if record.paused)
    assert (before[one.trial].status, before[one.trial].epoch) == ("stopped", 1)
    (other,) = (record for record in Results(Path("whole")).trials() if record.trial == one.trial)
    assert one.status == other.status == "finished"
    assert one.point == other.point
    accuracies = ("top1", "top5", "loss")
    assert [entry.metrics["loss"] for entry in one.curve] == [entry.metrics["loss"] for entry in other.curve]
    assert [one.metrics[name] for name in accuracies] == [other.metrics[name] for name in accuracies]
