"""The shipped cluster.yaml on hosts of this machine, used as docs/cluster.md says: up, a study, its results, down.

Two bare homes are set up by `ray up` itself, then the nodes of the cluster start from copies of them: setting up three
takes three times as long and shows nothing more. The tests share the cluster and run in this order.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_tune.records.results import Results
from tests.cluster.hosts import Host, Hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1300)]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(sys.prefix).resolve()
CHECKOUT = "EdgeTune"  # in the user's home
MARKER = "/etc/edge_tune_ncs"
RULES = "/etc/udev/rules.d/97-edge-tune.rules"
ASK = """
import json, ray
ray.init(address="auto", log_to_driver=False, logging_level="error")
nodes = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps({node["NodeManagerHostname"]: node["Resources"].get("ncs", 0) for node in nodes}))
"""
STUDY = "experiments/resnet56_latency.py --data digits --train-images 300 --trials 2 --epochs 1"


@dataclass(frozen=True)
class Cluster:
    user: Host
    head: Host
    trainer: Host
    device: Host

    def ray(self, command: str, timeout: float = 120) -> str:
        """Run a command of Ray where the user is, in the checkout."""
        return self.user.run(f".venv/bin/ray {command}", CHECKOUT, timeout=timeout)


def start_user(hosts: Hosts, name: str, listen: str = "") -> Host:
    """Start the host where the user works: a checkout with its .venv, and a key for the cluster."""
    user = hosts.start(name, listen=listen, shown=[ENVIRONMENT])
    shutil.copytree(ROOT, user.path(CHECKOUT), ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
    user.run(f"ln -s {ENVIRONMENT} {CHECKOUT}/.venv; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/edge_tune")
    return user


def admit(user: Host, *hosts: Host) -> None:
    """Let the user's key open these hosts."""
    key = user.path(".ssh/edge_tune.pub").read_text()
    for host in hosts:
        host.path(".ssh").mkdir(mode=0o700, exist_ok=True)
        host.path(".ssh/authorized_keys").write_text(key)


def set_up(user: Host, host: Host) -> None:
    """Let `ray up` set up one host as the head of a cluster of its own, but not start Ray there."""
    admit(user, host)
    config = yaml.safe_load(user.path(f"{CHECKOUT}/cluster.yaml").read_text())
    config["cluster_name"] = host.name
    config["provider"].update(head_ip=host.address, worker_ips=[])
    config["auth"]["ssh_user"] = "root"
    config["head_start_ray_commands"] = []
    user.path(f"{CHECKOUT}/{host.name}.yaml").write_text(yaml.safe_dump(config))
    user.run(f".venv/bin/ray up --yes {host.name}.yaml", CHECKOUT, timeout=900)
    host.run("rm -r .ray ray_bootstrap_*")  # each cluster brings its own


def homes(hosts: Hosts) -> tuple[list[Path], list[Path]]:
    """Return the homes of a node without a device and of one with a device, each a list of layers.

    This takes place on the machine's own network, because it needs the package indexes.
    """
    user = start_user(hosts, "installer", listen="127.77.0.1")
    plain = hosts.start("plain", listen="127.77.0.2")
    set_up(user, plain)
    device = hosts.start("with-device", plain.home, listen="127.77.0.3")
    device.run(f"echo 1 >{MARKER}")
    set_up(user, device)
    for host in (user, plain, device):
        host.end()
    return [plain.home], [device.home, plain.home]


def replaced(text: str, **values: str) -> str:
    """Return cluster.yaml with these values in place of its own; comments stay where they are."""
    for key, value in values.items():
        text, times = re.subn(rf"(?m)^( +{key}: )(\[.*?\]|\S+)", rf"\g<1>{value}", text)
        assert times == 1, key
    return text


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder, Hosts(Path(folder)) as hosts:
        plain, with_device = homes(hosts)
        user = start_user(hosts, "user")
        head, trainer = hosts.start("head", *plain), hosts.start("trainer", *plain)
        device = hosts.start("device", *with_device)
        device.run(f"echo 1 >{MARKER}")
        admit(user, head, trainer, device)
        file = user.path(f"{CHECKOUT}/cluster.yaml")
        workers = f"[{trainer.address}, {device.address}]"
        file.write_text(replaced(file.read_text(), head_ip=head.address, worker_ips=workers, ssh_user="root"))
        yield Cluster(user, head, trainer, device)


