"""Records -> what the page's script makes the cards and the table of trials from: columns, packed.

A column is {"dtype", "bdata"}: base64 of little-endian numbers, as plotly writes its own. 10,000 trials of a
ResNet-56 with 20 epochs each take about 4 MB.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_tune.metrics import RATIOS
from edge_tune.parameters import short_names
from edge_tune.records.accuracy import validation_top1
from edge_tune.records.endings import ending, ending_text, spared, spared_text
from edge_tune.records.entries import Metrics
from edge_tune.records.results import Record
from edge_tune.report.data import StudyData, columns_of, interval, measurement, numbers, numbers_of

MOST = np.iinfo(np.uint16).max


def pack(column: NDArray[Any]) -> dict[str, str]:
    """Return a column as JSON: its type's name and its bytes."""
    little = column.astype(column.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str[1:], "bdata": base64.b64encode(little.tobytes()).decode()}


def cards(study: StudyData) -> dict[str, Any]:
    """Return a study's records as packed columns: its baselines first, then its trials."""
    records = study.records
    weights = list(dict.fromkeys(cut.part for record in records for cut in record.plan))
    return {
        "label": study.label,
        "baselines": [record.label for record in study.baselines],
        "trial": pack(np.array([record.trial for record in records], dtype=np.int32)),
        "ending": _words(ending_text(ending(record)) for record in records),
        "node": _words(record.node for record in records),
        "started": pack(numbers(_seconds(record.started_at) for record in records)),
        "epoch": pack(np.array([record.epoch for record in records], dtype=np.int32)),
        "attempts": pack(np.array([record.attempts for record in records], dtype=np.int32)),
        "reasons": {row: why for row, record in enumerate(records) if (why := record.reason or record.collapsed)},
        "spared": _words(map(spared, records)),
        "sparedTexts": {row: text for row, record in enumerate(records) if (text := spared_text(record))},
        "parameters": _columns([numbers_of(record) for record in records]),
        "choices": _choices(records),
        "short": short_names(dict.fromkeys(name for record in records for name in numbers_of(record))),
        "pruned": _columns([_told(study, record.pruned) for record in records]),
        "metrics": _columns([_told(study, record.metrics) for record in records]),
        "reference": _columns([measurement(record).reference_ms for record in records]),
        "imprecise": {
            stage: [row for row, record in enumerate(records) if not measurement(record, name).is_precise]
            for stage, name in (("pruned", "pruned"), ("metrics", None))
        },
        "intervals": {metric: _bounds(_known(records, metric)) for metric in (*RATIOS, "top1")},
        "seconds": _columns([record.seconds for record in records]),
        "groups": _groups(study, weights),
        "weights": weights,
        "kept": _cuts(records, weights, "kept"),
        "before": _cuts(records, weights, "before"),
        "curves": _curves(records),
        "front": [record.trial for record in study.front],
        "chosen": study.chosen.trial if study.chosen else None,
    }


def _told(study: StudyData, metrics: Metrics) -> Metrics:
    """Return the metrics that are shown."""
    return {name: value for name, value in metrics.items() if name != "top5" or study.tells_top5}


def _columns(mappings: Sequence[Mapping[str, object]]) -> dict[str, dict[str, str]]:
    """Pack a column for each key; whole numbers too large for 32 bits of precision keep 64."""
    packed = {}
    for key, column in columns_of(mappings).items():
        exact = np.array_equal(column, np.round(column), equal_nan=True) and np.nanmax(column, initial=0.0) > 2**24
        packed[key] = pack(column if exact else column.astype(np.float32))
    return packed


def _words(words: Iterable[str]) -> dict[str, Any]:
    """Return a column of words as the words and, for each row, which of them."""
    words = list(words)
    codes = {word: code for code, word in enumerate(dict.fromkeys(words))}
    return {"words": list(codes), "codes": pack(np.array([codes[word] for word in words], dtype=np.uint16))}


def _choices(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Pack the parameters that are texts."""
    names = dict.fromkeys(name for record in records for name, value in record.point.items() if isinstance(value, str))
    return {name: _words(str(record.point.get(name, "")) for record in records) for name in names}


def _known(records: Sequence[Record], metric: str) -> list[tuple[float | None, float | None]]:
    """Return the 95 % interval of a ratio, or of top1, as far as it is known."""
    if metric == "top1":
        known = map(validation_top1, records)
        return [one.interval if one else (None, None) for one in known]
    ratios = (interval(record, metric) for record in records)
    return [(one.low, one.high) if one else (None, None) for one in ratios]


def _bounds(intervals: Sequence[tuple[float | None, float | None]]) -> dict[str, dict[str, str]]:
    return {
        bound: pack(numbers(one[place] for one in intervals).astype(np.float32))
        for place, bound in enumerate(("low", "high"))
    }


def _groups(study: StudyData, weights: Sequence[str]) -> dict[str, list[int]]:
    """Return label -> which of the weights it prunes, or of the blocks it leaves out."""
    rows = {weight: row for row, weight in enumerate(weights)}
    groups = study.settings.pruner_groups
    return {label: [rows[w] for w in (*group.weights, *group.blocks) if w in rows] for label, group in groups.items()}


def _cuts(records: Sequence[Record], weights: Sequence[str], what: Literal["kept", "before"]) -> list[dict[str, str]]:
    """Pack, weight by weight, the channels that every trial kept or had before; 0 where its record has no plan."""
    places = {weight: place for place, weight in enumerate(weights)}
    counts = np.zeros((len(weights), len(records)), dtype=np.uint16)
    for row, record in enumerate(records):
        for cut in record.plan:
            counts[places[cut.part], row] = cut.kept if what == "kept" else cut.before
    return [pack(column) for column in counts]


def _curves(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """Pack the curves end to end: where each begins, top1 in hundredths, training loss in thousandths."""
    lengths = [len(record.curve) for record in records]
    epochs = [epoch for record in records for epoch in record.curve]
    return {
        "begins": pack(np.cumsum([0, *lengths]).astype(np.int32)),
        "top1": pack(_scaled((epoch.metrics.get("top1") for epoch in epochs), 100)),
        "train_loss": pack(_scaled((epoch.train_loss for epoch in epochs), 1000)),
    }


def _scaled(values: Iterable[object], factor: int) -> NDArray[np.uint16]:
    return np.clip(np.nan_to_num(np.round(numbers(values) * factor)), 0, MOST).astype(np.uint16)


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
