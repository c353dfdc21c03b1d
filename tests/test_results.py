import csv
import errno
import json
import os
from pathlib import Path

import pytest

from edge_tune.errors import ExperimentError
from edge_tune.results import Record, Results


def record(trial: int, **changes: object) -> Record:
    return Record(**{"trial": trial, "status": "finished", **changes})  # type: ignore[arg-type]


def test_add_and_trials_return_the_same_records_by_number(tmp_path: Path) -> None:
    results = Results(tmp_path)
    later = record(12, metrics={"top1": 90.5}, curve=({"epoch": 1, "top1": 80.0},), sparsities={"a": 0.25})
    for one in (later, record(3, status="failed", reason="x"), record(1, baseline="half")):
        results.add(one)
    assert [r.trial for r in results.trials()] == [3, 12]
    assert results.trials()[1].to_json() == later.to_json()
    assert [r.name for r in results.baselines()] == ["half"]


def test_add_goes_on_after_a_line_that_a_crash_left_unfinished(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(record(1))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"trial": 2, "status": "finis')
    assert [r.trial for r in results.trials()] == [1]
    results.add(record(3))
    assert [r.trial for r in results.trials()] == [1, 3]


def test_add_refuses_a_metric_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Results(tmp_path).add(record(1, metrics={"loss": float("nan")}))
    assert Results(tmp_path).trials() == []


def test_trials_read_records_of_another_version(tmp_path: Path) -> None:
    entry = {**json.loads(record(1).to_json()), "colour": "blue"}
    del entry["node"]
    (tmp_path / "trials.jsonl").write_text(json.dumps(entry) + "\n")
    assert [r.trial for r in Results(tmp_path).trials()] == [1]


def test_unfinished_are_the_trials_that_began_and_did_not_end(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for trial in (1, 2, 3):
        results.add_started(trial, {"a": trial / 10})
    results.add(record(1, baseline="half"))
    results.add(record(2))
    assert results.unfinished() == {3: {"a": 0.3}}


def test_keep_networks_deletes_the_others_only(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    kept, gone, not_spoken_of = record(1), record(2), record(3)
    for one in (kept, gone, not_spoken_of):
        results.network_file(one).write_bytes(b"weights")
    results.keep_networks([kept, record(9)], among=[kept, gone, record(8)])
    assert sorted(file.name for file in results.networks.iterdir()) == ["trial_0001.pt", "trial_0003.pt"]


def test_keep_networks_writes_the_layers_of_those_it_keeps(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    layers = [{"name": "conv1", "type": "Convolution", "ms": 0.5}, {"name": "a,b", "type": "Add", "ms": 0.25}]
    first, second, without = record(1, layers=layers), record(2, layers=layers[:1]), record(3)
    results.keep_networks([first, without], among=[])
    assert list(csv.DictReader(results.layers_file(first).read_text().splitlines())) == [
        {"name": "conv1", "type": "Convolution", "ms": "0.5"},
        {"name": "a,b", "type": "Add", "ms": "0.25"},
    ]
    results.keep_networks([second, without], among=[first, second])
    assert [file.name for file in (tmp_path / "layers").iterdir()] == ["trial_0002.csv"]


def test_count_unreadable_counts_lines_without_a_record(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.count_unreadable() == 0
    results.create()
    results.add(record(1))
    results.add(record(2, baseline="known"))
    assert results.count_unreadable() == 0
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"status": "finished"}\n[]\n{"trial": 3, "metrics": null, "new": 1}\n{"trial": 4, "stat')
    assert results.count_unreadable() == 3
    assert [one.trial for one in results.trials()] == [1, 3]
    assert results.trials()[-1].metrics == {}


def test_write_json_replaces_the_file_whole(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write_json("run.json", {"a": float("inf")})
    assert results.read_json("run.json") == {"a": 1}


def test_create_refuses_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match=r"file/results: the results folder must be writable, but got Not a dir"):
        Results(tmp_path / "file" / "results").create()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a read-only mount, needs root")
def test_create_refuses_a_read_only_file_system() -> None:
    with pytest.raises(ExperimentError, match=r"the results folder must be writable, but got .*; choose another with"):
        Results(Path("/proc/edge_tune/results")).create()


def test_discard_if_empty_keeps_what_was_written(tmp_path: Path) -> None:
    results = Results(tmp_path / "new")
    results.create()
    results.discard_if_empty()
    assert not results.folder.exists()
    results.create()
    results.write_json("run.json", {})
    results.discard_if_empty()
    assert results.exists()


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (
            "run.json",
            '{"identity": {"mod',
            r"run.json: must be JSON, but got: Unterminated string.*; restore the file, or",
        ),
        ("run.json", "[]", r"run.json: must hold a JSON object, but got \[\]; restore the file"),
        ("run.json", "{}", r"run.json: must say the study's identity, but got None; restore the file"),
        ("run.json", None, r"run.json: must be there beside the records of a study, but is not; restore the file"),
    ],
)
def test_check_names_the_file_that_is_damaged(tmp_path: Path, file: str, content: str | None, problem: str) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"identity": {}, "sessions": []})
    results.add(record(1))
    results.check()
    (tmp_path / file).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / file).write_text(content)
    assert results.exists()
    with pytest.raises(ExperimentError, match=problem) as error:
        results.check()
    assert len(error.value.problems) == 1


def test_check_networks_wants_the_weights_of_those_that_finished(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    results.network_file(record(1)).write_bytes(b"weights")
    results.check_networks([record(1), record(2, status="failed")])
    with pytest.raises(
        ExperimentError, match=r"trial_0003.pt: must hold the weights of trial_0003, .*; restore"
    ) as error:
        results.check_networks([record(3), record(1), record(3)])
    assert len(error.value.problems) == 1


def test_a_study_is_held_by_one_command_at_a_time(tmp_path: Path) -> None:
    with Results(tmp_path).held():
        expected = r"a study must be run by one command at a time, but another one runs it now; wait"
        with pytest.raises(ExperimentError, match=expected), Results(tmp_path).held():
            pass
    new = Results(tmp_path / "new")
    new.create()
    with new.held():  # again, by the next command
        new.discard_if_empty()
    assert not new.folder.exists()


def test_a_study_is_not_run_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("edge_tune.results.fcntl.flock", refuse)
    expected = r"on a file system that locks files, but got No locks available; choose another with --results"
    with pytest.raises(ExperimentError, match=expected), Results(tmp_path).held():
        pass
