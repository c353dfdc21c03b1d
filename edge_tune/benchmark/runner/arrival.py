"""How the runner starts on a host that has nothing of it, and ends with the connection. Python 3.6 or newer.

Sent as text, with the runner, zipped, in the next line of stdin. The runner gets a folder of its own to work in. sshd
leaves alone what it started when a connection is lost, and a runner that hangs would keep the device and a core for
ever: so its parent watches the connection, ends it, and removes the folder.
"""

import base64
import os
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

LEAVE_S = 4.0  # what the runner has to leave by itself; it takes half of that (protocol.py)


def watch(runner: int, its_end: int) -> int:
    """Wait for the end of the runner, or of the connection and then of the runner; return its exit code.

    Args:
        runner: Its process, the first of a group.
        its_end: A pipe that is closed when it ends.
    """
    ends = select.poll()
    ends.register(0, getattr(select, "POLLRDHUP", 0))  # no word of what is asked, which is the runner's to read
    ends.register(its_end, 0)
    ends.poll()
    deadline = time.monotonic() + LEAVE_S
    ended, status = os.waitpid(runner, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended, status = os.waitpid(runner, os.WNOHANG)
    if not ended:
        os.killpg(runner, signal.SIGKILL)
        _, status = os.waitpid(runner, 0)
    if os.WIFSIGNALED(status):
        sys.stderr.write("The runner was ended by signal %d.\n" % os.WTERMSIG(status))
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def main() -> None:
    """Unpack the runner, and be both: the process that it runs in, and the one that watches it."""
    folder = tempfile.mkdtemp(prefix="edge_tune-")
    archive = Path(folder) / "runner.zip"
    archive.write_bytes(base64.b64decode(sys.stdin.readline()))
    its_end, held = os.pipe()
    runner = os.fork()
    if runner:
        os.close(held)
        code = watch(runner, its_end)
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(code)
    os.setsid()
    os.chdir(folder)
    sys.path[:] = [place for place in sys.path if place]  # else a random.py that lies there would count
    runpy.run_path(str(archive), run_name="__main__")


if __name__ == "__main__":
    main()
