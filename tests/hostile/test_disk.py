"""A results folder that cannot be written any more: the study ends with a sentence, and nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge_tune.records.results import Results

ROOT = Path(__file__).parents[2]
STUDY = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(search=et.Search("random", trials=6, seed=0))
"""

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "study.py").write_text(STUDY)
    return subprocess.run(
        [sys.executable, "-m", "edge_tune.run", "study.py", "--results", "disk/results", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGE_TUNE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_study_ends_with_a_sentence_and_can_be_resumed(small_disk: Path, tmp_path: Path) -> None:
    first = run(tmp_path, "--trials", "2")
    assert first.returncode == 0, first.stderr
    before = (small_disk / "results" / "trials.jsonl").read_text()

    def is_stopped_by(fault: str) -> None:
        stopped = run(tmp_path, "--resume")
        assert stopped.returncode in (1, 2), stopped.stdout
        assert "Traceback" not in stopped.stdout + stopped.stderr
        assert fault in stopped.stderr
        assert (small_disk / "results" / "trials.jsonl").read_text().startswith(before)

    fill(small_disk / "ballast")
    is_stopped_by("No space left on device")
    (small_disk / "ballast").unlink()
    remount(small_disk, "ro")
    is_stopped_by("Read-only file system")
    remount(small_disk, "rw")
    last = run(tmp_path, "--resume")
    assert last.returncode == 0, last.stdout + last.stderr
    records = Results(small_disk / "results").trials()
    known = len(Results(small_disk / "results").baselines())
    assert [record.trial for record in records] == list(range(known, known + len(records)))
    assert len([record for record in records if record.same_as is None]) == 6
    assert (small_disk / "results" / "trials.jsonl").read_text().startswith(before)
