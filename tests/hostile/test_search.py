"""Searches with next to nothing to search, or with too much."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import edge_tune as et
from edge_tune.records.results import Record, Results
from edge_tune.run import main
from edge_tune.search.searcher import Searcher, count_trials
from tests.asked import sparsities
from tests.networks import experiment
from tests.searching import searching

pytestmark = pytest.mark.hostile

FILE = """
import edge_tune as et
from tests.networks import experiment as make

GROUPS = {{
    f"group_{{n}}": et.PrunerGroup("filters", [f"layer{{1 + n // 3}}.{{n % 3}}.conv1.weight"], sparsity={sparsity})
    for n in range({groups})
}}
experiment = make(
    model="resnet20_cifar",
    pruner_groups=GROUPS,
    baselines={baselines},
    search=et.Search({method!r}, trials={trials}, seed=0),
)
"""


def write(folder: Path, **settings: object) -> str:
    defaults = {"groups": 2, "sparsity": "et.Choice([0.0, 0.5])", "baselines": "{}", "method": "hyperopt", "trials": 40}
    (folder / "study.py").write_text(FILE.format(**{**defaults, **settings}))
    return str(folder / "study.py")


@pytest.mark.parametrize("method", ["hyperopt", pytest.param("random", marks=pytest.mark.figures), "grid"])
def test_command_ends_when_a_space_is_exhausted_and_when_it_is_resumed(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = "{'known': {'group_0': 0.5, 'group_1': 0.5}, 'again': {'group_0': 0.5, 'group_1': 0.5}}"
    options = [write(tmp_path, method=method, baselines=both), "--simulate=0", f"--results={tmp_path / 'out'}"]
    assert main(options) == 0
    out = capsys.readouterr().out
    assert re.search(r"\d of \d+ trials are recorded in .*: the space is exhausted: .* was tried, 4 in all\.\n", out)
    records = Results(tmp_path / "out").trials()
    assert len({tuple(record.point.values()) for record in records if record.same_as in (None, 1, 2)}) == 4
    assert any(record.same_as in (1, 2) for record in records)
    before = (tmp_path / "out" / "trials.jsonl").read_text()
    assert main([*options, "--resume"]) == 0
    assert "the space is exhausted" in capsys.readouterr().out
    assert (tmp_path / "out" / "trials.jsonl").read_text() == before


def test_command_tries_two_points_of_a_grid_of_ten_thousand_million(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hundred = "et.Choice([i / 100 for i in range(100)])"
    file = write(tmp_path, method="grid", groups=5, sparsity=hundred, trials=2)
    assert main([file, "--simulate=0", f"--results={tmp_path / 'out'}"]) == 0
    assert len(Results(tmp_path / "out").trials()) == 2
    assert "3 of 3 trials to run" in capsys.readouterr().out


GROUPS: dict[str, Mapping[str, et.PrunerGroup]] = {
    "one value less than another": {"a": et.PrunerGroup("filters", ["a"], sparsity=et.Choice([0.5, 0.5 + 1e-15]))},
    "a range of one float": {"a": et.PrunerGroup("filters", ["a"], sparsity=et.Uniform(0.5, 0.5 + 1e-15))},
    "structures alone": {"a": et.PrunerGroup(["filters", "channels"], ["a"], sparsity=et.Uniform(0.5, 0.5))},
    "50 groups": {f"g{n}": et.PrunerGroup("filters", [f"w{n}"], sparsity=et.Choice([0.1, 0.2])) for n in range(50)},
    "500 values": {"a": et.PrunerGroup("filters", ["a"], sparsity=et.Choice([i / 500 for i in range(500)]))},
}


@pytest.mark.parametrize("method", ["hyperopt", "random", "grid"])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_searcher_ends_whatever_the_size_of_the_space(method: Any, groups: Mapping[str, et.PrunerGroup]) -> None:
    if method == "grid" and any(isinstance(group.sparsity, et.Uniform) for group in groups.values()):
        pytest.skip("a grid needs choices")
    one = experiment(pruner_groups=groups, baselines={}, search=et.Search(method, trials=5, seed=0))
    searcher = searching(one)
    records = run_sums(searcher, one, 6)
    own = [record for record in records if record.same_as is None]
    assert len({json.dumps(dict(r.point)) for r in own}) == len(own)
    assert len(own) == count_trials(one) or searcher.exhausted
    assert searcher.suggest("after") == Searcher.FINISHED


def run_sums(searcher: Searcher, one: et.Experiment, trials: int) -> list[Record]:
    """Run trials whose latency is the sum of their sparsities. Returns their records and those taken over."""
    records: list[Record] = []
    for number in range(trials):
        config = searcher.suggest(str(number))
        records += searcher.take_news()[1]
        if not isinstance(config, dict):
            break
        metrics = {"latency_ms": sum(sparsities(config["point"]).values())}
        record = Record(trial=config["trial"], status="finished", metrics=metrics, point=config["point"])
        searcher.end(record)
        records.append(record)
    return records
