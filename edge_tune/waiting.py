"""A line now and then while something takes long, so that nobody has to guess whether it still goes on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 20.0


@contextmanager
def told(say: Callable[[str], None], what: str, every_s: float = EVERY_S) -> Iterator[None]:
    """Say every so many seconds, from another thread, that `what` is still waited for; nothing of what is quick.

    Args:
        say: Takes a line.
        what: What the block waits for, such as "the device CPU to answer".
        every_s: Seconds between two lines.
    """
    began = time.monotonic()
    with news(say, lambda: f"Still waiting for {what}, for {time.monotonic() - began:.0f} s.", every_s):
        yield


@contextmanager
def news(say: Callable[[str], None], line: Callable[[], str], every_s: float) -> Iterator[None]:
    """Say `line()` every so many seconds, from another thread, until the block ends."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(every_s):
            say(line())

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
