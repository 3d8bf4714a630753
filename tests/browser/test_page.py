"""The report page as a real browser shows it: complete, legible, and by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from cosanneal.ensemble import folder_results
from cosanneal.report import write_report
from tests.shared.documents import analysis_of, bare, record_folder, whole

from .conftest import find_browser

PHONE, DESK = 390, 1280

# The figures that each page must show.
FIGURES = {
    "whole": [
        *("training", "members", "correlation", "disagreement", "reliability"),
        *("risk_coverage", "interpolation", "study"),
    ],
    "many": ["members", "correlation", "disagreement", "reliability"],
    "one": ["reliability"],
    "folder": ["training", "metrics"],
    "metrics": ["metrics"],
}


def snapshots() -> list[dict[str, Any]]:
    """Snapshots with a metric of a long name, and one of a long text."""
    long = {"validation/accuracy_of_the_moving_average_top5": 0.5, "note": "as it was " * 4}
    return [
        {
            "name": f"cycle-{i:04}-step-{10_000 * (i + 1):010}.safetensors",
            "cycle": i,
            "step": 10_000 * (i + 1),
            "rate": 1.234e-5,
            "metrics": long | {"epoch": i},
        }
        for i in range(3)
    ]


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of several documents."""
    folder = tmp_path_factory.mktemp("pages")
    record_folder(folder / "run")
    long = [f"a_very_long_name_without_any_space_{i}_" + "x" * 120 for i in range(40)]
    documents = {
        "whole": whole(),
        "many": bare(analysis=analysis_of(40, names=long, select="greedy")),
        "one": bare(analysis=analysis_of(1)),
        "folder": folder_results(folder / "run"),
        "metrics": bare(snapshots=snapshots()),
    }
    assert documents.keys() == FIGURES.keys()
    for name, document in documents.items():
        write_report(document, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in documents}


