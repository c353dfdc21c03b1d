"""The protocol: one JSON object a line, requests on stdin, answers on stdout.

    {"id": 1, "command": "hello", "device": "CPU", "precision": "f32", "threads": 1}
 -> {"id": 1, "alive": true}
 -> {"id": 1, "result": {"device": "CPU", "device_name": ..., "devices": {...}, "runtime": ..., ...}}
 or {"id": 1, "error": "one sentence"}

Each command is a method of `commands.Commands`: the other fields of a request are its arguments, those of the result
are the keys of what it returns. Networks come as paths of ONNX files, arrays as paths of .npy files. On another host
they are names of files in the process's own folder, and `put` and `get` carry what is in them.

While a command is busy, the process says about once a second that it is alive, so that silence means that it hangs.
It ends when stdin does, and gives a command that it is busy with 2 s: nobody is left to read the answer.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any, Dict, Iterator, Optional, Tuple

LEAVE_S = 2.0  # what a command has left when stdin ends
SIGN_S = 1.0  # between two signs of life, at least


class Wire:
    """The protocol's two ends: requests from stdin, answers to what was stdout when the process started."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # a plugin that prints must not end up among the answers
        self._requests: queue.Queue[Optional[Dict[str, Any]]] = queue.Queue()
        self._id: Any = None
        self._said = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._requests.put(json.loads(line))
        self._requests.put(None)  # an idle process leaves by itself and lets the plugin close its device
        time.sleep(LEAVE_S)
        os._exit(0)

    def __iter__(self) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """Yield the command of each request and its other fields."""
        for request in iter(self._requests.get, None):
            self._id, self._said = request.pop("id"), time.monotonic()
            yield request.pop("command"), request

    def result(self, result: Dict[str, Any]) -> None:
        """Answer the current request."""
        self._say(result=result)

    def error(self, sentence: str) -> None:
        """Answer that the current request cannot be done, and why."""
        self._say(error=sentence)

    def alive(self) -> None:
        """Tell, about once a second, that the current request is being worked on."""
        if time.monotonic() - self._said > SIGN_S:
            self._say(alive=True)

    def _say(self, **answer: Any) -> None:
        self._said = time.monotonic()
        self._answers.write(json.dumps(dict(answer, id=self._id)) + "\n")
        self._answers.flush()
