"""Stand-ins: for the process that owns the device, which computes nothing and says what it is told to; for ssh."""

import sys
from pathlib import Path

HONEST = """
import json, os, sys, time
from pathlib import Path
import numpy as np

US = 100
turns = runs = 0

def hello(device, **asked):
    texts = dict.fromkeys(["runtime", "runtime_version", "python", "numpy"], "none")
    return dict(texts, device=device, device_name="A double", devices={{device: "A double"}}, cpus=[0])

def begin(networks, **asked):
    global count, turns
    count, turns = len(networks), 0
    used = {{"precision": "f32", "threads": 1, "streams": 1, "requests": 1, "execution_devices": ["CPU"]}}
    agreement = [{{"images": 4, "off_by": 0.0, "tolerance": 1e-3}} for _ in networks]
    time.sleep(0.01)
    throughput = dict(used, images=9, warm_up_images=9, seconds=0.001)
    seconds = {{"compile": 1e-4, "check": 1e-4, "warm_up": 1e-4, "throughput": 1e-3}}
    return {{"used": used, "agreement": agreement, "clock": "wall", "throughput": throughput, "run_ms": [0.5] * count,
             "load_average": 0.0, "seconds": seconds}}

def rounds(count, runs, max_s):
    global turns, length
    turns, length = turns + count, runs
    time.sleep(2e-3 * count * runs)
    return {{"taken_ms": [[[[0.75, 0.75]] * runs, [[1.0, 1.0]] * runs][: globals()["count"]] for _ in range(count)]}}

def read(folder):
    networks = []
    for index in range(count):
        counts = [*range(1, 21), *range(20 + length, 21 + turns * length, length)]
        path = str(Path(folder) / ("readings%d.npy" % index))
        np.save(path, np.full((len(counts), 2), US, dtype=np.int64))
        layers = [["conv", "Convolution", "jit"], ["fc", "FullyConnected", "jit"]]
        networks.append({{"layers": layers, "warm_up_runs": 20, "counts": counts, "readings_us": path}})
    return {{"networks": networks}}

def end():
    return {{}}

def predict(folder, images, **asked):
    path = str(Path(folder) / "outputs.npy")
    np.save(path, np.zeros((len(np.load(images)), 10), dtype=np.float32))
    return {{"outputs": path}}

def convert(onnx, folder):
    for name in ("model.xml", "model.bin"):
        Path(folder, name).write_bytes(b"IR")
    return {{"xml": str(Path(folder, "model.xml")), "bin": str(Path(folder, "model.bin"))}}

for line in sys.stdin:
    request = json.loads(line)
    number, command = request.pop("id"), request.pop("command")
    answer = globals()[command](**request)
    {lie}
    print(json.dumps({{"id": number, "result": answer}}), flush=True)
"""


def double_of(lie: str) -> list[str]:
    """Return the command that starts it.

    Args:
        lie: Python that is run before each answer, and may change `answer` to `command`; "" for an honest one, by
            whom every candidate takes 0.75 ms and every reference 1 ms.
    """
    return [sys.executable, "-c", HONEST.format(lie=lie or "pass")]


SSH = """#!/bin/sh
[ ! -e {folder}/fails ] || {{ . {folder}/fails; }}
while [ "$1" != -- ]; do shift; done
cd {folder}/home && exec env HOME={folder}/home TMPDIR={folder}/tmp sh -c "exec $3"
"""


def ssh_of(folder: Path) -> Path:
    """Write an ssh without a network, and return its folder.

    Every host is this machine, with `home` and `tmp` in `folder`. A file `fails` there holds what a shell does instead,
    such as `exit 255`.
    """
    for name in ("bin", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "bin/ssh").write_text(SSH.format(folder=folder))
    (folder / "bin/ssh").chmod(0o755)
    return folder / "bin"
