"""Results folders that are damaged, or that somebody sent: the report, the export and a resume answer in sentences."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import edge_tune as et
from edge_tune import export
from edge_tune.display.plots import pictures
from edge_tune.errors import ExperimentError
from edge_tune.networks.stored import load_network
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Results
from edge_tune.report.__main__ import main as report
from edge_tune.search.stopping import make_scheduler
from tests.networks import experiment
from tests.searching import searching
from tests.studies import SCHEDULE, record, write_study
from tests.studies import run as made_up
from tests.test_stored import study

pytestmark = pytest.mark.hostile

WRONG: tuple[Any, ...] = (None, True, -1, 10**30, 1.5, "x", "", [], [[]], {}, {"x": {}})
"""One of these at least is of another type than any value of a file."""
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "a byte that is not UTF-8": lambda line: line.replace(b"finished", b"finish\xffed", 1),
    "a byte of zero": lambda line: line[:9] + b"\0" + line[9:],
    "its second half": lambda line: line[len(line) // 2 :],
    "its first half": lambda line: line[: len(line) // 2],
    "twice on one line": lambda line: line * 2,
    "text": lambda line: b"hello",
    "NaN": lambda line: line.replace(b'"attempts": 1', b'"attempts": NaN'),
    "a number without end": lambda line: line.replace(b'"attempts": 1', b'"attempts": 1e999'),
    "a number of 5,000 digits": lambda line: line.replace(b'"attempts": 1', b'"attempts": ' + 5000 * b"9"),
    "nested without end": lambda line: 100_000 * b"[",
    "nested and closed": lambda line: 100_000 * b"[" + 100_000 * b"]",
    "a list": lambda line: b"[" + line + b"]",
    "half a surrogate": lambda line: line.replace(b'"node": "', b'"node": "\\ud800', 1),
}


STARTED = b'{"trial": 3, "point": {"first": 0.5, "second": "finished"}}'


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, and the network of its trial 4 as it is exported."""
    folder = tmp_path_factory.mktemp("exported")
    export.write_stored(study(folder / "study", test=88.0), "4", folder / "best", trust_model=True)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def paths(part: Any, *, deepest: int = 5) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of each value in parsed JSON, of lists the first only."""
    yield ()
    if deepest and isinstance(part, dict):
        yield from ((key, *rest) for key, value in part.items() for rest in paths(value, deepest=deepest - 1))
    if deepest and isinstance(part, list) and part:
        yield from ((0, *rest) for rest in paths(part[0], deepest=deepest - 1))


def changed(part: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return parsed JSON with another value in one place."""
    if not path:
        return value
    copy = dict(part) if isinstance(part, dict) else list(part)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)  # type: ignore[index,call-overload]
    return copy


def replace_line(file: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    lines = file.read_bytes().split(b"\n")
    assert change(lines[number - 1]) != lines[number - 1]
    lines[number - 1] = change(lines[number - 1])
    file.write_bytes(b"\n".join(lines))


def answers(said: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the report, which must write it or refuse in a sentence; return what it said."""
    code = report(["study", *words])
    output = said.readouterr()
    assert code in (0, 2)
    assert "Traceback" not in output.err
    assert Path("study/report.html").exists() == (code == 0)
    assert len(output.err.splitlines()) == (code == 2)
    return output.out + output.err


# Lines of records


def goes_on(results: Results) -> None:
    """Do with the records what a resumed study does with them, without Ray's processes."""
    results.check()
    target, records = "minimise latency_ratio", [*results.baselines(), *results.trials()]
    made = experiment(target=target)
    ended = [record for record in records if record.trial]
    Standing(made.objective, records)
    searching(made, [], results.unfinished(), results.attempts())
    make_scheduler(et.Asha(et.Maximise("top1")), 3, ended)
    pictures(records, made.objective)


@pytest.mark.parametrize("file", ["trials.jsonl", "baselines.jsonl"])
@pytest.mark.parametrize("damage", BYTES)
def test_line_of_bytes_that_are_no_record(damage: str, file: str) -> None:
    write_study(Path("study"), 4, epochs=2)
    results = Results(Path("study"))
    whole = [record.trial for record in (*results.trials(), *results.baselines())]
    replace_line(Path("study", file), 2, BYTES[damage])
    (problem,) = results.problems()
    assert f"study/{file}:2: must hold what a study wrote there, but got: " in problem
    assert len([*results.trials(), *results.baselines()]) == len(whole) - 1


def test_report_says_which_lines_are_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 3)
    lines = [damage(json.dumps({**a_record(), "trial": 9}).encode()) for damage in BYTES.values()]
    Path("study/trials.jsonl").write_bytes(b"\n".join(lines))
    said = answers(capsys)
    assert "study/trials.jsonl:1: must hold what a study wrote there" in said
    assert f"{len(BYTES) - 5} more lines are damaged and left out." in said
    assert "study/trials.jsonl:5: must hold what" in Path("study/report.html").read_text()


def a_record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record(3, SCHEDULE, "node-0", epochs=2).to_json())
    found["measurements"]["pruned"] = found["measurements"]["retrained"]
    return found


