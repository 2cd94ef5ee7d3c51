"""Every built page, opened in Chromium from desk to phone width, is whole, readable by all and asks nobody else."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import axe_playwright_python
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image

from tdi_lib.filters import frequency_response, impulse_response
from tdi_lib.ssm import poles_lin
from tdi_lib.theory import compare_toeplitz, learning_curve

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
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
WIDTHS = (1280, 768, 360)
# One page of every kind, for what depends on the style alone.
LOOKS = (
    "index.html",
    "book/explore.html",
    "book/referees.html",
    "book/scoreboard.html",
    "book/notation.html",
    "book/status.html",
    "book/api/samples.html",
    "notebooks/12_which_layers.html",
)
# What is wrong with the page that is open, whatever its width: a list of texts.
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
    const least = e.closest("figure, .cell_output") ? 20 : 1;  // the others are signs
    if (e.alt.trim().length < least) wrong.push("image without a description: " + e.src);
  }
  for (const e of document.querySelectorAll(".bd-article svg:not([aria-hidden])"))
    if (!e.closest("a, button") && (e.getAttribute("aria-label") || "").length < 20)
      wrong.push("figure without a description: " + e.outerHTML.slice(0, 80));
  return wrong;
}"""
# What does not fit the window. At desk width nothing is cut; below, the widest formulas and tables scroll, by key too.
MEASURE = """async () => {
  await new Promise(done => setTimeout(done, 150));  // reader.js waits for the last of several resizes
  const wrong = [], page = document.documentElement, desk = innerWidth >= 1200;
  if (page.scrollWidth > page.clientWidth + 1) {
    const clipped = e => e && (getComputedStyle(e).overflowX != "visible"
      || (e.tagName != "BODY" && clipped(e.parentElement)));
    const wide = [...document.querySelectorAll("body *")]
      .filter(e => e.getBoundingClientRect().right > page.clientWidth + 1)
      .filter(e => !clipped(e.parentElement))
      .slice(0, 3).map(e => e.outerHTML.slice(0, 80));
    wrong.push(`page is ${page.scrollWidth} px wide, window ${page.clientWidth}: ${wide}`);
  }
  const boxes = "div.math mjx-container, table, pre, .cell_output, .output";
  for (const e of document.querySelectorAll(`.bd-article :is(${boxes})`)) {
    if (!e.checkVisibility() || e.scrollWidth <= e.clientWidth + 1) continue;
    const scrolls = e.tabIndex == 0 && getComputedStyle(e).overflowX == "auto";
    if (desk || e.matches("pre, .cell_output, .output") || !scrolls)
      wrong.push(`cut at ${innerWidth} px (${e.scrollWidth} of ${e.clientWidth}): ${e.textContent.slice(0, 60)}`);
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


def violations(page: Any, rules: list[str]) -> list[str]:
    """What axe-core finds on the page. Formulas and code are left out: they are MathJax's and Pygments', and large."""
    page.evaluate(AXE)
    script = """async rules => {
      const contrast = {enabled: rules[0] == "color-contrast"};
      const options = {preload: false, runOnly: rules, rules: {"color-contrast": contrast}};
      const {violations} = await axe.run({exclude: [["mjx-container"], ["pre"]]}, options);
      return violations.flatMap(v => v.nodes.map(n => `${v.id}: ${n.html.slice(0, 100)} ${n.failureSummary}`));
    }"""
    found: list[str] = page.evaluate(script, rules)
    return found


def opened(browser: Any, name: str, width: int = 1280, theme: str = "light") -> Any:
    """The page, whole, in a theme."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    page.goto((HTML / name).as_uri(), wait_until="load")
    page.wait_for_selector("html[data-fitted]", state="attached")
    assert page.locator("html").get_attribute("data-theme") == theme
    return page


