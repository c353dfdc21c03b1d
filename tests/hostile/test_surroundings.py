"""Surroundings that a command may meet: each works, or gets one sentence and the right exit code.

Root may write anywhere, so what must not be writable has a file where a folder should be.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from edge_tune.records.results import Results
from tests.studies import write_study

pytestmark = pytest.mark.hostile
ROOT = Path(__file__).parents[2]
in_full = partial(pytest.param, marks=pytest.mark.figures)
STUDY = """
'Die Größe der Gruppen.'
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    search=et.Search("hyperopt", trials=2),
    retraining=et.Retraining(epochs=1, lr=0.05, batch_size=32),
)
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    (tmp_path / "file").write_text("")
    return tmp_path


def environment(folder: Path, changes: Mapping[str, str]) -> dict[str, str]:
    cache = {"EDGE_TUNE_CACHE": str(folder / "cache")}
    return {**os.environ, "PYTHONPATH": str(ROOT), **cache, **changes}


def start(folder: Path, module: str, *words: str | bytes, **changes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"edge_tune.{module}", *words],
        cwd=folder,
        env=environment(folder, changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, module: str, *words: str | bytes, **changes: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command."""
    process = start(folder, module, *words, **changes)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode()


def shell(folder: Path, line: str) -> tuple[int, str]:
    """Return what bash says of a line: its exit code, that of the first command of a pipe, and stderr."""
    words = ["bash", "-c", f"{line.format(python=sys.executable)}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(words, cwd=folder, env=environment(folder, {}), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def test_home_that_cannot_be_written(folder: Path) -> None:
    """Ray would keep a token there, EdgeTune only its cache."""
    home = {"HOME": str(folder / "file"), "MPLCONFIGDIR": str(folder)}
    code, out, err = run(folder, "run", "study.py", "--results=out", **home)
    assert (code, err) == (0, ""), out


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("run", "HOME"),
        ("train", "EDGE_TUNE_CACHE"),
        in_full("run", "EDGE_TUNE_CACHE"),
        in_full("train", "HOME"),
    ],
)
def test_cache_that_cannot_be_written(folder: Path, command: str, variable: str) -> None:
    changes = {"EDGE_TUNE_CACHE": "", variable: str(folder / "file")}
    options = ["--results=out"] if command == "run" else []
    code, _, err = run(folder, command, "study.py", *options, **changes)
    expected = (
        r".*/file/.*weights: the trained weights must be kept there, but got Not a directory; name .* EDGE_TUNE_.*"
    )
    assert re.fullmatch(expected + "\n", err), err
    assert code == 2
    assert not (folder / "out").exists()


@pytest.mark.parametrize("variable", ["TMPDIR", in_full("RAY_TMPDIR")])
def test_temporary_folder_with_a_long_name(folder: Path, variable: str) -> None:
    """The path of a socket holds no more than 107 bytes."""
    long = folder / ("x" * 60)
    long.mkdir()
    code, _, err = run(folder, "run", "study.py", "--results=out", "--simulate=0", **{variable: str(long)})
    expected = r"Ray must start .* cannot exceed 107 bytes: .* short path .* variable RAY_TMPDIR;.*\n"
    assert re.fullmatch(expected, err), err
    assert code == 2
    assert not (folder / "out").exists()
    done = run(folder, "run", "study.py", "--results=out", "--simulate=0", TMPDIR=str(long), RAY_TMPDIR="/tmp")
    assert (done[0], done[2]) == (0, "")


@pytest.mark.parametrize("option", [b"--results=r\xfcn", b"--data=r\xfcn", b"--weights=r\xfcn"])
def test_name_that_is_no_text(folder: Path, option: bytes) -> None:
    code, out, err = run(folder, "run", "study.py", option)
    assert (code, out) == (2, "")
    assert err.endswith("r\\udcfcn: a name must be text in utf-8, but got other bytes; rename it.\n")
    assert len(err.splitlines()) == 1


def test_current_folder_that_is_no_text(folder: Path) -> None:
    there = os.fsencode(folder) + b"/r\xfcn"
    os.mkdir(there)  # noqa: PTH102 - a name of bytes
    done = subprocess.run(
        [sys.executable, "-m", "edge_tune.run", "../study.py"],
        cwd=there,
        env=environment(folder, {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("r\\udcfcn: a name must be text in utf-8, but got other bytes; rename it.\n")


def test_locale_without_the_letters_of_an_experiment_file(folder: Path) -> None:
    code, _, err = run(folder, "run", "study.py", "--results=out", **ASCII)
    assert (code, err) == (0, "")
    for page in (folder / "out/report.html", folder / "out/experiment.py"):
        assert "Die Größe der Gruppen." in page.read_text(encoding="utf-8")
    code, _, err = run(folder, "run", "study.py", "--results=out", "--resume", "--trials=3", **ASCII)
    assert (code, err) == (0, "")
    assert len(Results(folder / "out").trials()) == 3


def test_locale_without_the_letters_of_a_label(folder: Path) -> None:
    (folder / "label.py").write_text(STUDY.replace("search=", 'baselines={"größe": {}}, search='), encoding="utf-8")
    code, _, err = run(folder, "run", "label.py", "--results=out", **ASCII)
    assert code == 2
    assert "baselines['gr\\xf6\\xdfe']" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_another_encoding(folder: Path, encoding: str) -> None:
    write_study(folder / "study", 12)
    code, _, err = run(folder, "report", "study", PYTHONIOENCODING=encoding)
    assert (code, err) == (0, "")


def test_results_folder_that_is_deleted_meanwhile(folder: Path) -> None:
    process = start(folder, "run", "study.py", "--results=out", "--simulate=0.5", "--trials=50")
    assert process.stdout is not None
    for line in process.stdout:
        if b"[1/" in line:
            (folder / "out").rename(folder / "gone")  # in one step, while files are written there
            shutil.rmtree(folder / "gone")
            break
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    told = err.decode()
    assert re.search(r"out/\S+: results must be written as they come, but got No such file or directory\.\n$", told), (
        told
    )
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{python} -m edge_tune.report study --json 2>/dev/null | head -3", 141),
        ("{python} -m edge_tune.report study --csv=t.csv | true", 141),
        ("{python} -m edge_tune.run --help | head -1", 0),
        ("{python} -m edge_tune.report study >&- 2>&-", 0),
        ("{python} -m edge_tune.report study <&- >&- 2>&-", 0),
        ("{python} -m edge_tune.report nowhere <&- >&- 2>&-", 2),
    ],
)
def test_output_that_nobody_reads(folder: Path, line: str, code: int) -> None:
    write_study(folder / "study", 400)
    assert shell(folder, line) == (code, "")


def test_run_whose_descriptors_are_closed(folder: Path) -> None:
    line = "{python} -m edge_tune.run study.py --results=out --simulate=0 <&- >&- 2>&-"
    assert shell(folder, line) == (0, "")
    results = Results(folder / "out")
    assert len(results.trials()) == 2
    assert results.problems() == []
    assert (folder / "out/report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_run_whose_reader_leaves(folder: Path) -> None:
    code, err = shell(folder, "{python} -m edge_tune.run study.py --results=out --simulate=0.2 --trials=50 | head -3")
    assert code == 141
    assert re.fullmatch(r"Interrupted: \d+ of 52 trials (is|are) recorded in out\.\nTo resume: .* --resume\n", err), err
    recorded = len(Results(folder / "out").trials())
    assert recorded == len((folder / "out/trials.jsonl").read_text().splitlines()) if recorded else True


def test_inspect_whose_reader_leaves(folder: Path) -> None:
    words = "tests.networks:small --data digits --device fake --image-size 8 --output mine.py"
    code, err = shell(folder, "{python} -m edge_tune.inspect " + words + " | true")
    assert code == 141
    assert err == (
        "Interrupted: what was measured so far is kept, and the same command goes on; a training begins again.\n"
    )


def test_full_disk_for_the_output(folder: Path) -> None:
    write_study(folder / "study", 3)
    code, err = shell(folder, "{python} -m edge_tune.report study > /dev/full")
    assert (code, err) == (1, "The system said No space left on device.\n")
