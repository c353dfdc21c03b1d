"""What a long study costs its driver: seconds and memory a trial, the time of a suggestion, as observations grow.

python -m benchmarks.scale --trials 2000 --at-once 64
Simulated trials (edge_tune/search/simulation.py) on several Ray nodes on this machine; search, queue, records
and TensorBoard are real. Needs about 200 MB a trial at once. `--at-once 1` shows the time that a trial takes alone.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

import edge_tune as et
from edge_tune.loading import load_experiment
from edge_tune.records.entries import Session
from edge_tune.records.results import Results
from edge_tune.search import session, tune
from edge_tune.search.cluster import versions
from edge_tune.search.searcher import Searcher

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"
NODES = 8
PART = 500
"""So many trials at the beginning are compared with as many at the end."""


@dataclass
class Watch:
    """What the driver has spent at each of a few numbers of ended trials."""

    marks: Sequence[int]
    ended: int = 0
    suggestions_ms: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    rows: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Count the trials that end, by what the session says of them."""
        if not line.startswith("simulated: trial_"):
            return
        self.ended += 1
        self.ends.append((time.monotonic(), time.process_time()))
        if self.ended in self.marks:
            latest, self.suggestions_ms = self.suggestions_ms, []
            self.rows.append(
                (self.ended, time.monotonic() - self.began, time.process_time(), rss_mb(), statistics.median(latest))
            )


def costs_ms(ends: Sequence[tuple[float, float]]) -> str:
    """Return the median time between two ends, and the processor time of the driver between them, mean."""
    walls = [1e3 * (after[0] - before[0]) for before, after in pairwise(ends)]
    cpu = 1e3 * (ends[-1][1] - ends[0][1]) / len(walls)
    return f"{statistics.median(walls):.0f} ms wall (median), {cpu:.0f} ms of the driver's processor time (mean)"


class TimedSearcher(Searcher):
    """Takes the time of each suggestion."""

    watch: Watch

    def suggest(self, trial_id: str) -> Any:
        """Suggest, and note how long that took if there was anything to suggest."""
        began = time.perf_counter()
        suggestion = super().suggest(trial_id)
        if isinstance(suggestion, dict):
            self.watch.suggestions_ms.append(1e3 * (time.perf_counter() - began))
        return suggestion


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study in a folder that is thrown away and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args(arguments)
    experiment = load_experiment(EXPERIMENT)
    experiment = replace(
        experiment,
        target=et.Minimise("latency_ratio"),
        retraining=replace(experiment.retraining, epochs=given.epochs),
        benchmark=et.Benchmark(device="fake"),
        search=et.Search("hyperopt", trials=given.trials, seed=0),
    )
    command = shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
    about = Session(command=command, versions=versions())
    watch = Watch([given.trials // part for part in (8, 4, 2, 1)])
    TimedSearcher.watch = watch
    tune.Searcher = TimedSearcher  # type: ignore[attr-defined]
    with nodes(given.at_once), tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "study")
        session.run(experiment, results, about, EXPERIMENT.read_bytes(), watch.say, simulated_epoch_s=0.0)
        bytes_a_trial = (results.folder / "trials.jsonl").stat().st_size / given.trials
    node_count = min(NODES, given.at_once)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {given.at_once} at once, {node_count} Ray nodes on it")
    print("trials   wall s   driver CPU ms a trial   driver MB   suggestion ms (median since the last line)")
    before = (0, 0.0, 0.0)
    for ended, wall_s, cpu_s, mb, suggestion_ms in watch.rows:
        a_trial = 1e3 * (cpu_s - before[2]) / (ended - before[0])
        print(f"{ended:6d} {wall_s:8.0f} {a_trial:23.0f} {mb:11.0f} {suggestion_ms:15.1f}")
        before = (ended, wall_s, cpu_s)
    part = min(PART, given.trials // 2)
    print(f"first {part} trials: {costs_ms(watch.ends[:part])} from one end to the next")
    print(f" last {part} trials: {costs_ms(watch.ends[-part:])} from one end to the next")
    print(f"trials.jsonl: {bytes_a_trial:.0f} bytes a trial; n = 1 run of {given.trials} trials")
    return 0


@contextmanager
def nodes(at_once: int) -> Any:
    """Start a cluster with room for so many trials, and point RAY_ADDRESS at it."""
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"ncs": 1}})
    for node in range(min(NODES, at_once)):
        cluster.add_node(num_cpus=at_once // NODES + (node < at_once % NODES))
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield
    finally:
        cluster.shutdown()


def rss_mb() -> float:
    """Return the memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nodes on this machine alone
    sys.exit(main())
