import sys

import pytest

from edge_tune.benchmark.child import Child, ChildError
from edge_tune.errors import BenchmarkError

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "alive": True}))
    print(json.dumps({"id": request["id"], "result": {"got": request["text"]}}), flush=True)
"""


def child(script: str, silence_s: float = 30.0) -> Child:
    return Child([sys.executable, "-c", script], silence_s)


def test_ask_returns_the_result_to_each_request() -> None:
    echo = child(ECHO)
    assert [echo.ask("echo", text=text) for text in ("a", "b")] == [{"got": "a"}, {"got": "b"}]
    echo.kill()


def test_ask_waits_on_while_the_child_signs() -> None:
    signing = child(
        "import json, sys, time; sys.stdin.readline()\n"
        "for _ in range(10): time.sleep(0.2); print(json.dumps({'id': 1, 'alive': True}), flush=True)\n"
        "print(json.dumps({'id': 1, 'result': {}}), flush=True)",
        silence_s=1.5,
    )
    assert signing.ask("measure") == {}
    signing.kill()


def test_ask_gives_up_on_a_child_that_only_signs() -> None:
    signing = Child(
        [
            sys.executable,
            "-c",
            "import json, sys, time; sys.stdin.readline()\n"
            "while True: time.sleep(0.1); print(json.dumps({'id': 1, 'alive': True}), flush=True)",
        ],
        silence_s=30,
        limit_s=0.5,
    )
    with pytest.raises(ChildError, match=r"measure: it must be done within 0\.5 s, but only signed\."):
        signing.ask("measure")
    signing.kill()


@pytest.mark.parametrize("error", ["Can not init Myriad device: NC_ERROR", "Failed to write: X_LINK_ERROR"])
def test_ask_takes_an_error_of_the_sticks_driver_for_a_failure_of_the_process(error: str) -> None:
    faulty = child(f'import sys; sys.stdin.readline(); print(\'{{"id": 1, "error": "{error}"}}\', flush=True)')
    with pytest.raises(ChildError, match=rf"^measure: {error}$"):
        faulty.ask("measure")
    faulty.kill()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.stdin.readline(); sys.exit(1)", r"measure: it ended with exit code 1\."),
        (
            "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)",
            r"measure: it ended with signal SIGSEGV\.",
        ),
        (
            "import sys; sys.stdin.readline(); print('E: NC_ERROR', flush=True); sys.stdin.readline()",
            r"got b'E: NC_ERROR'",
        ),
        (
            "import sys; sys.stdin.readline(); print('{\"id\": 99}', flush=True); sys.stdin.readline()",
            r"must be JSON, of finite numbers, with id 1, but got b'\{\"id\": 99\}'",
        ),
        (
            "import os, sys, time; sys.stdin.readline(); os.fork() and os._exit(3); time.sleep(20)",
            r"measure: it ended with exit code 3\.",
        ),
        ("import time; time.sleep(600)", r"measure: it must answer or sign within 0\.5 s, but was silent\."),
    ],
    ids=["exit", "segfault", "garbage", "another's answer", "exit with a heir of its pipes", "hang"],
)
def test_ask_raises_when_the_child_fails(script: str, reason: str) -> None:
    failing = child(script, silence_s=0.5 if "600" in script else 30.0)
    with pytest.raises(ChildError, match=reason):
        failing.ask("measure")
    failing.kill()


def test_ask_passes_on_what_the_child_refuses() -> None:
    refusing = child('import sys; sys.stdin.readline(); print(\'{"id": 1, "error": "no stick"}\', flush=True)')
    with pytest.raises(BenchmarkError, match=r"^no stick$") as raised:
        refusing.ask("hello")
    assert not isinstance(raised.value, ChildError)
    refusing.kill()


def test_stderr_tail_is_the_end_of_what_was_written() -> None:
    talking = child("import sys; sys.stdin.readline(); sys.exit('x' * 1000 + ' mutex is another user\\'s')")
    with pytest.raises(ChildError, match="exit code 1"):
        talking.ask("hello")
    assert talking.stderr_tail(23) == "mutex is another user's"
    talking.kill()
