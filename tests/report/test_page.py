"""The report page: complete, by itself, and how it is written."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from cosanneal import CosannealError
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import analyze
from cosanneal.report import write_report
from tests.shared.documents import analysis_of, bare, members_of, whole
from tests.shared.reading import Page, page_of

EVERY = ["training", "members", "correlation", "disagreement", "reliability"]
EVERY += ["risk_coverage", "passes", "interpolation", "study"]


def test_the_page_has_every_figure_and_they_stand_beside_it(reported: Path) -> None:
    page = Page(reported.read_text(encoding="utf-8"))
    figures = [each["id"] for each in page.all_of("figure") if "id" in each]
    assert figures == EVERY
    described = [each for each in page.all_of("svg") if each.get("role") == "img"]
    assert len(described) == len(EVERY)
    assert all(len(each["aria-label"] or "") > 20 for each in described)
    folder = reported.with_name("all_files")
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in EVERY for kind in ("png", "svg")
    }
    for name in EVERY:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        root = ET.parse(folder / f"{name}.svg").getroot()  # noqa: S314 - our own
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_needs_nothing_else(reported: Path) -> None:
    text = reported.read_text(encoding="utf-8")
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', text)
    assert referred
    assert set(referred) <= set(ids)


def test_outcomes_and_equal_members(tmp_path: Path) -> None:
    p, y = members_of(2, 300, classes=2)
    same = [p[0, :, 1], p[0, :, 1], np.full(300, 0.5)]
    part = analyze(same, y)
    assert part["correlation"][2] == [None, None, None]
    page_of(bare(analysis=part), tmp_path)


def test_users_texts_are_text(tmp_path: Path) -> None:
    hostile = [
        "<script>alert(1)</script>",
        '" onload="x',
        "$\\frac{1}{2}$ #ffffff #0072b2",
        "模型 " + "a" * 300,
        '{{ title }} & id="x" url(#x)',
    ]
    results = whole(names=hostile)
    results["title"] = "<b>&amp;"
    results["interpolations"][0]["first"] = "$x$ <i> #ffffff url(#x)"
    results["average"]["refused"] = None
    results["comparison"]["rows"][0]["model"] = "<u>"
    results["comparison"]["title"] = "</h2><hr>"
    page = page_of(results, tmp_path)
    assert not {"script", "b", "u", "hr", "i"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if "onload" in name]
    assert page.text_of("h1") == ["<b>&amp;"]
    names = [row[1] for row in page.rows if row[0] in set("12345")]
    assert names == hostile
    (label,) = {text for tag, text in page.texts if tag == "text" and text.startswith("$x$")}
    assert label == "$x$ <i> #ffffff url(#x) → 5"


def test_what_is_no_unicode_is_replaced(tmp_path: Path) -> None:
    document = bare(comparison=whole(2)["comparison"]) | {"title": "a\ud800b"}
    assert page_of(document, tmp_path).text_of("h1") == ["a?b"]


def test_the_same_document_gives_the_same_bytes(
    document: dict[str, Any], reported: Path, tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    results = bare(analysis=document["analysis"])
    with ThreadPoolExecutor(2) as threads:
        pages = [tmp_path / f"{i}" / "all.html" for i in range(2)]
        for page in pages:
            page.parent.mkdir()
        list(threads.map(lambda page: write_report(results, page), pages))
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    first, second = (page.with_name("all_files") / "members.svg" for page in pages)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() == (reported.with_name("all_files") / "members.svg").read_bytes()


def test_figures_of_an_earlier_report_go_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(whole(2), page)
    (tmp_path / "report_files" / "mine.png").touch()
    write_report(bare(comparison=whole(2)["comparison"]), page)
    assert [path.name for path in (tmp_path / "report_files").iterdir()] == ["mine.png"]


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("as it was")
    with pytest.raises(CosannealError, match=r"must end in \.html. Received: .*report\.txt"):
        write_report(whole(2), tmp_path / "report.txt")
    with pytest.raises(CosannealError, match="must have something to report"):
        write_report(bare(demo={}), page)
    bad = bare(run={"rate": [-1], "loss": None, "cycle_ends": []})
    with pytest.raises(EnsembleError, match=r"in 'run\.rate\[0\]'"):
        write_report(bad, page)
    results = bare(comparison=whole(2)["comparison"], analysis=analysis_of(2))
    with pytest.raises(
        CosannealError, match=r"report_files could not be made ready .*: No such file"
    ):
        write_report(results, tmp_path / "missing" / "report.html")
    (tmp_path / "report_files").touch()
    with pytest.raises(
        CosannealError, match=r"report_files could not be made ready .*: File exists"
    ):
        write_report(results, page)
    (tmp_path / "report_files").unlink()
    (tmp_path / "report_files" / "metrics.svg").mkdir(parents=True)
    with pytest.raises(CosannealError, match="could not be made ready for figures: "):
        write_report(results, page)
    assert page.read_text() == "as it was"