PLACES = [path for path in dict.fromkeys(paths(a_record())) if path]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_record_with_a_value_of_another_type(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    """One value in every place of a record: a line is left out, or the report can show it."""
    write_study(Path("study"), 3, epochs=2)
    with Path("study/trials.jsonl").open("a") as file:
        for number, path in enumerate(PLACES, 100):
            file.write(json.dumps(changed({**a_record(), "trial": number}, path, value)) + "\n")
    said = answers(capsys, "--csv=x.csv", "--parquet=x.parquet")
    problems = Results(Path("study")).problems()
    assert problems[0] in said
    assert all(re.match(r"study/trials.jsonl:\d+: must hold what a study wrote there, but got: ", p) for p in problems)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_resume_from_a_record_with_a_value_of_another_type(value: object) -> None:
    """A study goes on from a line, or without it, or a sentence says what to do before anything starts."""
    write_study(Path("study"), 1)
    file, results = Path("study/trials.jsonl"), Results(Path("study"))
    lines = [file.read_text().strip()]
    for number, path in enumerate(PLACES, 100):
        line = json.dumps(changed({**a_record(), "trial": number}, path, value))
        file.write_text(f"{lines[0]}\n{line}\n")
        try:
            results.check()
        except ExperimentError as error:
            assert "must hold every figure, but lacks " in str(error)  # noqa: PT017 - either is right
        else:
            lines.append(line)
    file.write_text("\n".join(lines) + "\n")
    goes_on(results)


@pytest.mark.parametrize("damage", [name for name, change in BYTES.items() if change(STARTED) != STARTED])
def test_line_that_says_a_trial_began(damage: str) -> None:
    results = Results(Path("study"))
    results.create()
    results.write_json("run.json", {"form": 2, "identity": {}})
    for trial in (1, 2, 3):
        results.add_started(trial, {"first": 0.5, "second": "finished"})
    replace_line(Path("study/started.jsonl"), 3, BYTES[damage])
    results.check()
    assert sorted(results.unfinished()) == [1, 2]
    assert results.problems()[0].startswith("study/started.jsonl:3: must hold what a study wrote there, but got: ")
    goes_on(results)


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("key", ["trial", "point"])
def test_line_that_says_that_something_else_began(key: str, value: Any) -> None:
    results = Results(Path("study"))
    results.create()
    results.write_json("run.json", {"form": 2, "identity": {}})
    results.add_started(1, {"first": 0.5})
    with Path("study/started.jsonl").open("a") as file:
        file.write(json.dumps({"trial": 2, "point": {"first": 0.5}, key: value}) + "\n")
    goes_on(results)
    assert results.problems() or value == {}


# run.json and summary.json


def a_run() -> dict[str, Any]:
    return {**made_up(), "identity": {**made_up()["identity"], "benchmark": {"device": "CPU", "python": None}}}


@pytest.mark.parametrize("path", list(dict.fromkeys(paths(a_run()))), ids=str)
def test_run_with_a_value_of_another_type(path: tuple[str | int, ...], capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 2)
    there = reduce(lambda part, key: part[key], path, a_run())
    Path("study/run.json").write_text(json.dumps(changed(a_run(), path, 5 if there else {"x": {}})))
    assert "study/r" in answers(capsys)
    with contextlib.suppress(ExperimentError):  # it may be harmless
        Results(Path("study")).check()


@pytest.mark.parametrize("file", ["run.json", "summary.json"])
@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b"5", b"null", b"[" * 100_000, b'{"rows": 5}', b"NaN"])
def test_file_of_bytes_that_are_no_object(file: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 2)
    Path("study", file).write_bytes(content)
    assert f"study/{file}: " in answers(capsys)


@pytest.mark.parametrize("name", ["run.json", "trials.jsonl", "summary.json", "experiment.py", "baselines.jsonl"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "link"])
def test_file_that_is_something_else(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 2)
    file = Path("study", name)
    file.unlink(missing_ok=True)
    Path("secret").write_text("secret")
    make = {
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "loop": lambda: file.symlink_to(name),
        "link": lambda: file.symlink_to(Path("secret").absolute()),
    }
    make[kind]()
    said = answers(capsys)
    assert re.search(rf"study/{name}: must (be|lie|hold)|study: the results folder must be|study: must be", said), said
    assert "secret" not in (Path("study/report.html").read_text() if Path("study/report.html").exists() else "")


