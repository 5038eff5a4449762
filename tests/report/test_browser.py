"""Pages in a real Chromium: what they ask for, what runs, sorting, filters, themes, contrast, phones and print."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import invsolve
from invsolve.analysis.comparison import Comparison
from invsolve.report.page import render
from invsolve.report.pictures import pictures_of
from tests.report.comparisons import comparison
from tests.report.test_page import HOSTILE, hostile

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = rgba(getComputedStyle(e).backgroundColor);
      if (found[3] === 255) return found;
    }
    return rgba("white");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest("script, title, desc, option") || !element.getClientRects().length) continue;
    const inSvg = element instanceof SVGElement, style = getComputedStyle(element);
    const [a, b] = [light(rgba(inSvg ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    found.push({ text, inSvg, ratio: ratio * (opacity < 1 ? 0 : 1) });
  }
  return found;
}"""


def _without(reason: str) -> NoReturn:
    """In a continuous integration these tests must run; elsewhere not everybody has a browser."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, though CI is set")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        _without("no Chromium is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without("playwright is not installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """A page in a tab of its own, and all that it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(5000)
        self.tab = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.failures: list[str] = []
        self.tab.on("request", lambda r: self.requests.append(r.url))
        self.tab.on("requestfailed", lambda r: self.failures.append(r.failure))
        self.tab.on("console", lambda m: self.complaints.append(m.text))
        self.tab.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.tab.on("dialog", lambda d: (self.complaints.append(f"dialog {d.message}"), d.dismiss()))
        self.url = path.as_uri()
        self.tab.goto(self.url)

    def column(self, i: int) -> list[str]:
        """What column i shows."""
        cells: list[str] = self.tab.locator(f"#rows tbody tr > :nth-child({i + 1})").all_inner_texts()
        return cells

    def count(self) -> str:
        return str(self.tab.inner_text("#count"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A comparison with its dataset, so that all pictures are there; one with hostile names; one of many rows."""
    folder = tmp_path_factory.mktemp("pages")
    data = invsolve.generate("wave-packet", 12, seed=3, model_options={"samples": 32})
    made: dict[str, Comparison] = {
        "real": invsolve.compare(data, methods=("bfgs", "gd"), settings=invsolve.Settings(max_evaluations=30)),
        "hostile": hostile(30),
        "many": comparison(1500, ("bfgs", "gd", "jpo")),
    }
    for name, found in made.items():
        pictures = pictures_of(found) if name != "many" else []
        text = render(found, pictures, HOSTILE[0] if name == "hostile" else name, datetime(2026, 1, 2, tzinfo=UTC))
        (folder / f"{name}.html").write_text(text, encoding="utf-8", errors="replace")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["real", "hostile", "many"])
def test_it_renders_without_a_complaint_or_a_request(browser: Any, pages: dict[str, Path], name: str) -> None:
    opened = Opened(browser, pages[name])
    opened.tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.url]
    assert opened.tab.locator("#filters").is_visible()
    opened.context.close()


def test_hostile_names_are_text(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["hostile"])
    assert opened.tab.title() == HOSTILE[0]
    shown = opened.column(0)
    for name in HOSTILE:
        if "\0" not in name and "\udcff" not in name and "\u202e" not in name:
            assert name in shown
    opened.tab.get_by_label("example contains").fill("<script>")
    assert opened.count().startswith("9 of 90 rows")
    assert opened.complaints == []
    opened.context.close()


def test_the_policy_lets_nothing_else_run_or_load(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["real"])
    ran = opened.tab.evaluate("""async () => {
      const script = document.createElement("script");
      script.textContent = "window.foreign = 1";
      const style = document.createElement("style");
      style.textContent = "h1 { position: fixed }";
      document.body.append(script, style);
      const image = new Image();
      image.src = "https://example.org/x.png";
      const failed = await new Promise((done) => {
        image.onload = () => done(false);
        image.onerror = () => done(true);
      });
      const fetched = await fetch("https://example.org").then(() => true, () => false);
      return [window.foreign ?? null, getComputedStyle(document.querySelector("h1")).position, failed, fetched];
    }""")
    assert ran == [None, "static", True, False]
    assert any("Content Security Policy" in text for text in opened.complaints)
    assert set(opened.failures) == {"csp"}  # refused by the policy, not by the absence of a network
    opened.context.close()


def test_sorting_and_filters(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["many"])
    tab = opened.tab
    heads = [text.strip() for text in tab.locator("#rows th[aria-sort]").all_inner_texts()]
    loss = heads.index("loss")
    assert opened.count() == "4,500 of 4,500 rows, 1 to 100 shown"

    button = tab.get_by_role("button", name="loss", exact=True)
    button.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#rows th[aria-sort=ascending]").inner_text().strip() == "loss"
    values = [float(text) for text in opened.column(loss)]
    assert values == sorted(values)
    assert values[0] < 1e-5
    tab.keyboard.press("Space")
    assert tab.locator("#rows th[aria-sort=descending]").count() == 1
    values = [float(text) for text in opened.column(loss)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 50

    tab.locator("select[name=method]").select_option("gd")
    assert opened.count().startswith("1,500 of 4,500 rows")
    assert set(opened.column(heads.index("method"))) == {"gd"}
    tab.locator("select[name=outcome]").select_option("better")
    tab.locator("select[name=status]").select_option("budget")
    tab.locator("select[name=solved]").select_option("yes")
    assert set(opened.column(heads.index("against bfgs"))) == {"better"}
    assert set(opened.column(heads.index("status"))) == {"budget"}
    assert set(opened.column(heads.index("solved"))) == {"yes"}
    tab.get_by_role("button", name="Clear").click()
    tab.get_by_label("example contains").fill("149")
    assert opened.count() == "36 of 4,500 rows, 1 to 36 shown"
    assert all("149" in text for text in opened.column(0))
    tab.get_by_label("example contains").fill("nothing")
    assert opened.count() == "0 of 4,500 rows"
    tab.get_by_role("button", name="Clear").click()

    tab.get_by_role("button", name="example", exact=True).click()
    tab.get_by_role("button", name="Last").click()
    assert opened.column(0)[-1] == "1499"
    assert opened.count() == "4,500 of 4,500 rows, 4,401 to 4,500 shown"
    assert tab.get_by_role("button", name="Next").is_disabled()
    assert opened.complaints == []
    opened.context.close()


def test_missing_values_are_last_either_way(browser: Any, tmp_path: Path) -> None:
    loss = np.array([3.0, np.nan, 1e-12, np.inf, 20.0])
    made = comparison(5, ("bfgs",), loss=loss)
    (tmp_path / "r.html").write_text(render(made, [], "x", datetime(2026, 1, 2, tzinfo=UTC)))
    opened = Opened(browser, tmp_path / "r.html")
    button = opened.tab.get_by_role("button", name="loss", exact=True)
    assert opened.column(1) == ["3", "", "1e-12", "∞", "20"]
    button.click()
    assert opened.column(1) == ["1e-12", "3", "20", "∞", ""]
    button.click()
    assert opened.column(1) == ["∞", "20", "3", "1e-12", ""]
    opened.context.close()


def test_the_script_writes_numbers_as_the_page_without_it(browser: Any, pages: dict[str, Path]) -> None:
    plain, live = (Opened(browser, pages["many"], java_script_enabled=on) for on in (False, True))
    first = [[row.inner_text() for row in o.tab.locator("#rows tbody tr").all()[:40]] for o in (plain, live)]
    assert first[0] == first[1]
    assert plain.tab.locator("#rows tbody tr").count() == 100
    assert plain.tab.locator("#cut").is_visible()
    assert not plain.tab.locator("#theme").is_visible()
    assert not live.tab.locator("#cut").is_visible()
    for opened in (plain, live):
        opened.context.close()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_both_themes_can_be_read(browser: Any, pages: dict[str, Path], system: str) -> None:
    opened = Opened(browser, pages["real"], color_scheme=system)
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(2):
        seen.add(opened.tab.evaluate(paper))
        told = opened.tab.evaluate(CONTRAST)
        assert len(told) > 300
        assert any(t["inSvg"] for t in told)
        assert [t for t in told if t["ratio"] < 4.5] == []
        opened.tab.locator("#theme").click()
    assert len(seen) == 2
    chosen = opened.tab.evaluate("document.documentElement.dataset.theme")
    assert chosen == system  # after two presses
    opened.tab.reload()
    assert opened.tab.evaluate("document.documentElement.dataset.theme") == chosen
    opened.context.close()


@pytest.mark.parametrize("name", ["real", "hostile", "many"])
def test_nothing_is_wider_than_a_phone(browser: Any, pages: dict[str, Path], name: str) -> None:
    opened = Opened(browser, pages[name], viewport={"width": 360, "height": 740})
    wide = opened.tab.evaluate("""() => [...document.body.querySelectorAll("*")]
      .filter((e) => !e.closest(".scroller, svg, .skip") && e.getBoundingClientRect().right > 360.5)
      .map((e) => e.outerHTML.slice(0, 100))""")
    assert wide == []
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 360
    opened.context.close()


def test_print_is_light_and_has_no_controls(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["many"], color_scheme="dark")
    opened.tab.locator("#theme").click()
    opened.tab.locator("#theme").click()  # dark, by choice
    opened.tab.emulate_media(media="print")
    assert opened.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for control in ("#theme", "#filters", "#pages", "#count", "nav"):
        assert not opened.tab.locator(control).is_visible(), control
    assert opened.tab.locator("#rows tbody tr:visible").count() == 25
    assert opened.tab.get_by_text("In print the table is shortened").is_visible()
    opened.tab.emulate_media(media="screen")
    assert not opened.tab.get_by_text("In print the table is shortened").is_visible()
    opened.context.close()
