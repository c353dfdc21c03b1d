"""Processes that own the device and lie, flood their pipes, hang or die: one sentence each, and nothing goes on."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_tune.benchmark import child
from edge_tune.benchmark.__main__ import main
from edge_tune.benchmark.backend import RunnerBackend
from edge_tune.doctor import __main__ as doctor
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.jsonfiles import to_json
from tests.doubles import double_of

pytestmark = pytest.mark.hostile

NETWORK = b"no runtime reads it"
QUICK = Benchmark(runs=10, retries=0)
IMAGES = np.zeros((4, 3, 8, 8), dtype=np.float32)

RUN = 'answer["taken_ms"][0][0][0] = '
COUNTERS = 'answer["networks"][0]'
LIES = {
    "a negative run": (
        "rounds",
        f"{RUN}[-5.0, -5.0]",
        r"taken_ms\[0\]\[0\]\[0\]\[0\] must be 0\.0001 to .*, but got -5",
    ),
    "a run of no time": ("rounds", f"{RUN}[0, 0]", r"must be 0\.0001 to .*, but got 0"),
    "a run of 1e308 ms": ("rounds", f"{RUN}[1e308, 1e308]", r"must be 0\.0001 to .*, but got 1e\+308"),
    "a run of 1e-300 ms": ("rounds", f"{RUN}[1e-300, 1.0]", r"must be 0\.0001 to .*, but got 1e-300"),
    "a run of nan": ("rounds", f'{RUN}[float("nan"), 1.0]', r"must be JSON, of finite numbers, .* but got b'"),
    "a run of inf": ("rounds", f'{RUN}[float("inf"), 1.0]', r"must be JSON, of finite numbers, .* but got b'"),
    "a run in words": ("rounds", f'{RUN}["fast", "fast"]', r"\[0\] must be a number, but got 'fast'"),
    "a run that is true": ("rounds", f"{RUN}[True, True]", r"\[0\] must be a number, but got True"),
    "a run of nothing": ("rounds", f"{RUN}[None, None]", r"\[0\] must be a number, but got None"),
    "a whole number beyond floats": ("rounds", f"{RUN}[10**400, 1.0]", r"must be 0\.0001 to .*, but got 1000"),
    "a run that is a list": ("rounds", f"{RUN}[[1.0], 1.0]", r"must be a number, but got \[1\.0\]"),
    "a run without its wall time": ("rounds", f"{RUN}[1.0]", r"must hold 2 items, but got 1"),
    "a turn too short": ("rounds", 'answer["taken_ms"][0][0].pop()', r"\[0\]\[0\] must hold \d items, but got \d"),
    "a network missing": ("rounds", 'answer["taken_ms"][0].pop()', r"\[0\] must hold 2 items, but got 1"),
    "no rounds": ("rounds", 'answer["taken_ms"] = []', r"must hold 1 to 2 rounds, but got 0"),
    "too many rounds": ("rounds", 'answer["taken_ms"] *= 9', r"must hold 1 to 2 rounds, but got 18"),
    "no list": ("rounds", 'answer["taken_ms"] = "fast"', r"taken_ms must be a list, but got 'fast'"),
    "nothing": ("rounds", "answer.clear()", r"rounds must hold 'taken_ms', but got \[\]"),
    "runs longer than they took to come": (
        "rounds",
        'answer["taken_ms"] = [[[[9.0, 9.0]] * 5] * 2] * 2',
        r"the runs of rounds\.taken_ms must fit in the .* ms in which they came, but add up to 180 ms",
    ),
    "images of no time": ("begin", 'answer["throughput"]["seconds"] = 0', r"throughput\.seconds must be .* but got 0"),
    "no images": ("begin", 'answer["throughput"]["images"] = 0', r"throughput\.images must be 1 to .*, but got 0"),
    "half an image": ("begin", 'answer["throughput"]["images"] = 1.5', r"must be a whole number, but got 1\.5"),
    "a negative load": ("begin", 'answer["load_average"] = -1', r"load_average must be at least 0, but got -1"),
    "seconds that have not passed": ("begin", 'answer["seconds"]["compile"] = 1e9', r"seconds\.compile must be 0 to "),
    "an agreement in words": (
        "begin",
        'answer["agreement"][0]["off_by"] = "none"',
        r"off_by must be a number, but got",
    ),
    "no agreement": ("begin", 'answer["agreement"] = []', r"agreement must hold 2 items, but got 0"),
    "a setting that is an object": (
        "begin",
        'answer["used"]["threads"] = {}',
        r"threads must be a whole number, but got",
    ),
    "a precision that is a number": (
        "begin",
        'answer["used"]["precision"] = 32',
        r"begin\.used must hold settings, but got: expected `str \| null`, got `int` in `precision`",
    ),
    "a list in place of an object": ("begin", 'answer["used"] = []', r"begin\.used must be an object, but got \[\]"),
    "a name of 2,000 letters": ("begin", 'answer["clock"] = "x" * 2000', r"must be a text of at most 1000 printable"),
    "a name that moves the cursor": (
        "hello",
        'answer["device_name"] = "\\x1b[2J"',
        r"device_name must be a text of at",
    ),
    "half a character": ("hello", 'answer["device_name"] = "\\ud800"', r"device_name must be a text of at most 1000"),
    "no name": ("hello", 'answer["device_name"] = None', r"device_name must be a text of at most .*, but got None"),
    "a core in words": ("hello", 'answer["cpus"] = ["one"]', r"cpus\[0\] must be a whole number, but got 'one'"),
    "a negative counter": (
        "read",
        f'np.save({COUNTERS}["readings_us"], np.full((len({COUNTERS}["counts"]), 2), -1))',
        r"the layers' times of read\.networks\[0\] must be 0 to .*, but got -1 to -1",
    ),
    "a counter beyond all time": (
        "read",
        f'np.save({COUNTERS}["readings_us"], np.full((len({COUNTERS}["counts"]), 2), 2**62))',
        r"must be 0 to .* microseconds, which have passed, but got 4611686018427387904",
    ),
    "counters that are no whole numbers": (
        "read",
        f'np.save({COUNTERS}["readings_us"], np.full((len({COUNTERS}["counts"]), 2), np.nan))',
        r"readings_us must be int64, \[\d+, 2\], but got float64",
    ),
    "counters of a layer too few": (
        "read",
        f'{COUNTERS}["layers"].pop()',
        r"readings_us must be int64, \[\d+, 1\], but got int64, \[\d+, 2\]",
    ),
    "counters that are code": (
        "read",
        f'np.save({COUNTERS}["readings_us"], np.array([print], dtype=object))',
        r"readings_us must be an array that numpy can read, but got: ",
    ),
    "counters that are no array": (
        "read",
        f'Path({COUNTERS}["readings_us"]).write_text("no array")',
        r"readings_us must be an array that numpy can read, but got: ",
    ),
    "counters without an end": (
        "read",
        f'Path({COUNTERS}["readings_us"]).write_bytes(Path({COUNTERS}["readings_us"]).read_bytes()[:200])',
        r"readings_us must be an array that numpy can read, but got: ",
    ),
    "counters elsewhere": (
        "read",
        f'{COUNTERS}["readings_us"] = "/etc/passwd"',
        r"must be a file in .*, but got '/etc/",
    ),
    "a pipe for a file": (
        "read",
        f'os.unlink({COUNTERS}["readings_us"]); os.mkfifo({COUNTERS}["readings_us"])',
        r"readings_us must be a file in .*, but got ",
    ),
    "counts that fall": (
        "read",
        f'{COUNTERS}["counts"].reverse()',
        r"counts must rise to 20 in the warm-up and then 2 ",
    ),
    "no counts": ("read", f'{COUNTERS}["counts"].clear()', r"counts must rise to 20 in the warm-up and then 2 times"),
    "no warm-up": ("read", f'{COUNTERS}["warm_up_runs"] = 0', r"warm_up_runs must be 1 to .*, but got 0"),
    "a layer without a kernel": ("read", f'{COUNTERS}["layers"][0].pop()', r"layers\[0\] must hold 3 items, but got 2"),
    "an answer that is a list": (
        "rounds",
        "answer = []",
        r"must hold an object as result, an error or a sign of life, but got",
    ),
    "an answer of 100,000 brackets": (
        "rounds",
        'sys.stdout.write("[" * 100_000 + "\\n")',
        r"must be JSON, of finite num",
    ),
    "an error that is no text": (
        "rounds",
        'print(json.dumps({"id": number, "error": [1, 2]}), flush=True)',
        r"^\[1, 2\]$",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_in_one_sentence(lie: str) -> None:
    command, change, sentence = LIES[lie]
    body = change.replace("\n", "\n        ")
    backend = RunnerBackend(QUICK, command=double_of(f'if command == "{command}": {body}'))
    with pytest.raises(BenchmarkError, match=sentence) as refused:
        backend.measure(NETWORK, QUICK, NETWORK + b"!")
    backend.close()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('answer["outputs"] = "/dev/zero"', r"outputs must be a file in .*, but got '/dev/zero'"),
        (
            "np.save(answer['outputs'], np.full((4, 10), np.nan, np.float32))",
            r"must be finite, but got 40 that are not",
        ),
        (
            "np.save(answer['outputs'], np.zeros((3, 10), np.float32))",
            r"must be float32, \[4, None\], but got .* \[3, 10\]",
        ),
        ("np.save(answer['outputs'], np.zeros((4, 10), 'U5'))", r"must be float32, \[4, None\], but got <U5"),
    ],
    ids=["another file", "nan", "an image too few", "words"],
)
def test_false_outputs_are_refused_in_one_sentence(change: str, sentence: str) -> None:
    backend = RunnerBackend(QUICK, command=double_of(f'if command == "predict": {change}'))
    with pytest.raises(BenchmarkError, match=sentence):
        backend.predict(NETWORK, IMAGES, QUICK)
    backend.close()


def test_an_ir_elsewhere_is_refused_in_one_sentence() -> None:
    backend = RunnerBackend(QUICK, command=double_of('if command == "convert": answer["xml"] = "/etc/passwd"'))
    with pytest.raises(BenchmarkError, match=r"convert\.xml must be a file in .*, but got '/etc/passwd'"):
        backend.convert(NETWORK)
    backend.close()


def test_an_honest_double_is_believed() -> None:
    """What all the lies above differ from."""
    backend = RunnerBackend(QUICK, command=double_of(""))
    measured = backend.measure(NETWORK, QUICK, NETWORK + b"!")
    assert measured.total_latency_ratio == pytest.approx(0.75)
    assert backend.predict(NETWORK, IMAGES, QUICK).shape == (4, 10)
    assert backend.convert(NETWORK) == (b"IR", b"IR")
    backend.close()
    to_json(measured.evidence)


FLOODS = {
    "words without a line's end": ("import os\nwhile True: os.write(1, b'y' * 65536)", r"at most 4 MiB to its stdout"),
    "complaints without end": ("import os\nwhile True: os.write(2, b'y' * 65536)", r"at most 4 MiB to its stderr"),
    "signs of life without end": (
        'import os\nwhile True: os.write(1, b\'{"id": 1, "alive": true}\\n\' * 1000)',
        r"at most 4 MiB to its stdout",
    ),
    "lines without end": (
        "import os\nwhile True: os.write(1, b'y\\n' * 30000)",
        r"must be JSON, of finite numbers, .*'y'",
    ),
    "both at a time": (
        "import os\nwhile True: os.write(1, b'y' * 999); os.write(2, b'y' * 65536)",
        r"at most 4 MiB to its stderr",
    ),
    "silence": ("import time; time.sleep(600)", r"hello: it must answer or sign within 2 s, but was silent"),
    "an end at once": ("", r"hello: it ended with exit code 0"),
    "a signal without a name": ("import os; os.kill(os.getpid(), 35)", r"hello: it ended with signal 35"),
    "a closed stdout": (
        "import os, time; os.close(1); time.sleep(600)",
        r"hello: it closed its answers but still runs",
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_or_silence_ends_in_one_sentence(flood: str) -> None:
    script, sentence = FLOODS[flood]
    silence_s = 2.0 if flood == "silence" else 60.0
    backend = RunnerBackend(QUICK, command=[sys.executable, "-c", script], silence_s=silence_s)
    with pytest.raises(BenchmarkError, match=rf"CPU must answer, but failed once: .*{sentence}") as refused:
        backend.describe()
    assert len(str(refused.value)) < 2000
    assert backend.pid is None


def test_a_device_that_hangs_from_the_start_is_waited_for_once() -> None:
    settings = Benchmark(runs=10, retries=5)
    backend = RunnerBackend(settings, command=[sys.executable, "-c", "import time; time.sleep(600)"], silence_s=1.0)
    with pytest.raises(BenchmarkError, match=r"failed once: hello: it must answer or sign within 1 s, but was silent"):
        backend.describe()


def test_what_a_flood_leaves_in_memory_is_bounded() -> None:
    talking = child.Child(
        [sys.executable, "-c", "import sys; sys.stderr.write('x' * 10**6 + 'the end'); input()"], 60.0
    )
    with pytest.raises(child.ChildError, match=r"it ended with|must be JSON"):
        talking.ask("hello")
    assert talking.stderr_tail(7) == "the end" or "Error" in talking.stderr_tail()
    assert len(talking.stderr_tail(10**6)) <= child.TAIL_BYTES
    talking.kill()


@pytest.mark.parametrize("program", ["/usr/bin/yes", "/bin/cat", "/bin/true", "/bin/false", "/etc/passwd", "/tmp"])
def test_a_device_python_that_is_none_is_named_in_one_sentence(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path(program).exists():
        pytest.skip(f"this host has no {program}")
    model = tmp_path / "model.onnx"
    from edge_tune.benchmark.granularity import pairs

    model.write_bytes(pairs([16]))
    assert main([str(model), "--device-python", program]) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(r"must (answer|start)", said.splitlines()[-1])
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exec yes", r"writes without end: more than 1 MiB"),
        ("exec yes >&2", r"writes without end: more than 1 MiB"),
        ("printf '{\\n'", r"says nothing: is it a Python interpreter"),
        ("printf '\\377\\376'", r"says nothing: is it a Python interpreter"),
        ("kill -11 $$", r"ended with signal 11"),
        ("exit 3", r"ended with exit code 3"),
    ],
)
def test_the_doctor_says_what_is_wrong_with_an_interpreter_that_is_none(
    script: str, sentence: str, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert re.search(sentence, doctor.ask(str(program), "CPU")["ended"])
