import errno
import json
import os
from pathlib import Path

import pytest
from pyarrow import csv, parquet

from edge_tune.report.__main__ import main
from tests.studies import write_study


@pytest.fixture
def study(tmp_path: Path) -> str:
    write_study(tmp_path / "study", 12)
    return str(tmp_path / "study")


def test_main_writes_the_page_into_the_results_and_says_what_was_found(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([study]) == 0
    said = capsys.readouterr().out
    assert "times as fast as the unpruned network" in said
    assert said.endswith(f"Report: {study}/report.html\n")
    assert Path(study, "report.html").read_text().startswith("<!DOCTYPE html>")


def test_main_writes_tables_and_prints_nothing_but_json(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("page.html", "trials.csv", "trials.parquet")]
    options = [f"--output={files[0]}", f"--csv={files[1]}", f"--parquet={files[2]}", "--json"]
    assert main([study, *options, "--objective=maximise top1 where latency_ratio <= 0.7"]) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary["trials"] == 12
    assert summary["objective"]["text"] == "maximise top1 where latency_ratio <= 0.7"
    assert summary["objective"]["ranking"][0]["name"] in said.err
    assert summary["objective"]["ranking"][0]["name"] in files[0].read_text()
    assert csv.read_csv(files[1]).num_rows == parquet.read_table(files[2]).num_rows == 14  # baselines too


def test_main_leaves_the_study_its_own_page_when_it_is_asked_for_another_objective(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(study, "report.html")
    own.write_text("the study's own")
    assert main([study, "--objective=maximise top1"]) == 0
    assert own.read_text() == "the study's own"
    assert capsys.readouterr().out.endswith(f"Report: {study}/report_by_objective.html\n")
    assert "maximise top1" in Path(study, "report_by_objective.html").read_text()


@pytest.mark.parametrize(
    "target",
    [
        "front of latency_ratio and top1 where top1 >= unpruned - 20",
        "0.6 * latency_ratio + 0.4 * top1",
        "minimise latency_ratio where top1 >= unpruned - 20",
    ],
)
def test_main_reports_a_study_of_any_kind_of_target(study: str, target: str) -> None:
    run = json.loads(Path(study, "run.json").read_text())
    run["identity"]["target"] = target
    Path(study, "run.json").write_text(json.dumps(run))
    assert main([study]) == 0
    assert target.replace(">", "&gt;") in Path(study, "report.html").read_text()
    assert main([study, "--objective=front of parameters and top1"]) == 0


def test_main_says_that_a_study_was_simulated(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads(Path(study, "run.json").read_text())
    Path(study, "run.json").write_text(json.dumps({**run, "simulated": True}))
    assert main([study, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["simulated"] is True
    assert said.err.startswith("Simulated: the figures follow from formulas;")
    assert "<h1>study (simulated)</h1>" in Path(study, "report.html").read_text()


def test_main_puts_several_studies_into_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_study(Path(name), 3)
    assert main(["a", "b", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert "2 studies side by side" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], "nowhere: must be the results folder of a study, but holds no run.json; give the folder that"),
        (["{study}", "--objective=best top1"], "'best'"),
        (["{study}", "--objective=minimise speed"], "a metric must be one that the trials recorded"),
        (["{study}", "{study}", "--csv=x.csv"], "--csv and --parquet: a table must be of one study, but got 2; give"),
        (["{study}", "--output={study}/none/x.html"], "x.html: must be a file that can be written, but got No such"),
        (["{study}", "--csv={study}/none/x.csv"], "x.csv: must be a file that can be written, but got No such file"),
    ],
)
def test_main_answers_bad_input_in_a_sentence(
    study: str, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(study=study) for argument in arguments]) == 2
    assert problem in capsys.readouterr().err


def test_main_ends_with_1_when_the_disk_is_full(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other name would mend that."""

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([study]) == 1
    assert capsys.readouterr() == ("", f"{study}/report.html: must be at hand, but got No space left on device.\n")


def test_main_replaces_no_pipe(study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for option in ("--output", "--csv", "--parquet"):
        assert main([study, f"{option}={pipe}"]) == 2
        assert capsys.readouterr().err == (
            f"{pipe}: must be a file to write or to replace, but is a device or a pipe; name another file.\n"
        )
    assert pipe.is_fifo()
    assert not Path(study, "report.html").exists()


def test_main_writes_nothing_where_one_of_its_files_cannot_be_written(study: str) -> None:
    for folder in ("nowhere", 300 * "x"):
        assert main([study, f"--csv={folder}/x.csv"]) == 2
    assert not Path(study, "report.html").exists()
