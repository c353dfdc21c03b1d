"""TensorBoard itself, started on a folder and asked over HTTP."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

STARTS_WITHIN_S = 120


class Board:
    """A TensorBoard that serves."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: object) -> Any:
        with urlopen(f"{self.url}/data/{path}?{urlencode(query)}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, **content: object) -> Any:
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.url}/data/{path}", json.dumps(content).encode(), headers), timeout=60) as answer:
            return json.load(answer)

    def bytes(self, path: str) -> bytes:
        with urlopen(f"{self.url}/data/{path}", timeout=60) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def serving(folder: Path) -> Iterator[Board]:
    """Serve a folder on a free port until the block ends; begins when all its runs are read."""
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        runs = {path.name for path in folder.iterdir()}
        board = Board(_within(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log).group(0))
        _within(lambda: set(board.get("runs")) == runs, log)
        yield board
    finally:
        process.terminate()
        process.wait(timeout=60)


def _within(ready: Any, log: Path) -> Any:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not (found := ready()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return found
