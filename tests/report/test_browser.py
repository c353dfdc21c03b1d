"""The page in headless Chromium, as a reader opens it: from the disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from edge_tune.records.results import Record, Stop
from edge_tune.report.data import read
from edge_tune.report.page import write_report
from tests.studies import record, write_files, write_study

pytestmark = pytest.mark.browser

TRIALS, EPOCHS = 60, 2
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "made_up"
    write_study(folder, TRIALS, epochs=EPOCHS, nodes=2)
    write_report([folder], folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, folder: Path) -> webdriver.Chrome:
    return open_page(browser, folder / "report.html")


def open_page(
    browser: webdriver.Chrome, file: Path, *, scheme: str = "light", width: int = 1200, drawn: bool = True
) -> webdriver.Chrome:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(file.as_uri())
    if drawn:
        done = (
            "const [done] = arguments; Promise.all(plots.map(draw)).then(() => done(true), (error) => done(`${error}`))"
        )
        assert browser.execute_async_script(done) is True
    return browser


def count(page: webdriver.Chrome, kind: str, selector: str) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, f'[data-kind="{kind}"] {selector}'))


def bins(values: list[float]) -> int:
    return len({int(np.floor(value / 0.02 + 1e-9)) for value in values})


def test_page_loads_from_disk_without_a_request_or_an_error(page: webdriver.Chrome, folder: Path) -> None:
    errors = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    elsewhere = [url for url in asked if not url.startswith(("data:", "blob:", "chrome:"))]
    assert elsewhere == [(folder / "report.html").as_uri()]


def test_every_plot_has_its_points(page: webdriver.Chrome, folder: Path) -> None:
    (study,) = read([folder])
    measured = [t for t in study.trials if t.metrics]
    finished = [t for t in study.trials if t.status == "finished"]
    stopped = [t for t in measured if t.status == "stopped"]
    points = {
        "pareto": len(measured) + len(study.front) + len(study.baselines) + 1,
        "best": 2 * len(finished),
        "matrix": 2 * (5 * len(measured) + 2 * len(finished)),  # two groups, seven metrics
        "bins": sum(bins([t.point[f"{label}.sparsity"] for t in measured]) for label in ("layer_1", "layer_2")),
        "before-after": len(measured),
        "predicted-latency_ratio": len(measured),
        "predicted-top1": 2 * len(finished),
    }
    bars = {
        "latencies": sum(bins([t.metrics["latency_ratio"] for t in some]) for some in (finished, stopped)),
        "importance": 2 * 2,
        "layers": 2 * 10,
    }
    assert {kind: count(page, kind, ".scatterlayer path.point") for kind in points} == points
    assert {kind: count(page, kind, ".barlayer g.point path") for kind in bars} == bars
    assert count(page, "endings", ".barlayer g.point path") >= 10
    assert count(page, "time", ".barlayer g.point path") >= 2 * 5
    lines: Any = page.execute_script(
        "return document.querySelector('[data-kind=parallel]').data[0].dimensions.map((one) => one.values.length)"
    )
    assert lines == [len(measured)] * 4
    assert count(page, "parallel", "canvas") > 0
    assert len(page.find_elements(By.CSS_SELECTOR, ".plot")) == len(points) + len(bars) + 3


def card_of(page: webdriver.Chrome) -> str:
    WebDriverWait(page, 20).until(lambda page: page.find_element(By.TAG_NAME, "dialog").is_displayed())
    return page.find_element(By.TAG_NAME, "dialog").text


def trial(folder: Path, name: str) -> Record:
    return next(record for record in read([folder])[0].records if record.name == name)


def test_card_opens_when_its_point_is_clicked(page: webdriver.Chrome, folder: Path) -> None:
    chosen = read([folder])[0].chosen
    assert chosen is not None
    plot = page.find_element(By.CSS_SELECTOR, '[data-kind="pareto"]')
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    star = plot.find_elements(By.CSS_SELECTOR, ".scatterlayer path.point")[-1]
    tip = page.find_element(By.ID, "tip")

    def point_at(page: webdriver.Chrome) -> bool:
        """Do as a reader does when nothing shows, because a scroll that came to its end hid it: leave and come back."""
        ActionChains(page).move_to_element(plot).move_to_element(star).perform()
        return tip.is_displayed() and tip.text.startswith(chosen.name)

    WebDriverWait(page, 20).until(point_at)
    ActionChains(page).move_to_element(star).click().perform()
    card = card_of(page)
    assert card.startswith(chosen.name)
    assert "the chosen network and on the Pareto front" in card
    assert f"{chosen.metrics['latency_ratio']:.3f}" in card
    assert "layer1.8.conv1.weight" in card
    cut = next(cut for cut in chosen.plan if cut.part == "layer2.1.conv1.weight")
    assert f"{cut.kept} of 32" in card
    assert "epoch 2" in card
    page.find_element(By.CSS_SELECTOR, "dialog button").click()
    assert not page.find_element(By.TAG_NAME, "dialog").is_displayed()


@pytest.mark.parametrize("name", ["trial_0008", "trial_0019"])
def test_card_gives_the_reason_and_the_attempts_of_a_trial_that_was_stopped_or_failed(
    page: webdriver.Chrome, folder: Path, name: str
) -> None:
    page.find_element(By.XPATH, f'//div[@class="trials"]//button[text()="{name}"]').click()
    one, card = trial(folder, name), card_of(page)
    assert str(one.reason) in card
    assert ("It was begun 2 times" in card) == (one.attempts == 2)


def column(page: webdriver.Chrome, heading: str) -> list[str]:
    headings = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".trials thead th")]
    place = next(place for place, text in enumerate(headings) if text.startswith(heading))
    return [cell.text for cell in page.find_elements(By.CSS_SELECTOR, f".trials tbody td:nth-child({place + 1})")]


def test_table_sorts_and_turns_pages(page: webdriver.Chrome, folder: Path) -> None:
    ratios = sorted(t.metrics["latency_ratio"] for t in read([folder])[0].trials if t.metrics)
    sort = page.find_element(By.XPATH, '//div[@class="trials"]//th/button[text()="latency_ratio"]')
    assert column(page, "trial")[:2] == ["trial_0002", "trial_0003"]
    sort.click()
    assert column(page, "latency_ratio") == [f"{ratio:.3f}" for ratio in ratios[:25]]
    sort.click()
    assert column(page, "latency_ratio") == [f"{ratio:.3f}" for ratio in ratios[::-1][:25]]
    for _ in range(2):
        page.find_element(By.XPATH, '//div[@class="trials"]//button[text()="Next"]').click()
    unmeasured = TRIALS - len(ratios)
    last = [f"{ratio:.3f}" for ratio in ratios[::-1][50:]] + ["–"] * unmeasured  # noqa: RUF001
    assert column(page, "latency_ratio") == last


def test_buttons_of_figures_cover_no_words(browser: webdriver.Chrome, tmp_path: Path) -> None:
    names = ("off_the_shelf", "unpruned_retrained", "by_hand", "of_the_paper")
    known = [record(n, {"layer_1": 0.1 * n}, "a", baseline=name, epochs=2) for n, name in enumerate(names, 1)]
    trials = [record(n, {"layer_1": 0.08 * n, "layer_2": 0.5}, "a", epochs=2) for n in range(5, 11)]
    write_files(tmp_path, [record(0, {}, "a", baseline="unpruned"), *known], trials, epochs=2)
    write_report([tmp_path], tmp_path / "report.html")
    page = open_page(browser, tmp_path / "report.html")
    assert page.find_elements(By.CSS_SELECTOR, ".plot .modebar-group")
    covered: Any = page.execute_script(
        """const boxes = (root, what) => [...root.querySelectorAll(what)].map((one) => one.getBoundingClientRect());
        const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        const words = ".legendtext, .xtitle, .ytitle, .xtick text, .ytick text, .annotation-text";
        return [...document.querySelectorAll(".plot")].filter((plot) => boxes(plot, ".modebar-group").some(
            (button) => boxes(plot, words).some((word) => meet(button, word)))).map((plot) => plot.dataset.kind)"""
    )
    assert covered == []


def test_page_fits_a_telephone(browser: webdriver.Chrome, folder: Path) -> None:
    page = open_page(browser, folder / "report.html", width=390)
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]


def test_page_is_dark_where_the_system_is(browser: webdriver.Chrome, folder: Path) -> None:
    def colors(scheme: str) -> list[str]:
        page = open_page(browser, folder / "report.html", scheme=scheme)
        found: list[str] = page.execute_script(
            "const tick = document.querySelector('[data-kind=pareto] .xtick text');"
            "return [getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(tick).fill]"
        )
        return found

    assert colors("light") == ["rgb(255, 255, 255)", "rgb(31, 35, 40)"]
    assert colors("dark") == ["rgb(21, 24, 28)", "rgb(228, 231, 235)"]


def test_plots_are_drawn_only_when_they_come_near(browser: webdriver.Chrome, folder: Path) -> None:
    page = open_page(browser, folder / "report.html", drawn=False)
    drawn = "return plots.filter((plot) => plot.dataset.drawn).map((plot) => plot.dataset.kind)"
    assert "layers" not in page.execute_script(drawn)
    page.execute_script("document.querySelector('[data-kind=layers]').scrollIntoView()")
    WebDriverWait(page, 20).until(lambda page: "layers" in page.execute_script(drawn))


def test_studies_stand_side_by_side(browser: webdriver.Chrome, tmp_path: Path) -> None:
    for number in range(3):
        write_study(tmp_path / f"study_{number}", 12, seed=number)
    write_report([tmp_path / f"study_{number}" for number in range(3)], tmp_path / "report.html")
    page = open_page(browser, tmp_path / "report.html")
    ranges: list[list[float]] = page.execute_script(
        "const { xaxis, xaxis2, xaxis3 } = document.querySelector('[data-kind=pareto]')._fullLayout;"
        "return [xaxis, xaxis2, xaxis3].map((axis) => axis.range)"
    )
    assert ranges[0] == ranges[1] == ranges[2]
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert len(page.find_elements(By.CSS_SELECTOR, ".trials table")) == 3


def test_ten_thousand_trials_are_shown(browser: webdriver.Chrome, tmp_path: Path) -> None:
    write_study(tmp_path, 10_000)
    write_report([tmp_path], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 15e6
    page = open_page(browser, tmp_path / "report.html", drawn=False)
    page.execute_script("document.querySelector('[data-kind=pareto]').scrollIntoView()")
    plotted = "return (document.querySelector('[data-kind=pareto]').data ?? []).map((trace) => trace.x.length)"
    WebDriverWait(page, 60).until(lambda page: sum(page.execute_script(plotted)) > 9000)
    assert "of 10000" in page.find_element(By.CSS_SELECTOR, ".trials .bar").text


def test_table_and_card_say_who_was_audited_and_promoted(browser: webdriver.Chrome, tmp_path: Path) -> None:
    stop = Stop("asha", 1, "asha: 3 are better")
    trials = [
        record(2, {"layer_1": 0.5}, "a"),
        record(3, {"layer_1": 0.4}, "a", audit=stop),
        record(4, {"layer_1": 0.3}, "a", paused=(stop,)),
    ]
    write_files(tmp_path, [], trials)
    write_report([tmp_path], tmp_path / "report.html")
    page = open_page(browser, tmp_path / "report.html")
    assert column(page, "audited or promoted") == ["", "audited (ASHA)", "promoted (ASHA)"]
    Select(page.find_element(By.CSS_SELECTOR, ".trials select")).select_by_visible_text("audited (ASHA)")
    assert column(page, "trial") == ["trial_0003"]
    page.find_element(By.XPATH, '//div[@class="trials"]//button[text()="trial_0003"]').click()
    assert "It was audited: after 1 epoch it would have been stopped by ASHA (asha: 3 are better)" in card_of(page)


def test_chosen_network_is_on_a_telephones_screen(browser: webdriver.Chrome, folder: Path) -> None:
    page = open_page(browser, folder / "report.html", width=390)
    sides = "return [...document.querySelectorAll('td.chosen')].map((cell) => cell.getBoundingClientRect())"
    cells: list[dict[str, float]] = page.execute_script(sides)
    assert cells
    assert all(cell["left"] >= 0 and cell["right"] <= 390 for cell in cells)