# Text that would become script


EVIL = "</script></style><img src=x onerror=alert(1)><script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen += [tag, *(name for name, _ in attributes if name.startswith("on"))]


def all_evil(part: Any, *but: str) -> Any:
    """Return parsed JSON in which every text is evil, and the keys of mappings whose keys are free."""
    if isinstance(part, dict):
        return {key: value if key in but else all_evil(value, *but) for key, value in part.items()}
    if isinstance(part, list):
        return [all_evil(value, *but) for value in part]
    return EVIL if isinstance(part, str) else part


def test_text_that_would_be_script(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 8, epochs=1)
    session = {**all_evil(a_run()["sessions"][0], "started_at"), "versions": {EVIL: EVIL}}
    identity = {**all_evil(a_run()["identity"], "target"), "pruner_groups": {EVIL: {"weights": [EVIL]}}}
    Path("study/run.json").write_text(
        json.dumps({"form": 2, "identity": identity, "seed": 0, "sessions": [session, session]})
    )
    fixed = ("baseline", "status", "started_at", "ended_at")
    free = {"point": {EVIL: 0.5, f"{EVIL}.text": EVIL}, "seconds": {EVIL: 5.0}}
    evil = {**all_evil(a_record(), *fixed, "kind"), **free, "reason": EVIL, "collapsed": EVIL}
    with Path("study/trials.jsonl").open("a") as lines:
        for number, status in enumerate(("finished", "stopped", "failed"), 90):
            one = {**evil, "metrics": {**evil["metrics"], EVIL: 1.0}, "trial": number, "status": status}
            lines.write(json.dumps({**one, "stopped_by": EVIL}) + "\n")
        lines.write(json.dumps({**evil, "collapsed": None, "trial": 99}) + "\n")
    answers(capsys)
    assert Results(Path("study")).problems() == []
    tags = Tags()
    tags.feed(Path("study/report.html").read_text())
    assert tags.seen.count("script") == 3
    assert not {"img", "onerror"} & set(tags.seen)


