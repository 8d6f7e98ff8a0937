"""The page: one file that needs nothing else, drawn by a real browser."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from nas.report.__main__ import main
from nas.report.page import write_report
from nas.study.run import open_run
from tests.support.browser import BROWSER, DRIVER, click_at, console_of, open_browser, open_page, run_script
from tests.support.reports import HOSTILE, SETTINGS, make_searched_run

MOST_BYTES = 5_000_000
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_searched_run(tmp_path_factory.mktemp("page") / "R"))


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with open_browser() as found:
        yield found


def test_a_page_is_small_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    assert page.name == "report.html" and len(text.encode()) < MOST_BYTES
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|@import|url\(""", text)


def test_names_of_users_stay_text(page: Path) -> None:
    text = page.read_text()
    assert HOSTILE not in text and html.escape(HOSTILE) in text


def test_the_command_writes_it_where_it_is_asked_to(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = page.with_name("elsewhere.html")
    assert main([str(page.parent), "--out", str(out)]) == 0
    assert out.exists() and str(out) in capsys.readouterr().out


def test_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_drawn_without_errors_or_overflow(driver: webdriver.Chrome, page: Path, width: int, theme: str) -> None:
    open_page(driver, page, width, theme)
    assert console_of(driver) == []
    assert run_script(driver, "document.documentElement.scrollWidth") == width
    drawn = {each.get_attribute("id") for each in driver.find_elements(By.CSS_SELECTOR, ".chart:has(svg.main-svg)")}
    charts = ("front", "curve", "importance", "measured", "model", "rank")
    assert drawn == {f"{name}-chart" for name in charts}
    assert run_script(driver, "[...document.images].every((each) => each.naturalWidth > 100)")
    assert run_script(driver, "[...document.querySelectorAll('video')].map((each) => each.error).join('')") == ""
    backs = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}
    assert run_script(driver, "getComputedStyle(document.body).backgroundColor") == backs[theme]


@needs_browser
def test_a_point_opens_its_architecture(driver: webdriver.Chrome, page: Path) -> None:
    open_page(driver, page, 1280, "light")
    worst = run_script(driver, "scored.filter((each) => each.status === 'scored').sort((a, b) => a.score - b.score)[0]")
    find = f"""(() => {{ const chart = document.getElementById("front-chart");
        for (const [curve, trace] of chart.data.entries()) {{
            const point = (trace.customdata ?? []).indexOf({worst["number"]});
            if (point >= 0) {{ const box = chart.querySelector(".nsewdrag").getBoundingClientRect();
                const [x, y] = [chart._fullLayout.xaxis, chart._fullLayout.yaxis];
                return [box.left + x.d2p(trace.x[point]), box.top + y.d2p(trace.y[point])]; }} }} }})()"""
    run_script(driver, "document.getElementById('front').scrollIntoView()")
    click_at(driver, *run_script(driver, find))
    shown = driver.find_element(By.ID, "decoder").text
    assert shown.startswith(f"#{worst['number']} ") and "stage0" in shown and "stem" in shown


@needs_browser
def test_the_table_sorts_and_opens_by_keyboard(driver: webdriver.Chrome, page: Path) -> None:
    open_page(driver, page, 390, "dark")
    heading = driver.find_element(By.CSS_SELECTOR, "#decoder-table button[data-key=score]")
    heading.send_keys(Keys.ENTER)
    scores = [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, "#decoder-table td:nth-child(5)")]
    numbers = [float(score) for score in scores if score]
    assert numbers == sorted(numbers, reverse=True) and scores[len(numbers) :] == [""] * (len(scores) - len(numbers))
    assert run_script(driver, "document.querySelector('[aria-sort=descending] button').dataset.key") == "score"
    last = driver.find_elements(By.CSS_SELECTOR, "#decoder-table tbody button")[-1]
    number = last.text
    last.send_keys(Keys.ENTER)
    assert driver.find_element(By.ID, "decoder").text.startswith(f"#{number} ")
    assert run_script(driver, "document.activeElement.id") == "architecture"


@needs_browser
def test_a_run_before_its_first_trial_is_shown(driver: webdriver.Chrome, tmp_path: Path) -> None:
    run, _ = open_run(SETTINGS, tmp_path / "R")
    open_page(driver, write_report(run), 390, "light")
    assert console_of(driver) == [] and "no study yet" in driver.find_element(By.TAG_NAME, "body").text
