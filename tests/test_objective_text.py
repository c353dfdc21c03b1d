import pytest

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.objective import Bound, Condition, Hybrid
from edge_tune.objective_text import parse


def test_parse_reads_every_form() -> None:
    assert parse("minimise latency_ms").goal == et.Minimise("latency_ms")
    asked = parse("0.7*latency_ratio + 3 * top1 where top1>=0.9 * off-the-shelf - 1 and loss < 2")
    assert asked.goal == Hybrid({"latency_ratio": 0.7, "top1": 3.0})
    assert asked.conditions == (
        Condition("top1", ">=", Bound(-1.0, "off-the-shelf", 0.9)),
        Condition("loss", "<", Bound(2.0)),
    )
    assert asked.metrics == ["latency_ratio", "top1", "loss"]


def test_parse_takes_either_spelling() -> None:
    assert parse("minimize latency_ms").goal == et.Minimise("latency_ms")
    assert parse("maximize top1 where loss < 2").goal == et.Maximise("top1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"objective '': must begin with 'minimise', 'maximise', 'front' or a weight, but got the end; as in 'min"),
        ("fastest", r"must begin with 'minimise', 'maximise', 'front' or a weight, but got 'fastest'"),
        ("minimise", r"after 'minimise' must come the name of a metric, but got the end"),
        ("minimise 3", r"after 'minimise' must come the name of a metric, but got '3'"),
        ("minimise top1 with", r"after 'top1' must come 'where', but got 'with'"),
        ("minimise top1 where", r"after 'where' must come the name of a metric, but got the end"),
        ("minimise top1 where loss = 3", r"after 'loss' must come one of >=, <=, >, <, but got '='"),
        ("minimise top1 where loss <", r"after '<' must come a number or a baseline, but got the end"),
        ("minimise top1 where loss < 3 or", r"after '3' must come 'and', but got 'or'"),
        ("minimise top1 where loss < 3 * 4", r"after '\*' must come the name of a baseline, but got '4'"),
        ("minimise top1 where loss < half - x", r"after '-' must come a number, but got 'x'"),
        ("0.5 top1", r"after '0.5' must come '\*', but got 'top1'"),
        ("0.5 * speed", r"after '\*' must come a metric of \['top1', .* but got 'speed'"),
        ("1 * top1 + 2 * top1", r"that is not in the sum yet, but got 'top1'"),
        ("1 * top1 + loss", r"after '\+' must come a weight, but got 'loss'"),
        ("0 * top1", r"a weight must be above 0, but got 0"),
        ("1e999 * top1", r"must begin with 'minimise', 'maximise', 'front' or a weight, but got '1e999'"),
        ("minimise __import__('os')", r"must come the name of a metric, but got \"__import__"),
    ],
)
def test_parse_says_where_a_text_goes_wrong(text: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        parse(text)
