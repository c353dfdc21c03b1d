import time

import pytest

from clocks import clock_for


@pytest.mark.parametrize(
    ("device", "threads", "name"),
    [("CPU", 1, "process_time"), ("onnxruntime:CPU", 1, "process_time"), ("CPU", 2, "perf_counter")],
)
def test_clock_for_leaves_out_waiting_where_one_thread_of_the_process_computes(
    device: str, threads: int, name: str
) -> None:
    assert clock_for(device, threads) is getattr(time, name)
    assert clock_for("MYRIAD", threads) is time.perf_counter
