import time

import pytest

from edge_tune.waiting import told


def test_told_says_now_and_then_that_something_is_waited_for() -> None:
    said: list[str] = []
    with told(said.append, "the device CPU to answer", every_s=0.01):
        while len(said) < 3:
            time.sleep(0.01)
    assert set(said) == {"Still waiting for the device CPU to answer, for 0 s."}


def test_told_is_silent_about_what_is_quick() -> None:
    said: list[str] = []
    with told(said.append, "nothing"):
        pass
    assert said == []


def test_told_ends_with_an_error() -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match="no device"), told(said.append, "the device", every_s=0.01):
        raise ValueError("no device")
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count
