import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tune.benchmark.backend import RUNNER
from onnx_runtime import _Workers, shares_of

HOME = """
import sys
sys.path.insert(0, sys.argv[1])
from installed import open_runtime
open_runtime("onnxruntime:CPU").load(sys.argv[2], "onnxruntime:CPU", "f32", 1, False).layers()
"""


def test_nothing_is_kept_on_this_host_to_be_reported_home(onnx: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx)
    unset = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    env = {**unset, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", HOME, str(RUNNER), str(tmp_path / "model.onnx")], check=True, env=env)
    assert [*tmp_path.iterdir()] == [tmp_path / "model.onnx"]


def event(name: str, us: int) -> dict[str, Any]:
    told = {"op_name": "Conv", "provider": "CPUExecutionProvider"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": told}


def test_shares_of_leaves_out_the_first_run_and_what_was_interrupted() -> None:
    fence = {"cat": "Node", "name": "a_nchwc_fence_before", "dur": 999, "args": {}}
    whole = {"cat": "Session", "name": "model_run", "dur": 999, "args": {}}
    runs = [(900, 900), *[(30, 10)] * 7, (30, 5000)]
    events = [one for a, b in runs for one in (fence, event("a_nchwc", a), event("b", b), whole)]
    kinds, shares = shares_of(events, len(runs))
    assert kinds == [("a_nchwc", "Conv", "CPUExecutionProvider nchwc"), ("b", "Conv", "CPUExecutionProvider")]
    np.testing.assert_allclose(shares, [0.75, 0.25])


def test_shares_of_a_layer_that_runs_several_times_in_a_run_are_of_all_its_runs() -> None:
    events = [event(name, 10) for name in ("once", "thrice", "thrice", "thrice") * 2]
    np.testing.assert_allclose(shares_of(events, 2)[1], [0.25, 0.75])


def test_workers_answer_every_image_at_once_and_raise_the_first_error() -> None:
    both = threading.Barrier(2, timeout=30)  # broken unless two are answered at a time
    answered: list[int] = []

    def answer(index: int, image: str) -> None:
        both.wait()
        answered.append(index)

    _Workers(2, answer).run("abcdef")
    assert sorted(answered) == [0, 1, 2, 3, 4, 5]

    def fail(index: int, image: str) -> None:
        raise RuntimeError(image)

    with pytest.raises(RuntimeError, match=r"^a$"):
        _Workers(1, fail).run("abc")
