"""Experiment files that cannot be run: each gets a sentence that says where, before anything starts."""

import re
from pathlib import Path

import pytest

from edge_tune.run import main

pytestmark = pytest.mark.hostile

HEAD = """import sys
from pathlib import Path
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

"""

FIELDS = [
    ("model=56", "model: must be the name of a network or 'package.module:function', but got 56"),
    ("model=None", "model: must be the name of a network .* but got None"),
    ("model=''", "model: must be the name of a network .* but got an empty text"),
    ("model=b'resnet56_cifar'", "model: must be the name of a network .* but got b'resnet56_cifar'"),
    ("model=Path('x')", "model: must be the name of a network .* but got PosixPath"),
    ("weights=5", "weights: must be a file, a URL or None, but got 5"),
    ("weights=''", "weights: must be a file, a URL or None, but got an empty text"),
    ("weights=b'x.pt'", "weights: must be a file, a URL or None, but got b'x.pt'"),
    ("weights=['x.pt']", r"weights: must be a file, a URL or None, but got \['x.pt'\]"),
    ("weights=Path('none.pt')", "none.pt: weights must be a file or a URL, but got no such file"),
    ("dataset=5", "dataset: must be a name, a path or a Data, but got 5"),
    ("dataset=None", "dataset: must be a name, a path or a Data, but got None"),
    ("dataset=Path('none')", "none: "),
    ("target=5", "target: must be Minimise.metric., Maximise.metric. or an objective as text, but got 5"),
    (
        "target='latency_ms'",
        "target: objective 'latency_ms': must begin with 'minimise', 'maximise', 'front' or a weight, but .*",
    ),
    ("target='minimise speed'", "target: a metric must be one of .* but got 'speed'"),
    ("target='minimise macs where top1 > fast'", "target: a bound must be a number or one .*half.*, but got 'fast'"),
    ("target=et.Minimise(5)", "target: a metric must be one of .* but got 5"),
    ("target=et.Minimise(['top1'])", r"target: a metric must be one of .* but got \['top1'\]"),
    ("retraining=5", "retraining: must be a Retraining, but got 5"),
    ("retraining=et.Retraining(epochs='2', lr=0.1)", "epochs must be a whole number of at least 0, but got '2'"),
    ("retraining=et.Retraining(epochs=True, lr=0.1)", "epochs must be a whole number of at least 0, but got True"),
    ("retraining=et.Retraining(epochs=2.0, lr=0.1)", "epochs must be a whole number of at least 0, but got 2.0"),
    ("retraining=et.Retraining(epochs=1, lr='0.1')", "lr must be a number and hold 0 < lr, but got '0.1'"),
    ("retraining=et.Retraining(epochs=1, lr=float('nan'))", "lr must be a number and hold 0 < lr, but got nan"),
    ("retraining=et.Retraining(epochs=1, lr=float('inf'))", "lr must be a number and hold 0 < lr, but got inf"),
    ("retraining=et.Retraining(epochs=1, lr=10**400)", "lr must be a number and hold 0 < lr, but got 1000"),
    (
        "retraining=et.Retraining(epochs=1, lr=0.1, momentum='x')",
        "momentum must be a number and hold 0 <= momentum < 1, but got 'x'",
    ),
    ("retraining=et.Retraining(epochs=1, lr=0.1, precision=['f32'])", r"precision must be one of .* got \['f32'\]"),
    ("retraining=et.Retraining(epochs=1, lr=0.1, decay='cosine')", "decay must be Exponential, Step, .* got 'cosine'"),
    ("retraining=et.Retraining(epochs=1, lr=0.1, decay=et.Cosine)", "decay must be Exponential, Step, .* got <class"),
    (
        "retraining=et.Retraining(epochs=1, lr=0.1, decay=et.MultiStep(gamma=0.1, milestones=5))",
        "milestones must be a list of epochs, but got 5",
    ),
    (
        "retraining=et.Retraining(epochs=1, lr=0.1, decay=et.MultiStep(gamma=0.1, milestones=['1']))",
        "each of milestones must be a whole number .* but got '1'",
    ),
    (
        "retraining=et.Retraining(epochs=1, lr=0.1, decay=et.Exponential(gamma=10**400))",
        "gamma must hold 0 < gamma <= 1, but got 1000",
    ),
    ("training='long'", "training: must be a Retraining or None, but got 'long'"),
    ("benchmark='CPU'", "benchmark: must be a Benchmark, but got 'CPU'"),
    ("benchmark=et.Benchmark(device=5)", "benchmark: device must be the name of a device, but got 5"),
    ("benchmark=et.Benchmark(device=None)", "benchmark: device must be the name of a device, but got None"),
    ("benchmark=et.Benchmark(python=5)", "benchmark: python must be the path of an interpreter or None, but got 5"),
    ("benchmark=et.Benchmark(python='')", "python must be the path of an interpreter or None, but got an empty text"),
    *(
        (f"benchmark=et.Benchmark(host={host})", f"benchmark: host must be one as ssh names it, .*, but got {host}")
        for host in ("5", "''", "'-oProxyCommand=x'", "'pi@board reboot'")
    ),
    ("benchmark=et.Benchmark(runs='200')", "benchmark: runs must be a whole number of at least 1, but got '200'"),
    ("benchmark=et.Benchmark(max_s='3')", "benchmark: max_s must be a number above 0, but got '3'"),
    ("benchmark=et.Benchmark(align='yes')", "benchmark: align must be one of .'auto'., but got 'yes'"),
    ("benchmark=et.Benchmark(align=True)", "benchmark: align must be a whole number of at least 1, but got True"),
    ("benchmark=et.Benchmark(resource=5)", "benchmark: resource must be a name of letters, .* but got 5"),
    ("search='hyperopt'", "search: must be a Search, but got 'hyperopt'"),
    ("search=et.Search(5, trials=3)", "search: method must be one of .* but got 5"),
    ("search=et.Search('random', trials='3')", "search: trials must be a whole number of at least 1, but got '3'"),
    ("search=et.Search('random', trials=3, seed=-1)", "search: seed must be a whole number of at least 0, but got -1"),
    ("search=et.Search('random', trials=3, time_budget_s='8h')", "time_budget_s must be a number above 0, .* got '8h'"),
    ("stopping=et.Hopeless()", "stopping: must be a list of Asha, Hopeless and Predicted rules, but got Hopeless"),
    ("stopping=['hopeless']", "stopping: must list Asha, Hopeless and Predicted rules, but got 'hopeless'"),
    ("stopping=[et.Asha('top1')]", "stopping, Asha: goal must be Minimise.* but got 'top1'"),
    (
        "pruner_groups=[]",
        r"pruner_groups: must be a dict of label -> PrunerGroup or BlockGroup, or 'auto', but got \[\]",
    ),
    ("pruner_groups={'a': 5}, baselines={}", r"pruner_groups\['a'\]: must be a PrunerGroup or a BlockGroup, but got 5"),
    ("pruner_groups={5: BLOCKS['first']}, baselines={}", r"pruner_groups\[5\]: a label must consist of at most 100"),
    ("pruner_groups={300 * 'x': BLOCKS['first']}, baselines={}", "a label must consist of at most 100 letters"),
    ("pruner_groups={'../x': BLOCKS['first']}, baselines={}", "a label must consist of .* but got '../x'"),
    ("baselines=[0.5]", r"baselines: must be a dict of name -> label -> sparsity, but got \[0.5\]"),
    ("baselines={'half': 0.5}", r"baselines\['half'\]: must be a dict of label -> sparsity, but got 0.5"),
    ("baselines={300 * 'x': {'first': 0.5, 'second': 0.5}}", "a name must consist of at most 100 letters"),
    ("baselines={'../x': {'first': 0.5, 'second': 0.5}}", "a name must consist of .* but got '../x'"),
    ("baselines={'Unpruned': {'first': 0.5, 'second': 0.5}}", "must differ from 'unpruned' by more than capitals"),
    (
        "baselines={name: {'first': 0.5, 'second': 0.5} for name in ('half', 'Half')}",
        r"baselines\['Half'\]: must differ from 'half' by more than capitals, as its files do; rename one",
    ),
    ("baselines={'half': {'first': '0.5', 'second': 0.5}}", "'first' must lie within .* but got '0.5'"),
    ("baselines={'half': {'first': float('nan'), 'second': 0.5}}", "'first' must lie within .* but got nan"),
    ("keep_weights=True", "keep_weights must be one of .* but got True"),
]
GROUPS = [
    ("'filters', ['stem.weight', 5]", "weights must be a list of names, but got 5 in it"),
    ("'filters', 'stem.weight'", "weights must be a list of names, but got the text 'stem.weight'"),
    ("'filters', {'stem.weight'}", "weights must be a list of names, but got {'stem.weight'}"),
    ("5, ['stem.weight']", "structure must be one of .* but got 5"),
    (
        "['filters', 'filters'], ['stem.weight']",
        "structure must list each kind once, but got .'filters', 'fil",
    ),
    ("[['filters']], ['stem.weight']", r"structure must be one of .* but got \(\['filters'\],\)"),
]
SPARSITIES = [
    ("0.5", "sparsity must be a Uniform or a Choice, but got 0.5"),
    ("et.Uniform('0', 0.5)", "sparsity must hold 0 <= low <= high < 1, but got Uniform.'0', 0.5."),
    ("et.Uniform(0.0, 10**400)", "sparsity must hold 0 <= low <= high < 1, but got Uniform.0.0, 1000"),
    ("et.Choice(0.5)", "sparsity must be a list of values, but got Choice.0.5."),
    ("et.Choice([[0.5], [0.5]])", r"sparsity must hold 0 <= sparsity < 1, but got \[0.5\] in Choice"),
    ("et.Choice(['0.5'])", "sparsity must hold 0 <= sparsity < 1, but got '0.5' in Choice"),
    ("et.Choice([0.5, 0.5])", "sparsity must offer each value once"),
]
TEXTS = [
    ("", "must define `experiment = et.Experiment.*`, but got no such name"),
    ("experiment = 5", "must define `experiment = et.Experiment.*`, but got 5"),
    ("sys.exit(0)", "study.py:6: must define `experiment` and come to its end, but calls exit; remove the call"),
    ("exit(3)", "study.py:6: must define `experiment` and come to its end, but calls exit"),
    ("raise SystemExit('bye')", "study.py:6: must define `experiment` and come to its end, but calls exit"),
    ("1 / 0", "study.py:6: ZeroDivisionError: division by zero"),
    ("raise ValueError('one\\ntwo')", "study.py:6: ValueError: one"),
    ("import no_such_module", "study.py:6: ModuleNotFoundError: No module named 'no_such_module'"),
    ("def f(): f()\nf()", "study.py:6: RecursionError: maximum recursion depth exceeded"),
    ("experiment = (", "study.py:6: SyntaxError: '.' was never closed"),
    ("experiment = make(modell='x')", "study.py:6: TypeError: .*'modell'"),
    ("experiment = make(benchmark=et.Benchmark(devices='CPU'))", "study.py:6: TypeError: .*'devices'"),
]
CONTENTS = [
    (b"# coding: no-such\n", "study.py: SyntaxError: unknown encoding: no-such|study.py: SyntaxError: .*no-such"),
    (b"name = '\xff'\n", "study.py(:1)?: SyntaxError: .*utf-8"),
    (b"\x00", "study.py(:1)?: (SyntaxError|ValueError): source code .* null bytes"),
    (b"\xff\xfee\x00x\x00", "study.py(:1)?: SyntaxError: "),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_refused(content: bytes, problem: str, said: pytest.CaptureFixture[str], *options: str) -> None:
    Path("study.py").write_bytes(content)
    assert main(["study.py", *options]) == 2
    output = said.readouterr()
    assert re.search(problem, output.err), output.err
    assert "Traceback" not in output.err
    assert [line for line in output.out.splitlines() if not line.startswith("Images: ")] == []
    assert not Path("results").exists()


@pytest.mark.parametrize(("field", "problem"), FIELDS)
def test_field_of_a_wrong_type(field: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(f"{HEAD}experiment = make({field})".encode(), problem, capsys)


@pytest.mark.parametrize(("arguments", "problem"), GROUPS)
def test_group_of_a_wrong_type(arguments: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    group = f"et.PrunerGroup({arguments}, sparsity=et.Uniform(0.0, 0.5))"
    assert_refused(f"{HEAD}experiment = make(pruner_groups={{'g': {group}}}, baselines={{}})".encode(), problem, capsys)


@pytest.mark.parametrize(("sparsity", "problem"), SPARSITIES)
def test_sparsity_of_a_wrong_type(sparsity: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    group = f"et.PrunerGroup('filters', ['stem.weight'], sparsity={sparsity})"
    assert_refused(f"{HEAD}experiment = make(pruner_groups={{'g': {group}}}, baselines={{}})".encode(), problem, capsys)


@pytest.mark.parametrize(("text", "problem"), TEXTS)
def test_file_that_does_not_define_an_experiment(text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(f"{HEAD}{text}".encode(), problem, capsys)


@pytest.mark.parametrize(("content", "problem"), CONTENTS)
def test_file_that_is_no_python(content: bytes, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(content, problem, capsys)
