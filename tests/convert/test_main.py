import shutil
from pathlib import Path

import pytest

from edge_tune.convert.__main__ import main
from edge_tune.loading import load_experiment
from tests.convert.files import HERE
from tests.convert.test_conversion import BY_HAND, SWEPT_BY_HAND
from tests.convert.test_source import ruff


def test_main_writes_the_file_beside_the_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = tmp_path / "filter_rank.v2.yaml"
    shutil.copy(HERE / "filter_rank.yaml", schedule)
    assert main([str(schedule)]) == 0
    file = tmp_path / "filter_rank.v2.py"
    assert load_experiment(file) == BY_HAND
    *notes, last = capsys.readouterr().out.splitlines()
    assert last == f"Written: {file} (notes: 9). To run it: python -m edge_tune.run {file}"
    assert len(notes) == 9
    comments = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    assert all(note in comments for note in notes)


def test_main_writes_a_sweep_where_it_is_told(tmp_path: Path) -> None:
    file = tmp_path / "swept.py"
    assert main([str(HERE / "filter_rank.yaml"), "--sweep", str(HERE / "sweep.yaml"), "--output", str(file)]) == 0
    assert load_experiment(file) == SWEPT_BY_HAND
    ruff("format", "--check", file=file)
    ruff("check", file=file)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["none.yaml"],
            "none.yaml: must be a YAML file, but it cannot be read: No such file or directory; check the path.",
        ),
        (["filter_rank.yaml", "--sweep", "none.yaml"], "none.yaml: must be a YAML file, but it cannot be read"),
        (["filter_rank.yaml", "--sweep", "filter_rank.yaml"], "filter_rank.yaml:7: parameters must give a range"),
        (["filter_rank.yaml", "--output", "taken.py"], "taken.py: the experiment file must be new, but there is one"),
        (
            ["filter_rank.yaml", "--output", "no/such.py"],
            "such.py: the experiment file must be one that can be written, but got No such file or directory; name",
        ),
        (["filter_rank.yaml", "--output", "study.txt"], "study.txt: the experiment file must end in .py"),
        (["my schedule.yaml"], "my schedule.py: the experiment file must end in .py and its name consist of letters"),
        (["."], ".: the schedule must be a file; name one."),
        (["taken.py"], "taken.py: must hold YAML keys and values, but got none"),
    ],
)
def test_main_answers_bad_input_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("filter_rank.yaml", "my schedule.yaml"):
        shutil.copy(HERE / "filter_rank.yaml", tmp_path / name)
    Path("taken.py").write_text("mine")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert problem in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert Path("taken.py").read_text() == "mine"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".py", ".yaml", ".yaml"]
