"""Schedules and sweeps as text, written to a file and read."""

from pathlib import Path

from edge_tune.convert.reading import Entry, read_yaml
from edge_tune.convert.wandb import Sweep, read_sweep

HERE = Path(__file__).parent
LABELS = ["filter_pruner_70", "filter_pruner_60", "filter_pruner_20", "layer_3.1"]
ONE = """
pruners:
  one:
    class: L1RankedStructureParameterPruner
    group_type: Filters
    desired_sparsity: 0.5
    weights: [a.weight]
"""
APPLIED = "policies:\n  - pruner: {instance_name: one}\n"
QUIET = "metric: {name: latency, goal: minimize}\nrun_cap: 5\n"


def entry(folder: Path, text: str, name: str = "given.yaml") -> Entry:
    file = folder / name
    file.write_text(text)
    return read_yaml(file)


def sweep(folder: Path, parameters: str, rest: str = f"method: bayes\n{QUIET}") -> tuple[Sweep, list[str]]:
    notes: list[str] = []
    return read_sweep(entry(folder, f"parameters:\n  {parameters}\n{rest}"), LABELS, notes), notes
