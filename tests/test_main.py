"""The commands under one name: what leads where, and a package that is built, installed and run elsewhere."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

import pytest

import edge_tune
from edge_tune import __main__ as program
from edge_tune.__main__ import COMMANDS, main
from edge_tune.records.entries import Session
from tests.studies import write_study

ROOT = Path(__file__).parents[1]
FILE = "from tests.networks import experiment as make\n\nexperiment = make()\n"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_help_and_version_are_answered_without_torch_and_ray() -> None:
    asked = "import sys; from edge_tune.__main__ import main\ntry: main([{word!r}])\nfinally: print(*sys.modules)"
    for word, answer in (("--help", "usage: edge-tune COMMAND ..."), ("--version", "edge-tune 0.")):
        done = python("-c", asked.format(word=word))
        assert done.stdout.startswith(answer)
        assert not {"torch", "ray", "numpy", "onnx", "plotly"} & set(done.stdout.splitlines()[-1].split())


def test_help_has_a_sentence_on_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert re.findall(r"^  (\w+) +[A-Z].*\.$", said, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize(("words", "got"), [([], "none"), (["rnu", "x.py"], "'rnu'"), ([""], "''")])
def test_main_refuses_what_is_no_command(words: list[str], got: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == (
        "",
        "edge-tune: the first word must be one of run, inspect, report, export, benchmark, doctor, convert, train, "
        f"but got {got}; edge-tune --help says what each does.\n",
    )


def test_main_refuses_an_option_that_it_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--trials=3", "run"])
    assert "edge-tune: error: unrecognized arguments: --trials=3" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_its_name_as_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(COMMANDS[name][0])
    for call, called in (
        (lambda: main([name, "--help"]), f"edge-tune {name}"),
        (lambda: command.main(["--help"]), f"python -m edge_tune.{name}"),
    ):
        with pytest.raises(SystemExit, match="0"):
            call()
        assert capsys.readouterr().out.startswith(f"usage: {called} ")


@pytest.mark.parametrize("word", ["granularity", "layers"])
def test_benchmark_hands_its_name_on(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["benchmark", word, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: edge-tune benchmark {word} ")


def test_package_and_its_folders_are_the_same_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert python("-m", "edge_tune", "--version").stdout == f"edge-tune {edge_tune.__version__}\n"
    done = python("-m", "edge_tune", "report", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nowhere: must be the results folder of a study")


def test_run_records_the_documented_form_of_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.py").write_text(FILE)
    noted: list[Session] = []
    session = importlib.import_module("edge_tune.search.session")
    monkeypatch.setattr(session, "run", lambda experiment, results, about, *rest: noted.append(about) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["run", "study.py", "--trials", "2"])
    assert noted[0].command == "python -m edge_tune.run study.py --trials 2"


def test_commands_find_modules_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sys.path[:] = [folder for folder in sys.path if folder not in ("", str(tmp_path))]
    assert main(["report", "nowhere"]) == 2
    assert str(tmp_path) not in sys.path  # a results folder that somebody sent may hold modules
    assert main(["run", "nowhere.py"]) == 2
    assert sys.path[-1] == str(tmp_path)


def test_run_refuses_another_edge_tune_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "edge_tune", "edge_tune")
    assert main(["run", "nowhere.py"]) == 2
    assert capsys.readouterr().err.startswith("nowhere.py: an experiment must be a Python file")  # the very same
    Path("edge_tune/run.py").write_text("")
    assert main(["run", "nowhere.py"]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}: must not hold another EdgeTune than the one that is inst")


def test_entry_point_and_version_are_those_of_the_program() -> None:
    settings = (ROOT / "pyproject.toml").read_text().splitlines()
    assert f'edge-tune = "{program.__name__}:{main.__name__}"' in settings
    assert 'version = { attr = "edge_tune.__version__" }' in settings


def test_installed_program_works_far_from_its_sources(tmp_path: Path) -> None:
    """Built from a copy: setuptools leaves its folders beside the sources."""
    sources, installed, elsewhere = tmp_path / "sources", tmp_path / "installed", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "edge_tune", sources / "edge_tune", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, sources)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    done = python("-m", "pip", "install", *options, f"--target={installed}", str(sources))
    assert done.returncode == 0, done.stderr

    def files(folder: Path) -> set[Path]:
        return {file.relative_to(folder) for file in folder.rglob("*") if file.suffix not in ("", ".pyc")}

    assert files(installed / "edge_tune") == files(ROOT / "edge_tune")

    elsewhere.mkdir()
    write_study(elsewhere / "study", 3)

    def edge_tune_says(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [str(installed / "bin/edge-tune"), *words]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert edge_tune_says("--version") == f"edge-tune {edge_tune.__version__}\n"
    assert edge_tune_says("--help").startswith("usage: edge-tune COMMAND")
    assert "Report: study/report.html" in edge_tune_says("report", "study")
    page = (elsewhere / "study/report.html").read_text(encoding="utf-8")
    assert (ROOT / "edge_tune/report/page.css").read_text().strip()[:200] in page

    (metadata,) = installed.glob("edge_tune-*.dist-info/METADATA")
    needed = HeaderParser().parsestr(metadata.read_text()).get_all("Requires-Dist") or []
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.partition("#")[0].strip() for line in lines if not line.startswith("#")]
    tools = [
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "selenium",
        "onnxruntime",
        "ruff",
        "mypy",
        "nbclient",
        "nbformat",
        "ipykernel",
    ]
    tools += ["mkdocs-material", "mkdocstrings", "mkdocstrings-python", "pymdown-extensions"]
    assert needed == [pin for pin in pins if pin and pin.partition("==")[0] not in tools]
