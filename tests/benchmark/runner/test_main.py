import json
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from edge_tune.benchmark.backend import RUNNER


def python36() -> str | None:
    """The oldest Python that the runner must run on, from the path or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob("versions/3.6.*/bin/python"))
    return str(found[-1]) if found else shutil.which("python3.6")


def test_runner_is_python_3_6() -> None:
    python = python36()
    if python is None:
        pytest.skip("no Python 3.6 here; pyenv install 3.6.15")
    check = "import sys; [compile(open(name).read(), name, 'exec') for name in sys.argv[1:]]"
    subprocess.run([python, "-c", check, *RUNNER.glob("*.py")], check=True)


def test_runner_leaves_when_stdin_ends() -> None:
    process = subprocess.Popen([sys.executable, str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"", timeout=30) == (b"", None)
    assert process.returncode == 0


def test_runner_runs_from_an_archive_too(tmp_path: Path) -> None:
    archive = tmp_path / "runner.zip"
    zipapp.create_archive(RUNNER, archive, filter=lambda file: file.suffix == ".py")
    process = subprocess.Popen([sys.executable, archive], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.communicate(b"", timeout=30) == (b"", None)
    assert process.returncode == 0


def test_runner_keeps_what_a_plugin_prints_out_of_its_answers() -> None:
    noisy = f"""
import os, runpy, sys
sys.argv = ["runner"]
sys.path.insert(0, {str(RUNNER)!r})
import commands
commands.Commands.hello = lambda self, device: os.write(1, b"MYRIAD: hello\\n") and {{"device": device}}
runpy.run_path({str(RUNNER)!r}, run_name="__main__")
"""
    done = subprocess.Popen([sys.executable, "-c", noisy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=-1)
    assert done.stdin
    assert done.stdout
    assert done.stderr
    with done.stdin, done.stdout, done.stderr:
        done.stdin.write(b'{"id": 7, "command": "hello", "device": "CPU"}\n')
        done.stdin.flush()
        assert json.loads(done.stdout.readline()) == {"id": 7, "result": {"device": "CPU"}}
        done.stdin.close()
        assert b"MYRIAD: hello" in done.stderr.read()
    done.wait(timeout=30)
