"""Options that mean nothing or would do harm: a sentence, exit code 2, and everything stays as it was."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import edge_tune.run as run
from edge_tune import export, train
from edge_tune.benchmark import __main__ as benchmark
from edge_tune.convert import __main__ as convert
from edge_tune.doctor import __main__ as doctor
from edge_tune.report import __main__ as report
from tests.studies import write_study

pytestmark = pytest.mark.hostile

Main = Callable[[Sequence[str]], int]
EXPERIMENT = "from tests.networks import experiment as make\nexperiment = make()\n"
EMPTY: list[tuple[Main, list[str]]] = [
    (run.main, [""]),
    *(
        (run.main, ["study.py", f"--{name}="])
        for name in ("data", "weights", "device", "device-python", "device-host", "results")
    ),
    (run.main, ["study.py", "--device-resource="]),
    (train.main, [""]),
    (train.main, ["study.py", "--data="]),
    (report.main, [""]),
    *((report.main, ["study", f"--{name}="]) for name in ("output", "objective", "csv", "parquet")),
    (export.main, ["", "4", "out"]),
    (export.main, ["study", "4", ""]),
    (export.main, ["study", "", "out"]),
    (export.main, ["study", "4", "out", "--device-python="]),
    (convert.main, [""]),
    (convert.main, ["schedule.yaml", "--sweep="]),
    (convert.main, ["schedule.yaml", "--output="]),
    (benchmark.main, [""]),
    (benchmark.main, ["x.onnx", "--reference="]),
    (benchmark.main, ["x.onnx", "--device-python="]),
    (benchmark.main, ["x.onnx", "--device-host="]),
    (benchmark.main, ["layers", ""]),
    (benchmark.main, ["layers", "x.onnx", "--device-python="]),
    (benchmark.main, ["layers", "x.onnx", "--device-host="]),
    (benchmark.main, ["granularity", "--device-python="]),
    (benchmark.main, ["granularity", "--device-host="]),
    (doctor.main, ["--device-python="]),
    (doctor.main, ["--device-host="]),
]
OWN = [
    "trials.jsonl",
    "baselines.jsonl",
    "started.jsonl",
    "promoted.jsonl",
    "earlier.jsonl",
    "run.json",
    "summary.json",
    "experiment.py",
    "unpruned.onnx",
    "networks/trial_0002.pt",
    "best/model.onnx",
    "layers/trial_0002.csv",
    "tensorboard/events",
    ".lock",
]
FOREIGN = [
    "thesis.tex",
    "experiment.py",
    "report.html",
    "networks/mine.pt",
    "networks/trial_0001.pt",
    "layers/mine.csv",
    "best/model.onnx",
    "tensorboard/events",
    "checkpoints/0001.pt",
    ".git/config",
    "summary.json",
    "unpruned.onnx",
]
FOLDERS = [
    ("/dev/null", "the results folder must be"),
    ("file", "the results folder must be writable, but got (File exists|Not a directory)"),
    ("file/deeper", "the results folder must be writable, but got Not a directory"),
    ("300 x", "the results folder must be accessible, but got File name too long"),
    (".", "the results folder must be new or empty, but holds"),
    ("..", "the results folder must be new or empty, but holds"),
    ("loop", "the results folder must be (writable|accessible), but got Too many levels of symbolic links"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.py").write_text(EXPERIMENT)
    Path("file").write_text("precious")
    Path("loop").symlink_to("loop")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def assert_refused(main: Main, words: list[str], problem: str, said: pytest.CaptureFixture[str]) -> None:
    before = everything()
    try:
        code: object = main(words)
    except SystemExit as error:  # argparse's own
        code = error.code
    output = said.readouterr()
    assert code == 2, output
    assert re.search(problem, output.err), output.err
    assert "Traceback" not in output.err
    assert everything() == before


@pytest.mark.parametrize(("main", "words"), EMPTY)
def test_empty_text(main: Main, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What a variable of the shell that is not set gives."""
    assert_refused(main, words, "empty text|but got ''", capsys)


@pytest.mark.parametrize("option", ["output", "csv", "parquet"])
@pytest.mark.parametrize("file", OWN)
def test_report_over_a_file_of_a_study(option: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("mine"), 3)
    Path("mine", file).parent.mkdir(exist_ok=True)
    Path("mine", file).touch()
    problem = rf"{file}: must not be written over, since it is a file of the study in .*mine; choose another file"
    assert_refused(report.main, ["mine", f"--{option}=mine/{file}"], problem, capsys)


@pytest.mark.parametrize("file", ["other/trials.jsonl", "mine/../other/run.json", "link/run.json"])
def test_report_over_a_file_of_another_study(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("mine"), 3)
    write_study(Path("other"), 3)
    Path("link").symlink_to("other")
    assert_refused(
        report.main, ["mine", f"--output={file}"], "must not be written over, since it is a file of .*other", capsys
    )


@pytest.mark.parametrize("file", FOREIGN)
def test_results_where_something_else_lies(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p", file).parent.mkdir(parents=True)
    Path("p", file).write_text("precious")
    problem = rf"p: the results folder must be new or empty, but holds {file.split('/')[0]}; choose another folder"
    assert_refused(run.main, ["study.py", "--results=p"], problem, capsys)
    assert_refused(run.main, ["study.py", "--results=p", "--simulate=0"], problem, capsys)


@pytest.mark.parametrize(("folder", "problem"), FOLDERS)
def test_results_where_no_folder_can_be(folder: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = 300 * "x" if folder == "300 x" else folder
    assert_refused(run.main, ["study.py", f"--results={folder}", "--simulate=0"], problem, capsys)


@pytest.mark.parametrize("folder", ["nowhere", "file", "/dev/null", ".", "loop", 300 * "x"])
@pytest.mark.parametrize("main", [report.main, export.main, run.main])
def test_results_that_hold_no_study(main: Main, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {report.main: [folder], export.main: [folder, "4", "out"]}
    given = words.get(main, ["study.py", "--resume", f"--results={folder}"])
    assert_refused(
        main, given, "must be the results folder of a study|must be accessible|needs a study that was", capsys
    )
