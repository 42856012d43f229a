"""The page in a real browser."""

import base64

import pytest

from edgesparse.report.page import write_page
from tests.report.page.sample_run import HOSTILE, run
from tests.tools.browser import chromium, requests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_page(run(device=HOSTILE), tmp_path_factory.mktemp("page") / "page.html")


def first_column(driver):
    rows = "[...document.querySelectorAll('#tables table.sortable tbody tr')]"
    name = "row.cells[0].textContent.split(' ')[0]"
    return driver.execute_script(f"return {rows}.map(row => {name})")


CLIPPED = """
const out = (inner, outer) => inner.left < outer.left - 1 || inner.right > outer.right + 1
    || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
const box = (element) => element.getBoundingClientRect();
document.querySelectorAll("details").forEach((details) => { details.open = true; });
const texts = [...document.querySelectorAll("svg text")].filter((t) => t.textContent.trim());
const tables = [...document.querySelectorAll("#tables .wide, #models .wide")];
return [
  texts.filter((t) => out(box(t), box(t.closest("svg")))).map((t) => t.textContent),
  texts.filter((t) => box(t).height < 8).map((t) => t.textContent),
  tables.filter((t) => t.scrollWidth > t.clientWidth + 1).map((t) => t.textContent),
];
"""
"""Texts of charts that are cut off, or too small to read; tables that are wider than the page."""


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_clipped(tmp_path, width):
    path = write_page(run(), tmp_path / "page.html")
    with chromium(width) as driver:
        driver.get(path.as_uri())
        assert driver.execute_script(CLIPPED) == [[], [], []]


@pytest.mark.parametrize("width", [1280, 400])
def test_it_needs_nothing_else_and_fits(page, width):
    with chromium(width) as driver:
        driver.get(page.as_uri())
        assert {url.split(":")[0] for url in requests(driver)} == {"file", "data"}
        assert driver.get_log("browser") == []
        assert driver.title.startswith("p: 2026")  # The hostile name did nothing.
        body = driver.find_element("tag name", "body")
        assert HOSTILE in driver.execute_script("return document.body.textContent")
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        assert body.size["height"] > 1000


def test_tables_are_sorted_by_keyboard(page):
    with chromium() as driver:
        driver.get(page.as_uri())
        before = first_column(driver)
        assert before[:3] == ["dense-f32", "sparse-f32", "sparse-int8"]
        heads = driver.find_elements("css selector", "#tables table.sortable thead th")
        place = next(k for k, head in enumerate(heads) if head.text.startswith("p50"))
        button = heads[place].find_element("tag name", "button")
        button.send_keys("\ue007")  # Enter.
        assert heads[place].get_attribute("aria-sort") == "ascending"
        # What failed has no value and comes last, both ways.
        assert first_column(driver) == ["sparse-int8", "sparse-f32", "dense-f32", "torn"]
        button.send_keys(" ")
        assert heads[place].get_attribute("aria-sort") == "descending"
        assert first_column(driver) == ["dense-f32", "sparse-f32", "sparse-int8", "torn"]


def test_it_is_read_without_javascript_and_on_paper(page):
    with chromium() as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get(page.as_uri())
        text = driver.find_element("tag name", "main").text
        assert "sparse-int8" in text
        assert driver.find_elements("css selector", "thead button") == []
        assert driver.find_element("tag name", "svg").size["height"] > 100
        paper = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
        assert paper.startswith(b"%PDF")
        assert len(paper) > 20_000


def test_its_colours_are_the_readers(page):
    seen = []
    for dark in (False, True):
        with chromium(dark=dark) as driver:
            driver.get(page.as_uri())
            parts = "[document.body, document.querySelector('svg text')]"
            colours = "[getComputedStyle(e).backgroundColor, getComputedStyle(e).fill]"
            script = f"return {parts}.map(e => {colours})"
            seen.append(driver.execute_script(script))
    (light_paper, light_ink), (dark_paper, dark_ink) = seen
    assert light_paper[0] == "rgb(255, 255, 255)"
    assert dark_paper[0] == "rgb(22, 24, 28)"
    assert light_ink[1] != dark_ink[1]
