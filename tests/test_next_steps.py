"""The commands that the end of a study and the report print; tests/test_run.py runs one as it is printed."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_tune.display.next_steps import Step, next_steps, resumed
from edge_tune.objective_text import EXAMPLE
from edge_tune.records.entries import Run
from edge_tune.records.results import Results
from edge_tune.run import _command, _parser
from tests.studies import run


def study(command: str | None, search: dict[str, Any] | None = None, **changes: Any) -> Run:
    entry = {**run(), "search": search or {"method": "hyperopt", "trials": 150}, **changes}
    return Run.from_entry({**entry, "sessions": [{"command": command}]})


@pytest.mark.parametrize(
    "given",
    [
        "x.py --trials 20 --results old --warm-start a b --data d",
        "--trials=20 --promote 3 --warm a b --resume --data d x.py --results=old",
        "x.py --data d",
        "--data d --results old -- x.py",
        "--data=d --trials 20 --warm-start a b -- x.py",
    ],
)
def test_study_is_resumed_with_twice_as_many_whatever_was_asked_last(given: str) -> None:
    command = resumed(study(f"python -m edge_tune.run {given}"), Path("results/it is here"), times=2)
    assert command
    python, *module = shlex.split(command)
    assert Path(python).resolve() == Path(sys.executable).resolve()
    assert module[:2] == ["-m", "edge_tune.run"]
    asked = _parser("run").parse_args(module[2:])
    assert (asked.trials, asked.resume, asked.results) == (300, True, Path("results/it is here"))
    assert (str(asked.experiment), asked.data, asked.promote, asked.warm_start) == ("x.py", "d", None, [])


def test_study_is_resumed_with_twice_a_budget_of_epochs() -> None:
    budget = {"method": "random", "epochs": 40}
    command = resumed(study("python -m edge_tune.run x.py --epoch-budget 40 --epochs 2", budget), Path("out"), times=2)
    assert command
    assert command.endswith("-m edge_tune.run x.py --epochs 2 --results=out --epoch-budget=80 --resume")


def test_study_is_resumed_with_twice_each_of_two_budgets() -> None:
    both = {"method": "random", "trials": 8, "epochs": 40}
    command = resumed(study("python -m edge_tune.run --epoch-budget 40 --results= -- x.py", both), Path("out"), times=2)
    assert command
    assert command.endswith("-m edge_tune.run --results=out --trials=16 --epoch-budget=80 --resume -- x.py")


@pytest.mark.parametrize(
    ("command", "search"),
    [
        ("edge_tune.run(experiment, results='out')", {"method": "hyperopt", "trials": 5}),
        ("python -m edge_tune.run x.py", {"method": "grid", "trials": 9}),
        (None, {"method": "hyperopt", "trials": 5}),
        ("edge_tune.run(experiment, results='it\\'s')", {"method": "hyperopt", "trials": 5}),  # no words of a shell
    ],
)
def test_study_that_no_command_would_continue_gets_none(command: str | None, search: dict[str, Any]) -> None:
    assert resumed(study(command, search), Path("out"), times=2) is None


def test_next_steps_name_the_networks_that_are_kept_and_another_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)
    results.networks.mkdir()
    (results.networks / "trial_0004.pt").write_bytes(b"")
    networks = {"trial_0004": "fastest within 1 point", "trial_0009": "fastest within 5 points"}
    kept, lost, choose = next_steps(results, study(None), networks, "minimise latency_ratio where top1 >= unpruned - 2")
    assert kept.what == "To take out trial_0004, fastest within 1 point"
    assert kept.command
    words = ["-m", "edge_tune.export", str(tmp_path), "trial_0004", f"{tmp_path}-trial_0004"]
    assert shlex.split(kept.command)[1:] == words
    assert (lost.command, "trial_0009, fastest within 5 points, cannot be taken out" in lost.text) == (None, True)
    assert choose.text.startswith("To choose otherwise among those that were tried; nothing runs again: ")
    assert choose.text.endswith(f"-m edge_tune.report {tmp_path} --objective 'front of latency_ratio and top1'")
    early = next_steps(results, study("python -m edge_tune.run x.py"), {}, "x", has_ended=False)[0]
    assert early.text.startswith("To go on, if it was interrupted: ")
    assert early.text.endswith(" --trials=150 --resume")
    own = study(None, identity={**run()["identity"], "model": "mine:net"})
    assert (next_steps(results, own, networks, "x")[0].command or "").endswith(" --trust-model")
    assert next_steps(results, study(None, simulated=True), networks, "x") == [
        Step(choose.what, choose.text.partition(": ")[2].replace("front of latency_ratio and top1", EXAMPLE))
    ]
    monkeypatch.chdir(tmp_path)
    here = next_steps(Results(Path()), study(None), networks, "x")[0].command
    assert shlex.split(here or "")[-3:] == [".", "trial_0004", "trial_0004"]


def test_study_is_resumed_by_each_board_that_it_was_given() -> None:
    given = _parser("run").parse_args(["x.py", "--device-host=pi@one", "--device-host=pi@two"])
    words = shlex.split(_command(given, Results(Path("out"))))
    assert words[3:] == ["x.py", "--device-host=pi@one", "--device-host=pi@two", "--results=out", "--resume"]
    assert _parser("run").parse_args(words[3:]).device_host == given.device_host
