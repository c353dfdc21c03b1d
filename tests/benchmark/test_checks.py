from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_tune.doctor import checks, stick
from tests.hosts import NEW, NO_PLUGIN, OLD, host, only


def test_interpreter_says_how_it_ended_when_it_does_not_start(tmp_path: Path) -> None:
    broken = host(tmp_path, facts={"ended": "does not start: No such file or directory"})
    assert str(only(checks.interpreter, broken)) == (
        "fix  interpreter: python3.9 does not start: No such file or directory; name another: --device-python."
    )
    assert [*checks.runtime(broken), *stick.libusb(broken)] == []


def test_interpreter_misses_numpy(tmp_path: Path) -> None:
    levels = [finding.level for finding in checks.interpreter(host(tmp_path, facts={**OLD, "numpy": None}))]
    assert levels == ["ok", "fix"]


@pytest.mark.parametrize(
    ("device", "facts", "level", "says"),
    [
        ("MYRIAD", {**NEW, "parts": {"MYRIAD": NO_PLUGIN}}, "fix", "OpenVINO 2026.4.1 has no MYRIAD plugin (it was "),
        ("MYRIAD", {**NEW, "parts": {"MYRIAD": NO_PLUGIN}}, "fix", "openvino==2021.4.2, for Python 3.6 to 3.9"),
        (
            "MYRIAD",
            {**NEW, "openvino": "2022.3.2-9279-e2c7e4d7b4d", "parts": {"MYRIAD": NO_PLUGIN}},
            "fix",
            "OpenVINO 2022.3.2 has no MYRIAD plugin (the wheels of 2022 lack it)",
        ),
        ("MYRIAD", {**OLD, "parts": {"MYRIAD": {"connected": []}}}, "fix", "no such device is connected"),
        ("MYRIAD", {**OLD, "parts": {"MYRIAD": {"connected": ["1.2-ma2480"]}}}, "ok", "MYRIAD can be used"),
        ("MYRIAD", {**OLD, "parts": {"MYRIAD": {"error": "Cannot load library libusb"}}}, "fix", "Cannot load library"),
        ("MYRIAD", {**OLD, "ended": "ended with exit code 1"}, "fix", "looking for MYRIAD, the interpreter ended with"),
        ("CPU", {**NEW, "parts": {"CPU": {"connected": [""]}}}, "ok", "CPU can be used"),
        ("GPU", {**NEW, "parts": {"GPU": {"error": "libOpenCL.so.1: cannot"}}}, "fix", "which says: libOpenCL.so.1"),
    ],
)
def test_openvino_says_what_is_wrong_with_the_plugin(
    device: str, facts: Mapping[str, Any], level: str, says: str, tmp_path: Path
) -> None:
    version, plugin = checks.runtime(host(tmp_path, facts=facts, device=device))
    assert version.level == "ok"
    assert plugin.level == level
    assert says in plugin.says


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (
            "CPU",
            "runtime: this interpreter has neither OpenVINO nor ONNX Runtime; python3.9 -m pip install openvino, or",
        ),
        ("GPU", "OpenVINO: this interpreter has none; python3.9 -m pip install openvino."),
        ("MYRIAD", "openvino==2021.4.2"),
        ("onnxruntime:CPU", "ONNX Runtime: this interpreter has none; python3.9 -m pip install onnxruntime."),
    ],
)
def test_runtime_says_which_to_install(device: str, says: str, tmp_path: Path) -> None:
    finding = only(checks.runtime, host(tmp_path, facts={**NEW, "openvino": None}, device=device))
    assert finding.level == "fix"
    assert says in str(finding)


@pytest.mark.parametrize(
    ("device", "openvino", "level", "says"),
    [
        ("CPU", None, "ok", "1.32.0; it measures the CPU, as onnxruntime:CPU."),
        ("onnxruntime:CPU", NEW["openvino"], "ok", "1.32.0; it measures the CPU, as onnxruntime:CPU."),
        ("onnxruntime:GPU", None, "fix", "1.32.0 measures the CPU only: give --device onnxruntime:CPU."),
    ],
)
def test_runtime_is_onnx_runtime_where_the_runner_takes_it(
    device: str, openvino: str | None, level: str, says: str, tmp_path: Path
) -> None:
    facts = {**NEW, "openvino": openvino, "onnxruntime": "1.32.0"}
    finding = only(checks.runtime, host(tmp_path, facts=facts, device=device))
    assert (finding.level, finding.check, finding.says) == (level, "ONNX Runtime", says)


@pytest.mark.parametrize(
    ("governors", "level"),
    [((), "ok"), (("performance", "performance"), "ok"), (("performance", "powersave"), "warn")],
)
def test_governor_should_be_performance_on_every_core(governors: tuple[str, ...], level: str, tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor": name for core, name in enumerate(governors)}
    assert only(checks.governor, host(tmp_path, files)).level == level


@pytest.mark.parametrize(
    ("cpus", "threads", "load", "levels"),
    [
        (4, 1, "3.00 3 3 1/99 7", ["ok", "ok"]),
        (4, 1, "3.80 3 3 1/99 7", ["ok", "warn"]),
        (1, 1, "0.10 0 0 1/99 7", ["warn", "ok"]),
        (4, 4, "0.90 0 0 1/99 7", ["warn", "warn"]),
    ],
)
def test_cores_should_leave_one_for_the_measurement(
    cpus: int, threads: int, load: str, levels: list[str], tmp_path: Path
) -> None:
    found = checks.cores(host(tmp_path, {"proc/loadavg": load}, cpus=cpus, threads=threads))
    assert [finding.level for finding in found] == levels


V2, V1 = "0::/job/step", "4:cpu,cpuacct:/job"


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/job/step/cpu.max": "max 100000"}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/job/step/cpu.max": "150000 100000"}, "1.5"),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/job/cpu.max": "50000 100000"}, "0.5"),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, "2"),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/job/step/cpu.max": "900000 100000"}, None),
        (
            {
                "proc/self/cgroup": f"9:memory:/job\n{V1}",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "120000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "60000",
            },
            "2",
        ),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "-1"}, None),
    ],
)
def test_quota_finds_the_tightest_limit(files: Mapping[str, str], allowed: str | None, tmp_path: Path) -> None:
    finding = only(checks.quota, host(tmp_path, files, cpus=4))
    assert finding.level == ("ok" if allowed is None else "warn")
    if allowed:
        assert f"the time of {allowed} of 4 cores" in finding.says
