"""docs/library.ipynb: what it shows was run in order, and runs."""

import os
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/library.ipynb"


def kinds(notebook: nbformat.NotebookNode) -> list[tuple[int, list[str]]]:
    """Return the number and the kinds of output of each cell of code."""
    return [
        (cell.execution_count, sorted({key for output in cell.outputs for key in output.get("data", {})}))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")
def test_notebook_shows_what_it_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # sockets have short paths
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # its results
    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(again, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert kinds(stored) == kinds(again)
