from pathlib import Path

import pytest

from edge_tune.convert.reading import number, read_yaml, whole
from edge_tune.errors import ExperimentError
from tests.convert.files import entry


def test_read_yaml_gives_each_entry_the_line_of_its_key(tmp_path: Path) -> None:
    root = entry(tmp_path, "# comment\nfirst:\n  weights: [\n    a,\n    b]\nsecond:\n  - {x: 1}\n\n  - y\n")
    weights, second = root.value["first"].value["weights"], root.value["second"]
    assert (weights.place, [item.place for item in weights.value]) == ("given.yaml:3", ["given.yaml:4", "given.yaml:5"])
    assert [item.place for item in second.value] == ["given.yaml:7", "given.yaml:9"]
    assert second.value[0].plain("x") == 1
    assert root.value["first"].plain("weights") == ["a", "b"]


def test_read_yaml_follows_anchors_and_merges(tmp_path: Path) -> None:
    text = "base: &base {gamma: 0.5, size: 3}\nown:\n  <<: *base\n  size: 4\nagain: *base\n"
    root = entry(tmp_path, text + "twice: &twice {<<: *base, size: 5}\nthrice: *twice\n")
    assert [root.value["own"].plain(key) for key in ("gamma", "size")] == [0.5, 4]
    assert root.value["again"].plain("size") == 3
    assert [root.value[name].plain("size") for name in ("twice", "thrice")] == [5, 5]
    both = entry(tmp_path, "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n").value["c"]
    assert [both.plain(key) for key in "xy"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"given.yaml: must hold YAML keys and values, but got none; check the path"),
        ("- a\n- b\n", r"given.yaml: must hold YAML keys and values, but got none"),
        ("just a text", r"given.yaml: must hold YAML keys and values, but got none"),
        ("a: [1\nb: 2", r"given.yaml: must be YAML, but got .* line 2, column 2"),
        ("a: 1\n---\nb: 2\n", r"given.yaml: must be YAML, but got expected a single document"),
        ("a: !!python/object:os.system {}", r"given.yaml:1: must be plain YAML, but got the tag '.*os.system'; remove"),
        ("b: !other x", r"given.yaml: must be YAML, but got could not determine"),
        ("a: 2020-13-45", r"given.yaml:1: must be YAML, but got '2020-13-45', which is not what its form or its tag"),
        ("a: &a [*a]", r"given.yaml: must be YAML that nests a few levels deep, but got more levels than can be read"),
        ("a: 1\nb: 2\na: 3\n", r"given.yaml:3: a key must be given once, but got 'a' here and in line 1"),
    ],
)
def test_read_yaml_refuses_what_is_no_mapping(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem) as error:
        entry(tmp_path, text)
    assert "\n" not in str(error.value)


def test_read_yaml_refuses_a_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"none.yaml: must be a YAML file, but .*: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    with pytest.raises(ExperimentError, match=r"image.yaml: must be YAML, but got"):
        read_yaml(tmp_path / "image.yaml")


def test_named_refuses_a_list(tmp_path: Path) -> None:
    root = entry(tmp_path, "a: 1\npruners:\n  - class: X\nempty:\n")
    with pytest.raises(ExperimentError, match=r"given.yaml:2: pruners must name its entries, .* but got a list"):
        list(root.named("pruners"))
    with pytest.raises(ExperimentError, match=r"given.yaml:1: a must name its entries, .* but got 1"):
        list(root.named("a"))
    assert list(root.named("empty")) == list(root.named("missing")) == []


@pytest.mark.parametrize(
    ("value", "as_number", "as_whole"),
    [
        (3, 3, 3),
        (2.0, 2, 2),
        (0.5, 0.5, None),
        ("70", 70, 70),
        ("1e-4", 1e-4, None),
        ("inf", None, None),
        (float("nan"), None, None),
        (10**400, None, None),
        ("x", None, None),
        (True, None, None),
        ([1], None, None),
        (None, None, None),
    ],
)
def test_number_and_whole_read_what_yaml_takes_for_text(value: object, as_number: float, as_whole: int) -> None:
    assert number(value) == as_number
    assert whole(value) == as_whole
