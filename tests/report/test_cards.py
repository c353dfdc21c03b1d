import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tune.records.results import Stop
from edge_tune.report.cards import cards, pack
from edge_tune.report.data import read
from tests.studies import answered, evidence, write_files, write_study
from tests.studies import record as made_up


def unpacked(column: dict[str, str]) -> Any:
    return np.frombuffer(base64.b64decode(column["bdata"]), dtype=np.dtype("<" + column["dtype"]))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint16])
def test_pack_is_read_back_as_it_was(kind: type) -> None:
    column = np.array([0, 1, 65535], dtype=kind)
    assert unpacked(pack(column)).tolist() == column.tolist()
    assert pack(column.astype(column.dtype.newbyteorder(">"))) == pack(column)


def test_cards_hold_every_record_baselines_first(tmp_path: Path) -> None:
    write_study(tmp_path, 40, epochs=3)
    (study,) = read([tmp_path])
    packed = cards(study)
    assert unpacked(packed["trial"]).tolist() == [record.trial for record in study.records]
    begins = unpacked(packed["curves"]["begins"])
    assert unpacked(packed["attempts"]).tolist() == [record.attempts for record in study.records]
    for row, record in enumerate(study.records):
        for metric, column in packed["metrics"].items():
            expected = record.metrics.get(metric, math.nan)
            assert unpacked(column)[row] == pytest.approx(expected, rel=1e-6, nan_ok=True)
        curve = unpacked(packed["curves"]["top1"])[begins[row] : begins[row + 1]] / 100
        assert curve.tolist() == pytest.approx([epoch.metrics["top1"] for epoch in record.curve], abs=0.0051)
        for place, weight in enumerate(packed["weights"]):
            kept = {cut.part: cut.kept for cut in record.plan}.get(weight, 0)
            assert unpacked(packed["kept"][place])[row] == kept
        ending = packed["ending"]["words"][unpacked(packed["ending"]["codes"])[row]]
        assert ending == {"stopped": "stopped as hopeless"}.get(record.status, record.status)
        assert packed["reasons"].get(row) == record.reason


def test_cards_say_what_is_imprecise_and_what_the_unpruned_network_took_in_the_same_turns(tmp_path: Path) -> None:
    reference = {"latency": {"median": 2.5}, "total_latency": {"median": 3.0}}
    late, known = evidence(ratios={"is_precise": False}, reference=reference), evidence(reference=reference)
    trials = [
        made_up(2, {"layer_1": 0.5}, "a", measurements={"pruned": late}),
        made_up(3, {"layer_1": 0.5}, "a", measurements={"pruned": late, "retrained": known}),
    ]
    write_files(tmp_path, [made_up(0, {}, "a", baseline="unpruned")], trials)
    packed = cards(read([tmp_path])[0])
    assert packed["imprecise"] == {"pruned": [1, 2], "metrics": [1]}
    assert unpacked(packed["reference"]["latency_ms"]).tolist() == pytest.approx([math.nan, 2.5, 2.5], nan_ok=True)


def test_cards_hold_the_intervals_of_ratios_and_of_top1(tmp_path: Path) -> None:
    """Of 36 of 40 images, Wilson's bounds solve |0.9 - p| = 1.96 (p (1 - p) / 40) ** 0.5."""
    trials = [answered(made_up(2, {"layer_1": 0.5}, "a"), np.arange(40) < 36), made_up(3, {"layer_1": 0.5}, "a")]
    write_files(tmp_path, [], trials)
    intervals = cards(read([tmp_path])[0])["intervals"]
    bounds = [unpacked(intervals["top1"][bound]).tolist() for bound in ("low", "high")]
    assert bounds == [pytest.approx([end, math.nan], rel=1e-5, nan_ok=True) for end in (76.9482, 96.0420)]
    assert unpacked(intervals["latency_ratio"]["low"]).tolist() == pytest.approx([0.84, 0.84])  # 1 - 0.6 / 4, less 0.01


def test_cards_keep_large_whole_numbers_exact(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    (study,) = read([tmp_path])
    macs = unpacked(cards(study)["metrics"]["macs"])
    assert macs.tolist() == [record.metrics["macs"] for record in study.records]
    assert max(macs) > 2**24  # where 32 bits would round


def test_cards_say_which_weights_a_group_prunes(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    packed = cards(read([tmp_path])[0])
    names = {group: [packed["weights"][place] for place in places] for group, places in packed["groups"].items()}
    assert names["layer_2"] == ["layer2.1.conv1.weight"]
    assert len(names["layer_1"]) == 9


def test_cards_say_who_was_audited_and_promoted(tmp_path: Path) -> None:
    asha, late = Stop("asha", 1, "asha: 3 are better"), Stop("predicted", 2, "predicted: at most 70")
    trials = [
        made_up(2, {"layer_1": 0.5}, "a"),
        made_up(3, {"layer_1": 0.5}, "a", audit=late),
        made_up(4, {"layer_1": 0.5}, "a", paused=(asha,)),
    ]
    write_files(tmp_path, [], trials)
    packed = cards(read([tmp_path])[0])
    words = [packed["spared"]["words"][code] for code in unpacked(packed["spared"]["codes"])]
    assert words == ["", "audited (prediction)", "promoted (ASHA)"]
    assert packed["sparedTexts"] == {
        1: "It was audited: after 2 epochs it would have been paused by the prediction (predicted: at most 70), and "
        "was trained all the same.",
        2: "It was promoted: stopped by ASHA after 1 epoch (asha: 3 are better), it was continued later.",
    }
