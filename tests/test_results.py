import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge_tune.errors import ExperimentError
from edge_tune.files import write_atomically
from edge_tune.metrics import METRICS
from edge_tune.records.entries import EpochEntry, Evidence, LayerEntry, Ratio
from edge_tune.records.jsonfiles import converted, decoded, plain, to_json
from edge_tune.records.results import Record, Results
from tests.studies import evidence


def record(trial: int, **changes: object) -> Record:
    return Record(**{"trial": trial, "status": "finished", **changes})  # type: ignore[arg-type]


def test_add_and_trials_return_the_same_records_by_number(tmp_path: Path) -> None:
    results = Results(tmp_path)
    later = record(
        12,
        metrics={"top1": 90.5},
        curve=(EpochEntry(epoch=1, lr=0.1, train_loss=2.0, seconds=9.0, metrics={"top1": 80.0}),),
        point={"a.sparsity": 0.25},
    )
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


def test_what_was_expected_of_trials_is_read_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add_started(1, {"a": 0.1})
    results.add_started(2, {"a": 0.2}, {"top1": 81.5})
    assert results.expected() == {2: {"top1": 81.5}}


def test_keep_networks_deletes_those_of_the_records_only(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    kept, gone = record(1), record(2)
    for one in (kept, gone, record(3)):
        results.network_file(one).write_bytes(b"weights")
    (results.networks / "mine.pt").write_bytes(b"precious")
    results.keep_networks([kept, record(9)], among=[gone, kept])
    assert sorted(file.name for file in results.networks.iterdir()) == ["mine.pt", "trial_0001.pt", "trial_0003.pt"]


def test_keep_networks_writes_the_layers_of_those_it_keeps(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    layers = [LayerEntry("conv1", "Convolution", "k", 0.5, 0.75), LayerEntry("a,b", "Add", "k", 0.25, 0.25)]
    first, second, without = record(1, layers=layers), record(2, layers=layers[:1]), record(3)
    results.keep_networks([first, without], among=[first, without])
    assert list(csv.DictReader(results.layers_file(first).read_text().splitlines())) == [
        {"name": "conv1", "type": "Convolution", "kernel": "k", "ms": "0.5", "share": "0.75"},
        {"name": "a,b", "type": "Add", "kernel": "k", "ms": "0.25", "share": "0.25"},
    ]
    results.keep_networks([second, without], among=[first, second, without])
    assert [file.name for file in (tmp_path / "layers").iterdir()] == ["trial_0002.csv"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"trial": 4, "stat', "input data was truncated"),
        (b"[]", "expected an object with the fields of a record, got list"),
        (b'{"status": "finished"}', "object missing required field `trial`"),
        (b'{"trial": "4"}', "expected `int`, got `str` in `trial`"),
        (b'{"trial": 4, "metrics": {"top1": "much"}}', "expected `int | float`, got `str` in `metrics[...]`"),
        (b'{"trial": 4, "reason": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 0"),
        (b'{"trial": 4, "started_at": "noon"}', "expected a time in ISO 8601, got 'noon'"),
        (b'{"trial": 4, "baseline": "../mine"}', "a baseline's name names its files, so it must not be '../mine'"),
        (b'{"trial": 4, "curve": [{"epoch": 1}]}', "object missing required field `lr` in `curve[0]`"),
        (
            b'{"trial": 4, "measurements": {"pruned": {"ratios": {"latency_ratio": {"ratio": 0, "low": 1}}}}}',
            "expected `float` > 0.0 in `measurements[...].ratios.latency_ratio.ratio`",
        ),
        (
            b'{"trial": 4, "plan": [{"part": "a", "structure": "filters", "kind": "up"}]}',
            "invalid enum value 'up' in `plan[0].kind`",
        ),
    ],
)
def test_a_damaged_line_is_named_and_left_out(line: bytes, problem: str, tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(record(1))
    with (tmp_path / "trials.jsonl").open("ab") as file:
        file.write(line + b"\n")
    results.add(record(3))
    assert [one.trial for one in results.trials()] == [1, 3]
    (said,) = results.problems()
    assert said.startswith(f"{tmp_path}/trials.jsonl:2: must hold what a study wrote there, but got: {problem}")
    assert said.endswith("; left out.")


def test_evidence_is_read_back_as_it_was_written_without_what_is_unknown() -> None:
    one = {"ratio": 0.5, "low": 0.25, "high": 1.0}
    written = {
        "device": "CPU",
        "devices": {"CPU": "a CPU"},
        "cpus": [1],
        "execution_devices": ["CPU"],
        "latency": {"n": 9, "mean": 1.5, "median": 1.25},
        "throughput": {"streams": 2, "images": 90, "seconds": 0.5, "warm_up_images": 3},
        "reference": {"latency": {"median": 2.5}},
        "ratios": {"latency_ratio": one, "is_precise": False, "to_itself": True},
        "metrics": {"latency_ms": 1.25},
    }
    found = evidence(**written)
    assert converted(decoded(to_json(found).encode()), Evidence) == found
    assert plain(found) == {**written, "seconds": {}}
    assert (found.intervals, found.reference_ms) == ({"latency_ratio": Ratio(0.5, 0.25, 1.0)}, {"latency_ms": 2.5})
    assert (found.is_precise, found.is_unpruned) == (False, True)


def test_a_record_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text('{"trial": 3, "metrics": null, "new": 1}\n')
    (one,) = Results(tmp_path).trials()
    assert (one.trial, one.metrics, Results(tmp_path).problems()) == (3, {}, [])


def test_write_json_replaces_the_file_whole(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write_json("run.json", {"a": float("inf")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}


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
            '{"form": 2, "identity": {"mod',
            r"run.json: must hold what a study wrote there, but got: input data was truncated; restore the file, or",
        ),
        ("run.json", "[]", r"run.json: must hold .*, but got: expected `object`, got `array`; restore the file"),
        ("run.json", '{"form": 2}', r"run.json: must say the study's identity, but does not; restore the file"),
        (
            "run.json",
            '{"identity": {}}',
            r"run.json: must be of a study that this version of EdgeTune can read .*, but is older",
        ),
        (
            "run.json",
            '{"form": 2, "identity": 5}',
            r"run.json: .* expected `object \| null`, got `int` in `identity`; restore",
        ),
        ("run.json", None, r"run.json: must be there beside the records of a study, but is not; restore the file"),
    ],
)
def test_check_names_the_file_that_is_damaged(tmp_path: Path, file: str, content: str | None, problem: str) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"form": 2, "identity": {}, "sessions": []})
    results.add(record(1, status="failed"))
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
    torch.save({"weight": torch.arange(9999.0)}, results.network_file(record(1)))
    results.check_networks([record(1), record(2, status="failed")])
    with pytest.raises(ExperimentError, match=r"trial_0003.pt: must hold .*, but there is no such file; rest") as error:
        results.check_networks([record(3), record(1), record(3)])
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(("begin", "end"), [(0, 30_000), (1000, 41_000), (0, 0)])
def test_check_networks_finds_weights_that_are_cut_or_changed(begin: int, end: int, tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.create()
    file = results.network_file(record(1))
    torch.save({"weight": torch.arange(9999.0)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[begin:end] if not begin else whole[:begin] + b"\1" + whole[begin + 1 :])
    with pytest.raises(ExperimentError, match=r"trial_0001.pt: must hold the weights of .*, but it is damaged \(.*; r"):
        results.check_networks([record(1)])


def test_check_wants_every_figure_of_a_trial_that_has_figures(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"form": 2, "identity": {}})
    metrics = dict.fromkeys(METRICS, 1.0)
    ratios = {name: {"ratio": 1.0, "low": 1.0, "high": 1.0} for name in ("latency_ratio", "total_latency_ratio")}
    whole = record(1, metrics=metrics, pruned=metrics, measurements={"pruned": evidence(ratios=ratios)})
    results.add(whole)
    results.check()
    results.add(replace(whole, trial=2, metrics=dict.fromkeys(METRICS[1:], 1.0)))
    with pytest.raises(
        ExperimentError, match=r"the record of trial_0002, which finished, must hold .* lacks top1; rem"
    ):
        results.check()


def test_check_refuses_when_a_trial_has_lost_its_point(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_json("run.json", {"form": 2, "identity": {}})
    for trial in (1, 2, 3):
        results.add_started(trial, {"a": 0.5})
    results.add(record(1, status="failed"))
    file = tmp_path / "started.jsonl"
    first, second, third = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"\xff" + first + second + third)  # its record holds the point
    results.check()
    assert results.unfinished() == {2: {"a": 0.5}, 3: {"a": 0.5}}
    file.write_bytes(first + b"\xff" + second + third)
    with pytest.raises(ExperimentError, match=r"started.jsonl:2: .*; without it, nobody knows the point of trial 2, w"):
        results.check()


def test_others_are_what_lies_in_a_folder_that_no_study_began_in(tmp_path: Path) -> None:
    results = Results(tmp_path / "new")
    assert results.others() == []
    results.create()
    with results.held():  # and then it was killed
        assert results.others() == []
    (results.networks / "mine.pt").write_text("precious")
    (results.folder / "thesis.tex").write_text("precious")
    assert results.others() == ["networks", "thesis.tex"]
    results.write_json("run.json", {})
    assert results.others() == []


@pytest.mark.parametrize("name", ["experiment.py", "networks", "networks/trial_0001.pt", "report.html.part"])
def test_require_refuses_a_link_out_of_the_folder(name: str, tmp_path: Path) -> None:
    results = Results(tmp_path / "sent")
    results.folder.mkdir()
    results.write_json("run.json", {})
    (tmp_path / "secret").mkdir()
    (results.folder / name).parent.mkdir(exist_ok=True)
    (results.folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(
        ExperimentError, match=rf"{name}: must lie in the results folder, but is a link to .*secret; rep"
    ):
        results.require()


def test_write_atomically_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for name in ("page.html", "page.html.part"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "page.html", b"page")
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "page.html").read_text() == "page"


def test_write_atomically_leaves_nothing_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        write_atomically(tmp_path / "folder", b"page")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


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

    monkeypatch.setattr("edge_tune.records.results.fcntl.flock", refuse)
    expected = r"on a file system that locks files, but got No locks available; choose another with --results"
    with pytest.raises(ExperimentError, match=expected), Results(tmp_path).held():
        pass