def devices(cluster: Cluster) -> dict[str, float]:
    """Return each node that has joined and how many devices it offers."""
    said = cluster.ray("exec cluster.yaml 'edge_tune/.venv/bin/python ask.py'")
    found: dict[str, float] = json.loads(re.findall(r"^\{.*\}", said, re.MULTILINE)[-1])
    return found


def last_answer(expected: Any, ask: Callable[[], Any], seconds: float) -> Any:
    """Ask until the answer is the expected one, or for so long."""
    end = time.monotonic() + seconds
    while (got := ask()) != expected and time.monotonic() < end:
        time.sleep(5)
    return got


def test_ray_up_starts_every_node_and_offers_the_device_where_it_is(cluster: Cluster) -> None:
    cluster.ray("up --yes cluster.yaml", timeout=300)
    cluster.user.path(f"{CHECKOUT}/ask.py").write_text(ASK)
    cluster.ray("rsync-up cluster.yaml ask.py ask.py")
    expected = {"head": 0, "trainer": 0, "device": 1}
    assert last_answer(expected, lambda: devices(cluster), 120) == expected


def test_only_the_device_host_has_what_a_stick_needs(cluster: Cluster) -> None:
    for node in (cluster.head, cluster.trainer):
        assert not node.path("edge_tune/.venv-ncs").exists()
        assert not node.path(RULES).exists()
    ask = "import openvino.inference_engine as ie; print(ie.__version__)"
    assert "2021.4.2" in cluster.device.run(f"edge_tune/.venv-ncs/bin/python -c '{ask}'")
    assert cluster.device.path(RULES).read_text() == (ROOT / "cluster/97-edge-tune.rules").read_text()


def test_token_is_the_same_on_every_node_and_asked_for(cluster: Cluster) -> None:
    nodes = (cluster.head, cluster.trainer, cluster.device)
    (token,) = {node.path(".ray/auth_token").read_text() for node in nodes}
    assert {node.path(".ray/auth_token").stat().st_mode & 0o777 for node in nodes} == {0o600}
    assert len(token) >= 32
    join = f"RAY_AUTH_MODE=disabled .venv/bin/ray status --address={cluster.head.address}:6379"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.user.run(join, CHECKOUT)
    assert "InvalidAuthToken" in refused.value.output


def test_dashboard_answers_on_the_head_alone_and_asks_for_the_token(cluster: Cluster) -> None:
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).status)"
    assert "200" in cluster.head.run(f"python3 -c '{ask}' http://127.0.0.1:8265")
    for host, address, answer in (
        (cluster.head, "127.0.0.1:8265/api/v0/nodes", "HTTP Error 401"),
        (cluster.user, f"{cluster.head.address}:8265", "Connection refused"),
    ):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            host.run(f"python3 -c '{ask}' http://{address}")
        assert answer in refused.value.output


def test_study_runs_on_the_cluster_and_its_results_come_back(cluster: Cluster) -> None:
    said = cluster.ray(f"exec cluster.yaml 'cd edge_tune && .venv/bin/python -m edge_tune.run {STUDY}'", timeout=900)
    cores = 3 * os.cpu_count() - 1  # one measures
    assert f"at {cluster.head.address}:6379: 3 nodes, {cores} cores for trials, 1 device (" in said
    assert ", on device)" in said
    cluster.ray("rsync-down cluster.yaml edge_tune/results/ results/")
    (folder,) = cluster.user.path(f"{CHECKOUT}/results").iterdir()
    results = Results(folder)
    trials = results.trials()
    assert [record.trial for record in trials] == [3, 4]
    assert {record.status for record in trials} <= {"finished", "stopped"}  # a hopeless one stops
    measured = [record.measurements["pruned"] for record in (*trials, *results.baselines())]
    assert {measurement.host for measurement in measured} == {"device"}
    assert {record.node for record in trials} <= {"head", "trainer", "device"}
    assert (folder / "best/model.onnx").is_file()


def test_ray_down_ends_every_node(cluster: Cluster) -> None:
    cluster.ray("down --yes cluster.yaml")
    assert running(cluster.head) == 0
    # The workers end by themselves once the head has been gone for a minute.
    assert last_answer([0, 0], lambda: [running(node) for node in (cluster.trainer, cluster.device)], 150) == [0, 0]


def running(node: Host) -> int:
    """Return how many nodes of Ray run on a host."""
    return int(node.run("pgrep --count raylet || true"))
