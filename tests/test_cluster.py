"""Joining Ray: on this machine, or a cluster of several nodes that all run here."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

import edge_tune as et
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.command import run
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.images import Augmentation, Split
from edge_tune.search import cluster, session
from edge_tune.search.live import Board
from edge_tune.search.session import check_images
from edge_tune.search.study import images_digest
from tests.networks import write_image_folder

ROOT = Path(__file__).parents[1]
FAKE = et.Benchmark(device="fake")


def where_am_i() -> str:
    return ray.get_runtime_context().get_node_id()


def refuse() -> None:
    raise BenchmarkError("no stick")


@ray.remote(num_cpus=0)
def write_on(board: Board, trial: int, line: str) -> None:
    board.writer(trial)(line)
    ray.get(board.actor.__ray_ready__.remote())  # what one process asks of an actor is done in its order


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head that trains nothing, a trainer and a host of two devices."""
    with pytest.MonkeyPatch.context() as patch:
        there: Any = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
        there.trainer = there.add_node(num_cpus=3)
        there.device_host = there.add_node(num_cpus=1, resources={"ncs": 2})
        patch.setenv("RAY_ADDRESS", there.address)
        yield there
        there.shutdown()


@pytest.fixture
def here(nodes: Any) -> Iterator[cluster.Cluster]:
    with cluster.joined(FAKE) as here:
        yield here


def test_joined_cluster_says_what_it_offers(here: cluster.Cluster, nodes: Any) -> None:
    host = here.nodes[0].host
    says = here.says("AMD EPYC")
    assert says == f"Ray 2.60.0 at {nodes.address}: 3 nodes, 4 cores for trials, 2 devices (AMD EPYC, on {host})"
    assert here.says("Cortex-A72", ["pi@board"]).endswith(", 1 device (Cortex-A72, on pi@board)")
    assert here.trials_at_once(cpus_per_trial=1) == 4
    assert here.trials_at_once(cpus_per_trial=2) == 1  # the host of the devices has room for none
    with pytest.raises(ExperimentError, match=r"cpus_per_trial must be at most .*, 3 on .*, but got 4; lower it"):
        here.trials_at_once(cpus_per_trial=4)
    assert [node.devices for node in here.entry().nodes].count(2) == 1
    assert here.wait_for_devices(lambda _: None) == 2


def test_on_device_node_runs_where_the_device_is_and_raises_what_is_raised_there(
    here: cluster.Cluster, nodes: Any
) -> None:
    assert here.on_device_node(where_am_i) == nodes.device_host.node_id
    with pytest.raises(BenchmarkError, match=r"^no stick$"):
        here.on_device_node(refuse)


def slow() -> str:
    time.sleep(7)
    return "done"


def test_on_device_node_limits_the_wait_for_a_device_not_the_work_on_it(
    here: cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "DEVICE_WAIT_S", 5.0)
    hold: Any = ray.remote(slow)
    both = hold.options(num_cpus=0, resources={"ncs": 2}).remote()
    with pytest.raises(ExperimentError, match=r"must be free, but each node that offers 'ncs' has been busy for 5 s"):
        here.on_device_node(where_am_i)
    ray.get(both)
    assert here.on_device_node(slow) == "done"


def test_on_each_node_answers_for_each(here: cluster.Cluster) -> None:
    answers = here.on_each_node(where_am_i)
    assert [node.id for node, _ in answers] == [answer for _, answer in answers]
    assert len({answer for _, answer in answers}) == 3


def test_board_shows_the_last_line_of_each_trial_once(here: cluster.Cluster, nodes: Any) -> None:
    board = Board()
    before = time.time()
    ray.get(write_on.options(resources={"ncs": 1}).remote(board, 3, "epoch 1/2: 10 of 20 images"))  # on another node
    ray.get(write_on.remote(board, 3, "epoch 1/2: 20 of 20 images"))
    ray.get(write_on.remote(board, 7, "epoch 2/2: 10 of 20 images"))
    taken = board.take()
    assert {trial: note.line for trial, note in taken.items()} == {
        3: "epoch 1/2: 20 of 20 images",
        7: "epoch 2/2: 10 of 20 images",
    }
    assert all(before <= note.at <= time.time() for note in taken.values())
    assert board.take() == {}
    ray.kill(board.actor)
    assert board.take() == {}


def test_wait_for_devices_gives_up_with_what_the_nodes_offer(
    here: cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "DEVICE_WAIT_S", 1.0)
    said: list[str] = []
    other = cluster.Cluster(here.where, "myriads")
    expected = r"offer the resource 'myriads'.* after 1 s there is none\. .*: CPU, .*--resources='\{\"myriads\": 1\}'"
    with pytest.raises(ExperimentError, match=expected):
        other.wait_for_devices(said.append)
    assert said == ["Waiting up to 1 s for a node that offers the resource 'myriads'."]


