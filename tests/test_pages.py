"""Every built page, opened in Chromium at desk and phone width, is whole and asks nobody else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = Path(os.environ.get("TDI_HTML", ROOT / "_build" / "html"))
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if path.relative_to(HTML).parts[0] not in ("_static", "_sources")
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What is wrong with the page that is open, as a list of texts.
INSPECT = """async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  const wrong = [];
  for (const e of document.querySelectorAll(".math"))
    if (!e.querySelector("mjx-container")) wrong.push("formula left raw: " + e.textContent.trim());
  for (const e of document.querySelectorAll("mjx-merror"))
    wrong.push("formula in error: " + e.textContent);
  for (const e of document.images) {
    e.loading = "eager";
    await e.decode().catch(() => {});
    if (!e.naturalWidth) wrong.push("image not loaded: " + e.src);
    if (!e.alt.trim()) wrong.push("image without a description: " + e.src);
  }
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth + 1) {
    const clipped = e => e && (getComputedStyle(e).overflowX != "visible"
      || (e.tagName != "BODY" && clipped(e.parentElement)));
    const wide = [...document.querySelectorAll("body *")]
      .filter(e => e.getBoundingClientRect().right > page.clientWidth + 1)
      .filter(e => !clipped(e.parentElement))
      .slice(0, 3).map(e => e.outerHTML.slice(0, 80));
    wrong.push(`page is ${page.scrollWidth} px wide, window ${page.clientWidth}: ${wide}`);
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(
            "no Chromium: install it (Debian and Ubuntu: apt-get install chromium), or set CHROMIUM to the program"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def test_the_book_is_built() -> None:
    yaml = pytest.importorskip("yaml")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    missing = {f"{name}.html" for name in [toc["root"], *chapters]}.difference(PAGES)
    assert not missing, "run `make pages`"


def test_pages_of_the_reference_are_small() -> None:
    pages = [HTML / path.relative_to(ROOT).with_suffix(".html") for path in ROOT.glob("book/api/*.md")]
    assert pages and {page.name: size for page in pages if (size := page.stat().st_size) > 500_000} == {}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page_name", PAGES)
def test_page(page_name: str, width: int, browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((HTML.as_uri(), "data:", "blob:")):
            wrong.append(f"asks for {request.url}")

    page.on("request", asked)
    page.on("requestfailed", lambda request: wrong.append(f"did not get {request.url}"))
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on(
        "console",
        lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None,
    )
    page.goto((HTML / page_name).as_uri(), wait_until="load")
    wrong += page.evaluate(INSPECT)
    page.close()
    assert wrong == []


def test_every_inner_link_arrives() -> None:
    from bs4 import BeautifulSoup

    soups = {HTML / name: BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser") for name in PAGES}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            target, anchor = urldefrag(unquote(str(link["href"])))
            if "://" in target or target.startswith("mailto:"):
                continue
            there = (path.parent / target).resolve() if target else path
            if not there.exists() or (anchor and anchor not in anchors.get(there, {anchor})):
                broken.append(f"{path.relative_to(HTML)}: {link['href']}")
    assert broken == []


def test_the_scoreboard_is_one_screen_and_unfolds_to_what_its_data_say(browser: Any) -> None:
    entries = json.loads((HTML / "scoreboard.json").read_text(encoding="utf-8"))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((HTML / "book/scoreboard.html").as_uri(), wait_until="load")
    rows = page.locator("details.tdi-entry")
    assert rows.count() == len(entries)
    box = rows.last.bounding_box()
    assert box is not None and box["y"] + box["height"] <= 900
    for row, (name, entry) in zip(rows.all(), entries.items(), strict=True):
        assert row.get_attribute("id") == name
        assert row.locator("summary .tdi-badge").inner_text().endswith(entry["verdict"])
        assert not row.locator(".tdi-answer").is_visible()
        row.locator("summary").click()
        assert row.locator(".tdi-answer").inner_text() == entry["answer"]
        assert row.locator("tbody tr").count() == len(entry["claims"])
        deciding = {claim["verdict"] for claim in entry["claims"] if claim["role"] == "deciding"}
        worst = next((word for word in ("fails", "undecided", "holds") if word in deciding), "not yet tested")
        assert entry["verdict"] == worst
    page.close()