def test_source_that_would_be_script(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(Path("study"), 2)
    Path("study/experiment.py").write_bytes(b"\xff" + EVIL.encode())
    answers(capsys)
    tags = Tags()
    tags.feed(Path("study/report.html").read_text())
    assert tags.seen.count("script") == 3


# Export and load_network


def refused(words: list[str], problem: str, said: pytest.CaptureFixture[str]) -> None:
    assert export.main(words) == 2
    output = said.readouterr()
    assert re.search(problem, output.err), output.err
    assert len(output.err.splitlines()) == 1
    assert not Path("out").exists()


EXPORTS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "half of the weights": ("networks/trial_0004.pt", lambda b: b[: len(b) // 2], "trial_0004.pt: .*cannot be read"),
    "no weights": ("networks/trial_0004.pt", lambda b: b"", "trial_0004.pt: .*its 0 bytes cannot be read as one"),
    "other weights": ("networks/trial_0004.pt", lambda b: Path("study/networks/unpruned.pt").read_bytes(), "must fit"),
    "half of the network": ("unpruned.onnx", lambda b: b[: len(b) // 2], "unpruned.onnx: must be the unpruned network"),
    "no network": ("unpruned.onnx", lambda b: b"", "unpruned.onnx: must be the unpruned network as ONNX"),
    "another file": ("unpruned.onnx", lambda b: b"hello", "unpruned.onnx: must be the unpruned network as ONNX"),
    "a run without a model": (
        "run.json",
        lambda b: b'{"form": 2, "identity": {"benchmark": {"device": "CPU"}}}',
        "lacks 'model'",
    ),
    "a run without a device": (
        "run.json",
        lambda b: b'{"form": 2, "identity": {"model": "x"}}',
        "run.json: must name .* lacks",
    ),
    "a run of another type": (
        "run.json",
        lambda b: b'{"form": 2, "identity": {"model": 5}}',
        "run.json: .*expected `str`, got",
    ),
    "an unknown model": ("run.json", lambda b: b.replace(b"tests.networks:small", b"nonet"), "model: must be one of"),
    "a module that is not there": (
        "run.json",
        lambda b: b.replace(b"tests.networks", b"no.such"),
        "must be importable",
    ),
    "a plan of nothing": (
        "trials.jsonl",
        lambda b: b.replace(b'"plan": [{"part"', b'"plan": [{"colour"', 1),
        "must be the number or name of one that has ended",
    ),
    "a plan of other weights": (
        "trials.jsonl",
        lambda b: b.replace(b'"part": "block1.conv1.weight"', b'"part": "block9.conv1.weight"', 1),
        "trial_0004.pt: .*block9",
    ),
    "a damaged verdict": ("summary.json", lambda b: b'{"rows": 5}', "summary.json: must hold .* restore the file, or"),
}


@pytest.mark.parametrize("damage", EXPORTS)
def test_export_of_what_is_damaged(damage: str, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(exported / "study", "study")
    name, change, problem = EXPORTS[damage]
    before = Path("study", name).read_bytes()
    Path("study", name).write_bytes(change(before))
    assert change(before) != before
    refused(["study", "4", "out", "--trust-model"], problem, capsys)


@pytest.mark.parametrize("module", ["os:system", "subprocess:Popen", "antigravity:fly", "a.b.c:d", ":", "x:", ":x"])
def test_module_that_nobody_trusts(module: str, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(exported / "study", "study")
    Results(Path("study")).write_json(
        "run.json", {"form": 2, "identity": {"model": module, "benchmark": {"device": "fake"}}}
    )
    refused(["study", "4", "out"], "must be imported .* importing a module runs its code; add --trust-model if", capsys)
    Path("best").mkdir()
    described = {"model": module, "num_classes": 5, "input_shape": [3, 16, 16], "plan": []}
    Path("best/plan.json").write_text(json.dumps(described))
    with pytest.raises(ExperimentError, match=r"best/plan.json: model .* must be imported .* trust_model=True\) if"):
        load_network("best")


@pytest.mark.parametrize("name", ["../../mine", "/etc/passwd", "..", "a/b", "", "x" * 300, "a\nb", "a\0b"])
def test_name_that_leads_out_of_the_folder(name: str, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(exported / "study", "study")
    with Path("study/baselines.jsonl").open("a") as file:
        file.write(json.dumps({"trial": 7, "status": "finished", "baseline": name}) + "\n")
    assert "a baseline's name names its files, so it must not be " in Results(Path("study")).problems()[0]
    refused(["study", "7", "out"], "must be the number or name of one that has ended", capsys)


CUT = {"structure": "filters", "kind": "out", "importance": "l1", "sparsity": 0.5, "before": 8, "slices": [0, 1, 2, 3]}
DESCRIPTIONS: list[dict[str, Any]] = [
    {"model": 5},
    {"model": None},
    {"model": "nonet"},
    {"num_classes": "5"},
    {"num_classes": 0},
    {"num_classes": 10**9},
    {"num_classes": 4},
    {"input_shape": 16},
    {"input_shape": [3, 16]},
    {"input_shape": [3, 60_000, 60_000]},
    {"input_shape": [3, -1, 16]},
    {"input_shape": [3, 0, 0]},
    {"input_shape": ["3", "16", "16"]},
    {"mean": None},
    {"std": [0.2, 0.2]},
    {"plan": None},
    {"plan": 5},
    {"plan": [5]},
    {"plan": [{"part": "block1.conv1.weight"}]},
    {"plan": [{"part": 5, **CUT, "slices": [0, 1, 2, 9]}]},
    {"plan": [{"part": "nothing", **CUT, "slices": [0, 1, 2, 9]}]},
    {"plan": [{"part": "block1.conv1.weight", **CUT, "kind": "rows"}]},
    {"plan": [{"part": "block1.conv1.weight", **CUT, "slices": ["4"]}]},
    {"plan": [{"part": "block1.conv1.weight", **CUT, "slices": [-4]}]},
    {"plan": [{"part": "block1.conv1.weight", **CUT, "before": 999}]},
]


@pytest.mark.parametrize("change", DESCRIPTIONS, ids=repr)
def test_description_that_makes_no_network(change: dict[str, Any], exported: Path) -> None:
    shutil.copytree(exported / "best", "best")
    whole = json.loads(Path("best/plan.json").read_text())
    Path("best/plan.json").write_text(json.dumps({**whole, **change}))
    with pytest.raises(ExperimentError, match=r"^best/(plan.json|weights.pt): ") as error:
        load_network("best", trust_model=True)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("file", ["plan.json", "weights.pt"])
@pytest.mark.parametrize("kind", ["absent", "empty", "folder", "pipe", "\xff", "[" * 100_000])
def test_stored_network_of_which_a_file_is_something_else(kind: str, file: str, exported: Path) -> None:
    shutil.copytree(exported / "best", "best")
    place = Path("best", file)
    place.unlink()
    other = {"absent": lambda: None, "empty": place.touch, "folder": place.mkdir, "pipe": lambda: os.mkfifo(place)}
    other.get(kind, lambda: place.write_bytes(kind.encode("latin-1")))()
    with pytest.raises(ExperimentError, match=rf"^best/{file}: "):
        load_network("best", trust_model=True)
