"""Schedules and sweeps that nobody should have written: one sentence each, exit code 2, no file."""

import os
from pathlib import Path

import pytest

from edge_tune.convert.__main__ import main

pytestmark = pytest.mark.hostile

GOOD = """
pruners:
  one: {class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [a.weight]}
extensions:
  thinner: {class: FilterRemover, arch: resnet20_cifar, dataset: cifar10}
policies:
  - {pruner: {instance_name: one}, epochs: [0]}
  - {extension: {instance_name: thinner}, epochs: [0]}
"""
SWEEP = "method: bayes\nmetric: {name: latency, goal: minimize}\nrun_cap: 5\nparameters: {one: {min: 0.1, max: 0.5}}\n"


def laughs(kind: str, levels: int = 12) -> str:
    """A few lines that stand for 9 ** levels entries."""
    lines = ["x0: &x0 [lol]" if kind == "list" else "x0: &x0 {k: lol}"]
    for level in range(1, levels):
        names = [f"*x{level - 1}"] * 9
        many = {
            "list": f"[{', '.join(names)}]",
            "mapping": f"{{{', '.join(f'k{i}: {name}' for i, name in enumerate(names))}}}",
            "merge": f"{{<<: [{', '.join(names)}]}}",
        }[kind]
        lines.append(f"x{level}: &x{level} {many}")
    return "\n".join(lines) + f"\nlast: *x{levels - 1}\n"


