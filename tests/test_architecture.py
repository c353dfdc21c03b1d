"""The map of modules: a module imports only what stands above it, and few may know torch, ray or openvino."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "edge_tune"
ORDER = [
    "errors",
    "waiting",
    "wording",
    "command",
    "arguments",
    "experiment",
    "__init__",  # the names an experiment file uses
    "loading",
    "convert.__init__",
    "convert.reading",
    "convert.command",
    "convert.policies",
    "convert.removal",
    "convert.distiller",
    "convert.network",
    "convert.decays",
    "convert.parameters",
    "convert.wandb",
    "convert.conversion",
    "convert.source",
    "convert.__main__",
    "benchmark.__init__",
    "benchmark.statistics",
    "jsonfiles",
    "entries",
    "results",
    "ranking",
    "objective",
    "objective_text",
    "tables",
    "console",
    "card",
    "plots",
    "hparams",
    "tensorboard",
    "report.__init__",
    "report.statistics",
    "report.timeline",
    "report.data",
    "report.verdict",
    "report.style",
    "report.figures",
    "report.bars",
    "report.cards",
    "report.blocks",
    "report.comparison",
    "report.findings",
    "report.account",
    "report.sections",
    "report.page",
    "report.__main__",
    "models",
    "decoding",
    "download",
    "weights",
    "images",
    "reading",
    "folders",
    "datasets",
    "tracing",
    "couplings",
    "slicing",
    "oracle",
    "pruning",
    "evaluation",
    "retraining",
    "export",
    "train",
    "benchmark.runner",
    "benchmark.cores",
    "benchmark.child",
    "benchmark.answers",
    "benchmark.measurement",
    "benchmark.backend",
    "benchmark.names",
    "benchmark.layers",
    "benchmark.granule",
    "benchmark.__main__",
    "benchmark.probe",
    "benchmark.checks",
    "benchmark.stick",
    "doctor",
    "benchmark.actor",
    "benchmark.devices",
    "points",
    "stopping",
    "checkpoint",
    "study",
    "trial",
    "simulation",
    "conclusion",
    "stored",
    "trainable",
    "repeats",
    "searcher",
    "search",
    "cluster",
    "session",
    "run",
]
MAY_IMPORT = {
    "torch": {
        "models",
        "weights",
        "images",
        "tracing",
        "couplings",
        "slicing",
        "oracle",
        "pruning",
        "evaluation",
        "retraining",
        "export",
        "train",
        "checkpoint",
        "study",
        "trial",
        "conclusion",
    },
    "torch_pruning": {"pruning"},
    "ray": {"benchmark.actor", "benchmark.devices", "stopping", "trainable", "searcher", "search", "cluster"},
    "hyperopt": {"searcher"},
    "plotly": {"report.style", "report.figures", "report.bars", "report.blocks", "report.page"},
    "yaml": {"convert.reading"},
    "openvino": set(),  # the runner alone imports it, by name, whichever generation there is
}


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


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


def test_order_lists_every_module() -> None:
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in ROOT.rglob("*.py")}
    assert files == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_module_imports_only_what_stands_above_it(module: str) -> None:
    ours = {name.removeprefix("edge_tune.") for name in imports(module) if name.startswith("edge_tune.")}
    known = ours & set(ORDER)
    lazily = {
        "run": {"session"},
        "export": {"stored"},
        "convert.network": {"models"},
    }  # torch and ray take seconds; a command in a module of few
    assert known - lazily.get(module, set()) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_library_is_known_to_few_modules(library: str) -> None:
    users = {module for module in ORDER if library in {name.partition(".")[0] for name in imports(module)}}
    assert users == MAY_IMPORT[library]


def test_trial_processes_import_only_what_they_use() -> None:
    """Each lost process is replaced by one that imports it all again."""
    code = "import sys, edge_tune.trainable, edge_tune.trial; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "torch_pruning", "ray.tune"} <= set(modules)
    assert not {"hyperopt", "torchvision", "sklearn", "scipy.stats", "matplotlib", "plotly"} & set(modules)


@pytest.mark.parametrize(("asked", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_of_trial_processes_sleep_while_they_wait(asked: dict[str, str], policy: str) -> None:
    """OpenMP itself says how it was set when torch loaded it; what the user sets stays."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    said = subprocess.run(
        [sys.executable, "-c", "import edge_tune.trainable, edge_tune.trial"],
        env={**clean, "OMP_DISPLAY_ENV": "true", **asked},
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said


def test_runner_stands_alone() -> None:
    assert not {name for name in imports("benchmark.runner") if name.startswith(("edge_tune", "torch", "ray"))}


def test_only_command_prints() -> None:
    def prints(module: str) -> bool:
        calls = (node.func for node in ast.walk(ast.parse(path_of(module).read_text())) if isinstance(node, ast.Call))
        return any(isinstance(function, ast.Name) and function.id == "print" for function in calls)

    assert {module for module in ORDER if prints(module)} == {"command"}
