"""The map of rooms: each imports only from those above it, there are no circles, and few know torch or ray."""

import ast
import os
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "edge_tune"
MODULES = sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in ROOT.rglob("*.py"))
RUNNER = "benchmark.runner."
RUNNERS = {module.removeprefix(RUNNER) for module in MODULES if module.startswith(RUNNER)}
"""The modules of the folder that Python runs, and in which they import each other by these plain names."""

ROOMS = [
    "errors",
    "wording",
    "waiting",
    "files",
    "command",
    "arguments",
    "metrics",
    "objective",
    "objective_text",
    "parameters",
    "imports",
    "surrogate",
    "experiment",
    "__init__",  # the names an experiment file uses
    "loading",
    "records",
    "networks",
    "benchmark",
    "doctor",
    "display",
    "report",
    "convert",
    "search",
    "inspect",
    "train",
    "export",
    "studies",
    "run",
    "__main__",
]
MAY_IMPORT = {
    "torch": {
        *(
            f"networks.{module}"
            for module in (
                "models",
                "weights",
                "images",
                "given",
                "tracing",
                "couplings",
                "blocks",
                "compiled",
                "sensitivity",
                "slicing",
                "structures",
                "importance",
                "gradients",
                "losses",
                "layer_shapes",
                "checking",
                "finding",
                "oracle",
                "pruning",
                "compute",
                "copies",
                "evaluation",
                "averaging",
                "captured",
                "optimisers",
                "retraining",
                "onnx_export",
                "stored",
                "of_study",
                "training",
            )
        ),
        "search.checkpoint",
        "search.study",
        "search.trial",
        "search.conclusion",
        "search.estimate",
        "studies",
        "inspect.parts",
        "inspect.measuring",
        "inspect.__main__",
    },
    "torch_pruning": {"networks.pruning"},
    "ray": {
        "benchmark.actor",
        "benchmark.devices",
        "search.stopping",
        "search.trainable",
        "search.searcher",
        "search.tune",
        "search.cluster",
        "search.live",
    },
    "hyperopt": {"search.suggesters.tpe", "search.suggesters.random_points", "search.suggesters.in_hyperopt"},
    "plotly": {
        "report.style",
        "report.figures",
        "report.progress",
        "report.predicted",
        "report.bars",
        "report.blocks",
        "report.page",
        "inspect.page",
    },
    "yaml": {"convert.reading"},
    "openvino": {"networks.compiled"},  # the runner imports it by name, whichever generation there is
}


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


@cache
def imports(module: str) -> set[str]:
    """Every module that is imported anywhere in a file, ours by its name below edge_tune."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def ours(module: str) -> set[str]:
    """Return the modules of edge_tune that a module imports."""
    if module.startswith(RUNNER):
        return {f"{RUNNER}{name}" for name in imports(module) & RUNNERS}
    names = {name.removeprefix("edge_tune.") for name in imports(module) if name.startswith("edge_tune.")}
    return {name if name in MODULES else f"{name}.__init__" for name in names} & set(MODULES)


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_from_those_above_it(room: str) -> None:
    used = {room_of(name) for module in MODULES if room_of(module) == room for name in ours(module)}
    assert used <= set(ROOMS[: ROOMS.index(room) + 1])


def test_no_modules_import_each_other() -> None:
    order = list(TopologicalSorter({module: ours(module) for module in MODULES}).static_order())  # or a CycleError
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_library_is_known_to_few_modules(library: str) -> None:
    users = {module for module in MODULES if library in {name.partition(".")[0] for name in imports(module)}}
    assert users == MAY_IMPORT[library]


def test_trial_processes_import_only_what_they_use() -> None:
    """Each lost process is replaced by one that imports it all again."""
    code = "import sys, edge_tune.search.trainable, edge_tune.search.trial; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "torch_pruning", "ray.tune"} <= set(modules)
    assert not {"hyperopt", "torchvision", "sklearn", "scipy.stats", "matplotlib", "plotly"} & set(modules)


@pytest.mark.parametrize(("asked", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_of_trial_processes_sleep_while_they_wait(asked: dict[str, str], policy: str) -> None:
    """OpenMP itself says how it was set when torch loaded it; what the user sets stays."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    said = subprocess.run(
        [sys.executable, "-c", "import edge_tune.search.trainable, edge_tune.search.trial"],
        env={**clean, "OMP_DISPLAY_ENV": "true", **asked},
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said


def test_runner_stands_alone() -> None:
    used = {name.partition(".")[0] for runner in RUNNERS for name in imports(f"{RUNNER}{runner}")}
    assert used <= sys.stdlib_module_names | {"numpy"} | RUNNERS


def test_runner_is_run_and_not_imported() -> None:
    """Else its modules would be there under two names."""
    for module in set(MODULES) - {f"{RUNNER}{runner}" for runner in RUNNERS}:
        assert not {name for name in imports(module) if f"{name}.".startswith(f"edge_tune.{RUNNER}")}
        assert not RUNNERS & {name.partition(".")[0] for name in imports(module)}


def test_runners_modules_hide_nobody_elses() -> None:
    """Their folder comes first on the path of the process, and here on that of the tests."""
    assert not (RUNNERS - {"__main__"}) & {*sys.stdlib_module_names, *packages_distributions(), "edge_tune", "tests"}


def test_only_command_prints() -> None:
    def prints(module: str) -> bool:
        calls = (node.func for node in ast.walk(ast.parse(path_of(module).read_text())) if isinstance(node, ast.Call))
        return any(isinstance(function, ast.Name) and function.id == "print" for function in calls)

    assert {module for module in MODULES if prints(module)} == {"command"}
