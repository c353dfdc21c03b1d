import os

import pytest

from affinity import pin, usable_cpus
from refusals import RefusalError


def test_pin_leaves_the_cores_alone_where_they_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can they on macOS."""
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    pin("0,1")
    assert usable_cpus() == list(range(os.cpu_count() or 1))


def test_pin_refuses_cores_that_are_not_there() -> None:
    with pytest.raises(RefusalError, match=r"among the cores of this process .* but got \[9999\]"):
        pin("9999")