TEXTS = {
    "aliases of lists": (f"{GOOD}{laughs('list')}", "must hold at most 20000 keys and values, each alias"),
    "aliases of mappings": (f"{GOOD}{laughs('mapping')}", "must hold at most 20000 keys and values, each alias"),
    "aliases as weights": (
        f"{laughs('list')}{GOOD.replace('[a.weight]', '*x11')}",
        "must hold at most 20000 keys and values, each alias",
    ),
    "merges of merges": (f"{laughs('merge')}{GOOD}", "must hold at most 20000 keys and values, each alias"),
    "an alias in itself": (f"{GOOD}own: &own [*own]\n", "must be YAML that nests a few levels deep"),
    "a merge of itself": (f"{GOOD}own: &own {{<<: *own}}\n", "must be YAML that nests a few levels deep"),
    "a key that is an alias": (f"{GOOD}own: &own [1]\n? *own\n: 2\n", "a key must be a text, but got a list"),
    "a merge of a text": (f"{GOOD}own: {{<<: text}}\n", "<< must name a mapping, or several, but got neither"),
    "deep mappings": (f"{GOOD}deep: {'{a: ' * 5000}{'}' * 5000}\n", "must be YAML that nests a few levels deep"),
    "deep blocks": ("".join(f"{' ' * n}a:\n" for n in range(500)), "must be YAML that nests a few levels deep"),
    "brackets that do not close": (f"{GOOD}deep: {'[' * 200_000}", "must be YAML that nests a few levels deep"),
    "many entries": (f"{GOOD}many: [{', '.join(['1'] * 20_000)}]\n", "must hold at most 20000 keys and values"),
    "a large file": (f"{GOOD}# {'x' * 300_000}\n", "must be a schedule or a sweep of at most 250000 bytes, but got"),
    "a long value": (f"{GOOD}long: {'x' * 20_000}\n", "a value must have at most 10000 letters, but got 20000"),
    "a long number": (f"{GOOD}long: {'1' * 9_000}\n", "which is not what its form or its tag"),
    "a number in base 60": (f"{GOOD}long: 1{':59' * 300}.5\n", "which is not what its form or its tag"),
    "a key twice": (f"{GOOD}again: 1\nagain: 2\n", "a key must be given once, but got 'again'"),
    "a pruner twice": (
        GOOD.replace("extensions:", "  one: {class: SensitivityPruner}\nextensions:"),
        "a key must be given once, but got 'one'",
    ),
    "a section twice": (f"{GOOD}pruners: {{}}\n", "a key must be given once, but got 'pruners'"),
    "a tag that runs a command": (
        f"{GOOD}run: !!python/object/apply:os.system ['touch ran']\n",
        "must be plain YAML, but got the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    "a tag that runs code as weights": (
        GOOD.replace("[a.weight]", "!!python/object/apply:os.system ['touch ran']"),
        "must be plain YAML, but got the tag",
    ),
    "a tag that makes an object": (f"{GOOD}run: !!python/object:os.Path {{}}\n", "must be plain YAML, but got the tag"),
    "a tag that names a function": (f"{GOOD}run: !!python/name:os.system ''\n", "could not determine a constructor"),
    "a tag of one's own": (f"{GOOD}run: !mine x\n", "could not determine a constructor for the tag '!mine'"),
    "a set": (f"{GOOD}run: !!set {{a}}\n", "must be plain YAML, but got the tag 'tag:yaml.org,2002:set'"),
    "a bool that is none": (f"{GOOD}run: !!bool maybe\n", "got 'maybe', which is not what its form or its tag"),
    "an int that is none": (f"{GOOD}run: !!int ''\n", "got '', which is not what its form or its tag"),
    "a float that is none": (f"{GOOD}run: !!float x\n", "got 'x', which is not what its form or its tag"),
    "a time that is none": (f"{GOOD}run: !!timestamp x\n", "got 'x', which is not what its form or its tag"),
    "a day that is none": (f"{GOOD}run: 2020-02-31\n", "got '2020-02-31', which is not what its form or its tag"),
    "bytes that are none": (f"{GOOD}run: !!binary x\n", "must be YAML, but got failed to decode base64 data"),
    "two documents": (f"{GOOD}---\n{GOOD}", "must be YAML, but got expected a single document"),
    "an alias of nothing": (f"{GOOD}run: *nothing\n", "must be YAML, but got found undefined alias"),
    "a tab": (f"{GOOD}\t- x\n", "must be YAML, but got"),
    "a control character": (f"{GOOD}run: \x07\n", "must be YAML, but got"),
    "nothing": ("", "must hold YAML keys and values, but got none"),
    "a list": ("- a\n", "must hold YAML keys and values, but got none"),
    "another program's file": ("services: {web: {image: x}}\n", "must be a Distiller schedule with pruners"),
    "pruners without names": ("pruners: [a]\npolicies: []\n", "pruners must name its entries"),
    "an epoch of a billion": (
        GOOD.replace("[0]", "[1000000000]"),
        "epochs must be from 0 to 10000, but got 1000000000",
    ),
    "an end of a billion": (
        GOOD.replace("epochs: [0]", "starting_epoch: 0, ending_epoch: 1000000000, frequency: 1"),
        "epochs must be from 0 to 10000, but got 1000000000",
    ),
    "an end that no integer of C holds": (
        GOOD.replace("epochs: [0]", "starting_epoch: 0, ending_epoch: 1e300, frequency: 1"),
        "epochs must be from 0 to 10000, but got 1000",
    ),
    "an epoch before all": (GOOD.replace("[0]", "[-3]"), "epochs must be from 0 to 10000, but got -3"),
    "a network that is a function": (
        GOOD.replace("resnet20_cifar", "'os:system'"),
        "arch must be a network's name, of letters, digits, '_', '.' and '-', but got 'os:system'",
    ),
    "a network that is a path": (GOOD.replace("resnet20_cifar", "../../x"), "arch must be a network's name"),
    "a network without a name": (GOOD.replace("resnet20_cifar", "''"), "arch must be a network's name, of letters"),
    "no pruner of filters": (GOOD.replace("Filters", "Rows"), "pruners must hold at least one of class"),
    "a rate of nothing": (f"# a.py --lr=0 --compress=x\n{GOOD}", "lr must be a number and hold 0 < lr, but got 0"),
    "momentum of an engine": (
        f"# a.py --momentum=9 --compress=x\n{GOOD}",
        "momentum must be a number and hold 0 <= momentum < 1",
    ),
    "a batch of one": (f"# a.py -b 1 --compress=x\n{GOOD}", "batch_size must be a whole number of at least 2"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_schedule_is_refused_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, problem = TEXTS[name]
    Path("schedule.yaml").write_text(text)
    refuses(["schedule.yaml"], problem, capsys)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{SWEEP}{laughs('list')}", "must hold at most 20000 keys and values"),
        (f"{SWEEP}run_cap: 7\n", "a key must be given once, but got 'run_cap'"),
        (SWEEP.replace("{min: 0.1, max: 0.5}", "!!python/object/apply:os.system [touch ran]"), "plain YAML, but got"),
        (SWEEP.replace("one:", "two:"), "parameters must give a range to at least one of the pruners"),
        (SWEEP.replace("{one:", "[{one:").replace("}}", "}}]"), "parameters must name its entries"),
        (SWEEP.replace("run_cap: 5", "run_cap: 0"), "trials must be a whole number of at least 1, but got 0"),
        (f"{SWEEP}command: [--arch, 'os:system']\n", None),  # what the thinner names counts
    ],
)
def test_sweep_is_refused_in_one_sentence(
    text: str,
    problem: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(GOOD)
    Path("sweep.yaml").write_text(text)
    if problem is None:
        assert main(["schedule.yaml", "--sweep", "sweep.yaml"]) == 0
        assert "os" not in Path("schedule.py").read_text().split("model=")[1].splitlines()[0]
    else:
        refuses(["schedule.yaml", "--sweep", "sweep.yaml"], problem, capsys)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("folder", "must be a YAML file, but got a folder or a device"),
        ("pipe", "must be a YAML file, but got a folder or a device"),
        ("device", "must be a YAML file, but got a folder or a device"),
        ("image", "must be YAML, but got bytes that are no text"),
        ("half of UTF-16", "must be YAML, but got"),
        ("link to itself", "must be a YAML file, but it cannot be read: Too many levels of symbolic links"),
        ("name too long", "must be a YAML file, but it cannot be read: File name too long"),
    ],
)
def test_what_is_no_file_of_text_is_refused(
    kind: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("schedule.yaml")
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "image":
            path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
        case "half of UTF-16":
            path.write_bytes(GOOD.encode("utf-16")[:-1])
        case "link to itself":
            path.symlink_to(path)
        case _:
            path = Path("x" * 300 + ".yaml")
    refuses([str(path), "--output", "out.py"], problem, capsys)


def refuses(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that the command says what is wrong, and wrote and ran nothing."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert problem in said.err
    assert "Traceback" not in said.err
    assert max(len(line) for line in said.err.splitlines()) < 1000
    assert said.out == ""
    assert not list(Path().glob("*.py"))
    assert not Path("ran").exists()