@contextmanager
def opened(browser: Browser, path: Path, *, width: int, scheme: Any) -> Iterator[Page]:
    """The page in a window; whatever it asks for or complains of fails the test."""
    asked: list[str] = []
    told: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert told == []


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_figures_and_tables_are_seen(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    with opened(browser, pages[name], width=width, scheme="light") as page:
        figures = page.locator(".figures figure")
        assert [each.get_attribute("id") for each in figures.all()] == FIGURES[name]
        for figure in figures.all():
            picture = figure.locator("svg[role=img]")
            box = picture.bounding_box()
            assert box is not None
            assert box["width"] > 300
            assert box["height"] > 200
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            # Something is drawn, all over it, and its words can be read.
            drawn = picture.evaluate("svg => svg.getBBox().width / svg.viewBox.baseVal.width")
            assert drawn > 0.9
            words = picture.locator("text")
            assert words.count() > 4
            heights = [each.bounding_box() for each in words.all()]
            assert min(box["height"] for box in heights if box) > 7
            assert figure.locator("figcaption").inner_text()
        tables = page.locator("table")
        assert tables.count() >= 1
        for table in tables.all():
            assert table.locator("tbody tr").count() >= 1
            first = table.locator("tbody tr").first.locator("th, td")
            assert first.count() == table.locator("thead th").count()
            assert any(each.inner_text().strip() for each in first.all())
        # Pictures in the pictures: the matrices of many members.
        sizes = page.locator("svg image").evaluate_all(
            "all => Promise.all(all.map(async each => {"
            " const image = new Image(); image.src = each.href.baseVal;"
            " await image.decode(); return image.naturalWidth * image.naturalHeight; }))"
        )
        assert all(size > 0 for size in sizes)
        assert len(sizes) >= (2 if name == "many" else 0)


@pytest.mark.parametrize("name", FIGURES)
def test_a_phone_shows_the_page_without_moving_it_sideways(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    with opened(browser, pages[name], width=PHONE, scheme="dark") as page:
        wide = page.evaluate(
            "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
        )
        assert wide == [PHONE, PHONE, PHONE]
        for box in page.locator(".box").all():
            place = box.bounding_box()
            assert place is not None
            assert place["x"] + place["width"] <= PHONE
        # What is wider than the phone can be reached, inside its own box.
        inside = page.locator(".box").first
        overflow = inside.evaluate("box => box.scrollWidth - box.clientWidth")
        assert overflow > 0 or name == "one"
        if overflow > 0:
            inside.evaluate("box => { box.scrollLeft = box.scrollWidth }")
            assert inside.evaluate("box => box.scrollLeft") > 0


def test_a_phone_keeps_the_rows_names_and_shows_the_choices_metric(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages["whole"], width=PHONE, scheme="light") as page:
        box = page.locator(".box").filter(has=page.get_by_text("Member or ensemble")).first
        inside, metric = box.bounding_box(), box.get_by_text("Log-loss").first.bounding_box()
        assert inside is not None
        assert metric is not None
        assert metric["x"] + metric["width"] <= inside["x"] + inside["width"]
        box.evaluate("box => { box.scrollLeft = box.scrollWidth }")
        assert box.evaluate("box => box.scrollLeft") > 100
        for name in box.locator("tbody th, thead th.name").all():
            place = name.bounding_box()
            assert place is not None
            assert inside["x"] <= place["x"] <= inside["x"] + 2
            assert place["width"] < 0.45 * inside["width"]


def test_a_long_metric_leaves_room_for_the_snapshots_name(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages["metrics"], width=DESK, scheme="light") as page:
        for name in page.locator("tbody th").all():
            line = name.evaluate("each => parseFloat(getComputedStyle(each).lineHeight)")
            inside = name.evaluate(
                "each => { const range = document.createRange();"
                " range.selectNodeContents(each); return range.getBoundingClientRect().height; }"
            )
            assert inside <= line
        # Its name takes several lines, no more room than a number and some.
        box = page.get_by_text("validation/accuracy_of").first.bounding_box()
        assert box is not None
        assert box["width"] < 200
        overflow = "box => box.scrollWidth - box.clientWidth"
        assert page.locator(".box").first.evaluate(overflow) == 0


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = [int(each) / 255 for each in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# Each text of the page with its colour and that of what lies behind it.
TEXTS = """
() => {
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
  };
  return [...document.querySelectorAll('h1, h2, h3, p, figcaption, th, td, code, footer')]
    .filter(each => each.innerText.trim())
    .map(each => [getComputedStyle(each).color, behind(each), each.tagName]);
}
"""

# Each text and each line of the figures with its colour; but the numbers in a matrix' cells.
DRAWN = """
() => [
  ...[...document.querySelectorAll('svg text')].map(each => getComputedStyle(each).fill),
  ...[...document.querySelectorAll('svg g[id*="line2d_"] path, svg g[id*="line2d_"] use')]
    .map(each => getComputedStyle(each).stroke),
].filter(colour => colour.startsWith('rgb') && !['rgb(1, 1, 1)', 'rgb(254, 254, 254)']
  .includes(colour))
"""


@pytest.mark.parametrize("name", ["whole", "folder"])
def test_both_schemes_can_be_read(browser: Browser, pages: dict[str, Path], name: str) -> None:
    papers = {}
    for scheme in ("light", "dark"):
        with opened(browser, pages[name], width=DESK, scheme=scheme) as page:
            papers[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            texts = page.evaluate(TEXTS)
            assert len(texts) > 30
            for colour, behind, tag in texts:
                assert contrast(colour, behind) >= 4.5, (scheme, tag, colour, behind)
            drawn = set(page.evaluate(DRAWN))
            assert len(drawn) > 3
            grid = page.evaluate(
                "getComputedStyle(document.documentElement).getPropertyValue('--line')"
            )
            hidden = {f"rgb({', '.join(str(int(grid[i : i + 2], 16)) for i in (1, 3, 5))})"}
            hidden.add(papers[scheme])  # the rim of a mark
            for colour in drawn - hidden:
                assert contrast(colour, papers[scheme]) >= 3, (scheme, colour)
            words = page.locator("svg text").first.evaluate("text => getComputedStyle(text).fill")
            assert contrast(words, papers[scheme]) >= 7
    assert luminance(papers["light"]) > 0.9
    assert luminance(papers["dark"]) < 0.05


def test_a_missing_browser_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CHROME", raising=False)
    with pytest.raises(
        RuntimeError, match=r"need Chromium or Chrome\. Looked for: chromium, .*CHR"
    ):
        find_browser()
    monkeypatch.setenv("CHROME", "/nowhere/chrome")
    with pytest.raises(RuntimeError, match=r"Looked for: \$CHROME, /nowhere/chrome"):
        find_browser()


def test_chrome_names_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_browser()
    monkeypatch.setenv("CHROME", path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_browser() == path
