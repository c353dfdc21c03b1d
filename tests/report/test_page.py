import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edge_tune.errors import ExperimentError
from edge_tune.records.results import Stop
from edge_tune.report.page import Pool, write_report
from tests.studies import record as made_up
from tests.studies import run, write_files, write_study


class Reader(HTMLParser):
    """Collects the headings, the notes on what is left out, and every address the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.notes: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.open.append("note" if given.get("class") == "none" else tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)
        if self.open and self.open[-1] == "note":
            self.notes.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop() if self.open else None


def written(*folders: Path) -> str:
    output = folders[0] / "report.html"
    write_report(folders, output)
    return output.read_text()


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def kinds(page: str) -> list[str]:
    return re.findall(r'data-kind="([\w-]+)"', page.partition("<script")[0])


SECTIONS = [
    "Verdict",
    "Latency against accuracy",
    "Best so far",
    "Trials by latency",
    "Parameters against metrics",
    "Which parameter matters",
    "Before and after retraining",
    "Predicted and found",
    "Ruined networks",
    "Stopped early",
    "Where the time went",
    "Time of each layer",
    "All trials",
    "How it was run",
]


def test_page_of_a_study_holds_every_section_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    write_study(tmp_path, 40, epochs=2)
    page = written(tmp_path)
    reader = Reader(page.partition("<script")[0])
    assert reader.headings == SECTIONS
    assert reader.notes == ["The table of trials needs JavaScript."]
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert len(kinds(page)) == len(data_of(page)["figures"]) == 13


def test_page_of_studies_side_by_side_shows_their_shared_plots_once(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_study(tmp_path / name, 12)
    page = written(tmp_path / "first", tmp_path / "second")
    headings = Reader(page.partition("<script")[0]).headings
    assert headings[:4] == ["Side by side", *SECTIONS[1:4]]
    assert headings.count("Verdict") == 2
    assert headings[4] == "first"
    found = kinds(page)
    assert [found.count(kind) for kind in ("pareto", "best", "latencies", "matrix")] == [1, 1, 1, 2]
    assert len(data_of(page)["studies"]) == 2


def test_page_of_an_empty_study_says_why_sections_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run()))
    page = written(tmp_path)
    reader = Reader(page.partition("<script")[0])
    assert reader.headings == SECTIONS
    assert kinds(page) == []
    assert "No trial has come to an end yet, so there is nothing to choose." in page
    assert len([note for note in reader.notes if note.startswith("Left out: ")]) == 12


def test_page_takes_trials_with_missing_and_extra_fields_and_an_unfinished_line(tmp_path: Path) -> None:
    write_study(tmp_path, 20)
    with (tmp_path / "trials.jsonl").open("a") as file:
        for entry in (
            {"trial": 90},
            {"trial": 91, "status": "finished"},
            {"trial": 92, "status": "finished", "metrics": {"top1": 50.0}, "news": {"a": 1}, "attempts": 2},
            {"trial": 93, "status": "stopped", "stopped_by": "time_limit", "point": {"layer_9.sparsity": 0.5}},
        ):
            file.write(json.dumps(entry) + "\n")
        file.write('{"trial": 94, "status"')
    page = written(tmp_path)
    assert "trials.jsonl:25: must hold what a study wrote there, but got: input data was truncated; left out." in page
    assert "1 stopped by its time limit" in page
    assert "layer_9.sparsity" in data_of(page)["studies"][0]["parameters"]


def test_page_of_a_study_without_baselines_compares_with_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, 12)
    (tmp_path / "baselines.jsonl").unlink()
    page = written(tmp_path)
    assert "times as fast as the unpruned network" in page
    assert "Left out: it takes the unpruned and a chosen network." in page


def test_page_escapes_what_a_study_brings_along(tmp_path: Path) -> None:
    trials = write_study(tmp_path, 3)
    evil = "</script><script>alert(1)</script>"
    with (tmp_path / "trials.jsonl").open("a") as file:
        entry = {**json.loads(trials[0].to_json()), "trial": 9, "status": "failed", "reason": evil, "node": evil}
        file.write(json.dumps(entry) + "\n")
    page = written(tmp_path)
    assert "alert(1)" in page
    assert evil not in page
    assert "A study &lt;made up&gt; &amp; small." in page
    assert evil in data_of(page)["studies"][0]["reasons"].values()


def test_pool_holds_equal_columns_once() -> None:
    pool = Pool()
    one, other = {"dtype": "f4", "bdata": "AAAA"}, {"dtype": "f4", "bdata": "BBBB"}
    pooled = pool.pooled({"data": [{"x": one, "y": other}, {"x": dict(one), "name": "a"}], "layout": {"title": "t"}})
    assert pooled == {"data": [{"x": {"$": 0}, "y": {"$": 1}}, {"x": {"$": 0}, "name": "a"}], "layout": {"title": "t"}}
    assert pool.columns == [one, other]


def test_report_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"holds no run\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_page_of_a_few_trials_has_sentences_in_place_of_statistics(tmp_path: Path) -> None:
    write_study(tmp_path, 6, epochs=2)
    page = written(tmp_path)
    notes = Reader(page.partition("<script")[0]).notes
    assert {"correlations", "counts by latency"} <= {note[10:].partition(".")[0] for note in notes}
    assert "Left out: it takes at least 10 measured trials that differ." in notes
    assert "0 of 6 trials ended no better than chance" in page
    assert "Too few trials finished to say whether one predicts the other." in page
    assert {"latencies", "bins", "importance", "endings"}.isdisjoint(kinds(page))
    assert {"pareto", "best", "matrix", "parallel", "before-after"} <= set(kinds(page))


def test_page_shows_top5_only_where_a_network_can_miss_it(tmp_path: Path) -> None:
    trials = [made_up(n, {"layer_1": 0.5}, "a", epochs=2) for n in range(2, 5)]
    alike = [replace(t, pruned={**t.pruned, "top5": 100.0}, metrics={**t.metrics, "top5": 100.0}) for t in trials]
    missed = [*alike[:2], replace(alike[2], pruned={**alike[2].pruned, "top5": 99.0})]
    for name, records, shown in (("few", alike, False), ("many", missed, True)):
        write_files(tmp_path / name, [], records, epochs=2)
        page = written(tmp_path / name)
        assert ("val top5 (%)" in page.partition("<script")[0]) == shown
        assert ("top5" in data_of(page)["studies"][0]["metrics"]) == shown


def test_page_speaks_of_the_lower_edge_only_where_a_network_stands_there(tmp_path: Path) -> None:
    """What was classified, and then could not be measured, has no place in the figure."""
    good = [made_up(trial, {"layer_1": 0.1 * trial}, "a") for trial in (2, 3)]
    bad = made_up(4, {"layer_1": 0.9}, "a", collapsed="why", status="stopped", stopped_by="hopeless")
    ruined = replace(bad, metrics={**bad.metrics, "top1": 10.0})
    lost = replace(ruined, status="failed", metrics={"top1": 10.0}, measurements={})
    unpruned = made_up(0, {}, "a", baseline="unpruned")
    for last, stands in ((ruined, True), (lost, False)):
        write_files(tmp_path, [unpruned], [*good, last])
        assert ("Those at the lower edge lie at it or below." in written(tmp_path)) == stands


def test_table_of_networks_has_the_chosen_one_first(tmp_path: Path) -> None:
    write_study(tmp_path, 12)
    head = re.search(r"<thead><tr>(.*?)</tr></thead>", written(tmp_path), re.DOTALL)
    assert head
    assert re.findall(r'<th scope="col"( class="chosen")?>(best: |unpruned)?', head[1])[:3] == [
        ("", ""),
        (' class="chosen"', "best: "),
        ("", "unpruned"),
    ]


def test_page_says_what_stopping_early_saved_of_what_the_search_spent(tmp_path: Path) -> None:
    stop = Stop("asha", 1, "asha: 3 are better")
    ended = made_up(3, {"layer_1": 0.6}, "a", epochs=2, status="stopped", stopped_by="asha")
    trials = [
        made_up(2, {"layer_1": 0.5}, "a", epochs=2),
        replace(ended, epoch=1, curve=ended.curve[:1]),
        made_up(4, {"layer_1": 0.5}, "a", epochs=2, audit=stop),
    ]
    write_files(tmp_path, [], trials, epochs=2)
    page = written(tmp_path)
    assert "The search spent 5 epochs of retraining. These rules saved 1 more." in page
    assert '<th scope="row">stopped by ASHA</th><td>1</td><td>1</td><td>0</td><td>1</td>' in page