def test_check_agreement_names_the_nodes_that_differ(here: cluster.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    here.check_agreement()
    told = iter([("2.14.1", "a"), ("2.14.1", "a"), ("2.13.0", "a")])

    def answers(function: object) -> list[tuple[cluster.Node, dict[str, str]]]:
        mine = cluster.versions()
        return [(node, {**mine, "torch": torch}) for node, (torch, _) in zip(here.nodes, told, strict=True)]

    monkeypatch.setattr(cluster.Cluster, "on_each_node", lambda self, function: answers(function))
    with pytest.raises(ExperimentError, match=r"the same torch, but got 2\.14\.1 on .*, 2\.13\.0 on .*; run `ray up`"):
        here.check_agreement()


def test_check_images_names_the_node_that_finds_others_or_none(
    here: cluster.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(write_image_folder(tmp_path).glob("train/*/*.png"))
    split = Split(tuple(map(str, files)), np.zeros(len(files), dtype=np.int64), (16, 16))
    dataset = Dataset(
        "mine", ("one", "other"), (16, 16), split, split, split, Augmentation(0, horizontal_flip=False), "digest"
    )
    check_images(here, dataset)  # the nodes share this machine's files
    head, trainer, _ = sorted(here.nodes, key=lambda node: (node.cpus > 0, node.devices))
    driver = os.getpid()

    def is_on(node: cluster.Node) -> bool:
        return os.getpid() != driver and ray.get_runtime_context().get_node_id() == node.id

    def others_on(node: cluster.Node) -> Callable[[Split, Split], str]:
        return lambda *splits: "0" * 64 if is_on(node) else images_digest(*splits)

    def lacks_one(train: Split, validation: Split) -> str:
        if is_on(trainer):
            files[0].unlink()
        return images_digest(train, validation)

    monkeypatch.setattr(session, "images_digest", others_on(head))
    check_images(here, dataset)  # it has no CPUs, and so trains nothing
    monkeypatch.setattr(session, "images_digest", others_on(trainer))
    with pytest.raises(ExperimentError, match=r"node .*: the images must be the same on each node, .* 000000000000 th"):
        check_images(here, dataset)
    monkeypatch.setattr(session, "images_digest", lacks_one)
    with pytest.raises(
        ExperimentError, match=r"\.png: the images must be on each node that .* No such file .* on \S+;"
    ):
        check_images(here, dataset)


def test_nodes_that_cannot_import_edge_tune_are_named(nodes: Any, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text("from tests.networks import experiment as make\n\nexperiment = make()\n")
    process = subprocess.run(  # from a folder that the nodes do not import from
        [sys.executable, "-m", "edge_tune.run", "study.py", "--results", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGE_TUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    *_, sentence = process.stderr.splitlines()  # Ray's own log may have a line before it
    assert re.fullmatch(
        r"node .*: EdgeTune must run on each node of the cluster, from the same path .*No module named 'edge_tune'",
        sentence,
    )
    assert not (tmp_path / "out").exists()


def test_joined_says_that_no_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(ExperimentError, match=r"RAY_ADDRESS: .* must answer at '127\.0\.0\.1:1', but got: .*unset RAY_"),
        cluster.joined(FAKE),
    ):
        pass


def test_joined_on_this_machine_keeps_a_core_to_measure_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster.joined(et.Benchmark(device="CPU")) as here:
        (node,) = here.nodes
        assert (node.cpus, node.devices) == (max(1, len(usable_cpus()) - 1), 1)
        assert here.says("AMD EPYC").startswith("Ray 2.60.0 on this machine: 1 node, ")


def test_joined_starts_ray_in_sessions_of_its_own_and_leaves_sigterm_alone() -> None:
    """A signal to this process's group, as a terminal or `timeout` sends it, reaches none of Ray's."""
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from edge_tune.search import cluster\n"
        "import edge_tune as et\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "with cluster.joined(et.Benchmark(device='fake')):\n"
        "    me = os.getpid()\n"
        "    print(signal.getsignal(signal.SIGTERM) is signal.default_int_handler)\n"
        "    for process in Path('/proc').glob('[0-9]*'):\n"
        "        state, parent, group, session, *_ = (process / 'stat').read_text().rpartition(')')[2].split()\n"
        "        if int(parent) == me:\n"
        "            print(session == process.name)\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=env, timeout=300
    )
    assert process.returncode == 0, process.stderr
    kept, *children = process.stdout.splitlines()
    assert kept == "True"
    assert len(children) >= 3  # the head's services, the raylet, ...
    assert set(children) == {"True"}
    assert process.stderr == ""


def test_joined_ends_ray_undisturbed_by_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def shutdown() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        ended.append(True)

    monkeypatch.setattr(cluster, "_start", lambda *_: None)
    monkeypatch.setattr(ray, "shutdown", shutdown)

    def command(words: Sequence[str]) -> int:
        with cluster.joined(et.Benchmark(device="fake")):
            pass
        return 0

    assert run(command, []) == 0
    assert ended