@pytest.mark.parametrize("page_name", PAGES)
def test_page(page_name: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
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
    for width in WIDTHS:  # colors have no width: one theme will do
        page.set_viewport_size({"width": width, "height": 900})
        wrong += page.evaluate(MEASURE)
    if page_name in LOOKS or not page_name.startswith(("notebooks/", "book/api/")):  # the others are built of the same
        wrong += violations(page, ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"])
    page.close()
    assert wrong == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page_name", LOOKS)
def test_text_stands_out_in_both_themes(page_name: str, theme: str, browser: Any) -> None:
    page = opened(browser, page_name, theme=theme)
    found = violations(page, ["color-contrast"])
    page.close()
    assert found == []


def test_in_the_dark_figures_have_no_plate_and_claims_can_be_read(browser: Any) -> None:
    page = opened(browser, "notebooks/05_learning_curves.html", theme="dark")
    page.set_viewport_size({"width": 1280, "height": 6000})
    luminance = """text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number); return (r + g + b) / 765; }"""
    for claim in page.locator(".cell_output .tdi-claim").all()[:3]:
        texts = [claim.locator(each).first for each in (".tdi-statement", "dd")]
        colors = [each.evaluate("e => getComputedStyle(e).color") for each in texts]
        assert all(page.evaluate(luminance, color) > 0.6 for color in colors)
        plate = claim.locator("xpath=..").evaluate("e => getComputedStyle(e).backgroundColor")
        assert plate == "rgba(0, 0, 0, 0)"
    figure = page.locator(".bd-article figure img").first
    figure.scroll_into_view_if_needed()
    figure.evaluate("e => { e.loading = 'eager'; return e.decode(); }")
    picture = np.asarray(Image.open(io.BytesIO(figure.screenshot())).convert("L"))
    background = page.evaluate(luminance, page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
    assert abs(np.median(picture) / 255 - background) < 0.03  # paper
    assert picture.max() > 200  # ink
    page.close()


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


# ---- explorers: what the page computes against what the library does -----------------------------------------------


def theory_of(center: float, width: float, decay: float, beta: float) -> dict[str, Any]:
    """What `tdi.starts` computes in the page, by the library: eigenvalues and target on the frequencies of the DFT."""
    length, channels = 128, 32
    omega = np.arange(length // 2 + 1) * 2 * np.pi / length
    counts = np.where(np.isin(np.arange(omega.size), (0, omega.size - 1)), 1, 2)
    input_power = (omega + 0.2) ** -beta

    def spectrum(log_poles: np.ndarray, weights: np.ndarray, *, unit: bool) -> np.ndarray:
        """Mean over channels and phases of the power of the first 128 steps, every channel's one if they are to be."""
        phases = [impulse_response(log_poles, weights * phase, length=length) for phase in (1, 1j)]
        power = sum(np.abs(np.fft.rfft(kernel)) ** 2 for kernel in phases) * input_power
        if unit:
            power = power / (power @ counts)[:, None]
        mean = power.mean(0)
        return mean / (mean @ counts)

    def bank(density: np.ndarray, grid: np.ndarray) -> np.ndarray:
        centers = np.interp((np.arange(channels) + 0.5) / channels, np.r_[0, np.cumsum(density)] / density.sum(), grid)
        return spectrum((-decay + 1j * centers)[:, None], np.ones((channels, 1)), unit=True)

    steps = 0.001 * 100 ** ((np.arange(16) + 0.5) / 16)
    A = np.tile(poles_lin(32), (16, 1))
    log_poles = steps[:, None] * A
    modes = log_poles.reshape(-1, 1)  # each alone: its output weight is drawn on its own
    lin = spectrum(modes, (np.expm1(log_poles) / A).reshape(-1, 1), unit=False)
    grid = np.linspace(0, np.pi, 2049)
    middle = (grid[1:] + grid[:-1]) / 2
    bell = lambda w: np.exp(-((w - center) ** 2) / (2 * width**2))  # noqa: E731
    target = counts * bell(omega)
    matched, flat = bank(bell(middle), grid), bank(np.ones_like(middle), grid)
    return {"counts": counts, "target": target / target.sum(), "lin": lin, "flat": flat, "matched": matched}


@pytest.mark.parametrize("dials", [(2.0, 0.2, 0.05, 1), (0.3, 0.05, 0.3, 2), (2.9, 1.5, 0.01, 0)])
def test_spectra_and_learning_curves_in_the_page_are_those_of_the_library(
    dials: tuple[float, ...], browser: Any
) -> None:
    page = opened(browser, "book/explore.html")
    script = """dials => {
      const start = tdi.starts(...dials), error = {};
      for (const name of ["lin", "flat", "matched"])
        error[name] = [4, 64, 1000].map(P => tdi.RIDGES.map(ridge => tdi.errorAt(start[name], start.target, P, ridge)));
      return {start, error, ridges: tdi.RIDGES, omega: tdi.omega};
    }"""
    found, ours = page.evaluate(script, list(dials)), theory_of(*dials)
    page.close()
    assert found["start"]["target"] == pytest.approx(ours["target"], rel=1e-9, abs=1e-15)
    for name in ("lin", "flat", "matched"):
        assert found["start"][name] == pytest.approx(ours[name], rel=1e-6)
        options = {"noise": 0.09, "counts": ours["counts"]}
        curves = [
            learning_curve(ours[name], ours["target"], [4, 64, 1000], ridge=ridge, **options).error
            for ridge in found["ridges"]
        ]
        assert np.allclose(np.transpose(found["error"][name]), curves, rtol=1e-6)


@pytest.mark.parametrize("dials", [(0.1, 5.0, 0.5), (0.013, 3.0, 0.05), (0.9, 9.0, 4.0)])
def test_the_filter_in_the_page_is_that_of_the_library(dials: tuple[float, float, float], browser: Any) -> None:
    page = opened(browser, "book/explore.html")
    script = """([step, im, re]) => { const f = tdi.filter(step, im, -re);
      return {...f, response: [0, 0.5, 1, 3].map(f.response)}; }"""
    found = page.evaluate(script, dials)
    page.close()
    step, im, re = dials
    A = -re + 1j * im * np.arange(4)
    log_poles, residues = (step * A)[None], (np.expm1(step * A) / A)[None]
    kernel = impulse_response(log_poles, residues, length=64)[0]
    theirs = compare_toeplitz(kernel)
    response = np.abs(frequency_response(log_poles, residues, omega=np.array([0, 0.5, 1, 3])))[0]
    assert np.allclose(found["kernel"], kernel, rtol=1e-9, atol=1e-12)
    assert np.allclose(found["response"], response, rtol=1e-9)
    assert np.allclose(found["singular"], theirs.singular_values, rtol=1e-6, atol=1e-9 * theirs.singular_values[0])
    assert (found["distance"], found["bound"]) == pytest.approx((theirs.distance, theirs.bound), rel=1e-6)


def test_dials_are_moved_by_keyboard_and_all_that_is_shown_follows(browser: Any) -> None:
    page = opened(browser, "index.html")
    front = page.locator("#explorer-front")
    assert page.evaluate("document.querySelector('#explorer-front').explorer.state") == {"center": 2, "width": 0.2}

    def shown() -> list[str]:
        return [front.locator(".finding").inner_text(), *(each.get_attribute("aria-label") for each in front.locator(
            ".panels svg").all()), front.locator(".panels").inner_html()]  # fmt: skip

    before = shown()
    page.get_by_label("Where the task lies").focus()
    for _ in range(35):
        page.keyboard.press("ArrowLeft")
    state = page.evaluate("document.querySelector('#explorer-front').explorer")
    assert state["state"]["center"] == pytest.approx(0.25)
    assert page.get_by_label("Where the task lies").get_attribute("aria-valuetext") == "0.25 rad/sample"
    assert all(now != then for now, then in zip(shown()[::2], before[::2], strict=True))
    # what the sentence says is the theory's: the best of the ridges at these sizes is one fifth
    ours = theory_of(0.25, 0.2, 0.05, 1)
    ridges = 10 ** (np.arange(13) / 2 - 5)
    for name, samples in state["result"]["samples"].items():
        curves = [
            learning_curve(ours[name], ours["target"], samples, ridge=r, noise=0.09, counts=ours["counts"])
            for r in ridges
        ]
        assert min(float(curve.error[0]) for curve in curves) == pytest.approx(0.2, rel=1e-3)
        assert f"{samples:,.0f}" in shown()[0]
    page.close()


def test_the_deep_study_shows_the_recorded_runs(browser: Any) -> None:
    table = pd.read_parquet(ROOT / "results" / "deep.parquet")
    plain = table[(table.n_layers == 2) & (table.dt_min == 1e-3) & (table.dt_max == 0.1) & (table.pretrain_steps == 0)]
    plain = plain[(plain.max_steps == np.where(plain.n > 1000, 1000, 400)) & (plain.layers == "first")]
    page = opened(browser, "book/explore.html")
    study = page.locator("#explorer-study")
    sets = page.get_by_label("Data set").locator("option").all()
    assert {each.get_attribute("value") for each in sets} == set(plain.dataset)
    picks = (("forda", "tdi", "loss"), ("watch", "half", "accuracy"), ("freezer", "dfout", "loss"))
    for dataset, init, measure in picks:
        page.get_by_label("Data set").select_option(dataset)
        page.get_by_label("Initialization").select_option(init)
        page.get_by_label("Measured").select_option(measure)
        cells = page.evaluate("document.querySelector('#explorer-study').explorer.result.cells")
        for cell in cells:
            mine = plain[(plain.dataset == dataset) & (plain.init == cell["name"]) & (plain.n == cell["n"])]
            assert sorted(cell["values"]) == pytest.approx(sorted(mine[measure]), rel=1e-5)
            assert cell["mean"] == pytest.approx(mine[measure].mean(), rel=1e-5)
            if len(mine) >= 5:
                low, high = scipy.stats.ttest_1samp(mine[measure], 0).confidence_interval()
                assert (cell["low"], cell["high"]) == pytest.approx((low, high), rel=1e-5)
            else:
                assert cell["low"] is None
        assert {cell["name"] for cell in cells} == {"lin", init}
        assert study.locator("tbody tr").count() == len(cells)
        assert study.locator(".panels circle").count() == sum(len(cell["values"]) for cell in cells)
    page.close()


# ---- the referees' page, numbers, themes -----------------------------------------------------------------------------


def test_what_the_referees_asked_is_answered_by_the_scoreboard(browser: Any) -> None:
    entries = json.loads((HTML / "scoreboard.json").read_text(encoding="utf-8"))
    claims = {claim["id"]: claim for entry in entries.values() for claim in entry["claims"]}
    page = opened(browser, "book/referees.html")
    rows = page.locator("table.tdi-referees tbody tr").all()
    assert len(rows) >= 15
    for row in rows:
        names = [link.inner_text() for link in row.locator(".tdi-behind a").all()]
        verdicts = {claims[name]["verdict"] for name in names}
        worst = next((w for w in ("not yet tested", "fails", "undecided", "holds") if w in verdicts), "not yet tested")
        assert row.locator(".tdi-badge").inner_text().endswith(worst)
        assert row.inner_text().count("Not measured yet.") == (worst == "not yet tested")
        for name in names:
            if claims[name]["value"] is not None and worst != "not yet tested":
                value = f"{claims[name]['value']:.{claims[name]['digits']}g}"
                said = row.locator("td b").all_inner_texts()
                assert name == "Q9.spec-floor" or any(each.split(" [")[0] == value for each in said), name
    page.close()


def test_equations_and_figures_are_numbered_by_chapter() -> None:
    total = {"eqno": 0, "caption-number": 0}
    for path in sorted((HTML / "notebooks").glob("*.html")):
        text, chapter = path.read_text(encoding="utf-8"), int(path.name[:2])
        for kind in total:
            numbers = re.findall(rf'<span class="{kind}">(?:\(|Fig\. )([\d.]+)', text)
            assert numbers == [f"{chapter}.{n}" for n in range(1, len(numbers) + 1)]
            assert len(numbers) == text.count(f'class="{kind}"')
            total[kind] += len(numbers)
    assert min(total.values()) > 50  # the patterns find them


def test_the_status_page_counts_what_the_scoreboard_has() -> None:
    from bs4 import BeautifulSoup

    entries = json.loads((HTML / "scoreboard.json").read_text(encoding="utf-8"))
    pages = [claim["page"] for entry in entries.values() for claim in entry["claims"]]
    soup = BeautifulSoup((HTML / "book/status.html").read_text(encoding="utf-8"), "html.parser")
    chapters, studies, _ = soup.select(".tdi-status table")
    rows = [[cell.get_text() for cell in row.select("td")] for row in chapters.select("tbody tr")]
    assert len(rows) == len(list((HTML / "notebooks").glob("*.html")))
    for name, _, _, _, *counts in rows:
        assert sum(map(int, counts)) == pages.count(f"notebooks/{name}")
    names = {row.select_one("td").get_text() for row in studies.select("tbody tr")}
    assert names == {path.stem for path in ROOT.glob("results/*.parquet")}
