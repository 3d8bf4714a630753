"""The tutorials run, give what they show on the site, and say in the end what they gave."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shared import notebooks
from tests.shared.notebooks import Cell, Given, cells, joined, load, run_notebook
from tests.shared.pages import PAGES, pages_of

TUTORIALS = sorted(page for page in PAGES if page.endswith(".ipynb"))
NUMBER = r"\d+(?:\.\d+)?"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # of what a tutorial starts
    # Of so small networks threads only wait for each other; and sums are the same bits in both.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cell(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> Cell:
    return Cell("a tutorial", source, tags, outputs)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_runs_and_gives_what_is_committed(page: str) -> None:
    run_notebook(page)


def test_every_tutorial_is_run_here() -> None:
    assert {*TUTORIALS} <= {*pages_of("torch")}
    assert len(TUTORIALS) > 0


@pytest.mark.parametrize("page", TUTORIALS)
def test_what_a_tutorial_shows_is_small_and_of_no_machine(page: str) -> None:
    shown = cells(page)
    raw = load(page)
    counts = [each["execution_count"] for each in raw["cells"] if each["cell_type"] == "code"]
    assert counts == [*range(1, len(counts) + 1)]  # all of one run, in order
    assert len({each["id"] for each in raw["cells"]}) == len(raw["cells"])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert raw["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert any(image for each in shown for image in each.images)
    for each in shown:
        assert not re.search(r"/(tmp|home|root|Users|private)/", each.committed.text)
        assert all(len(image) < 40_000 for image in each.images), each.place
        if each.images:
            described = next(found for found in raw["cells"] if each.place.endswith(found["id"]))
            assert len(described["metadata"]["mystnb"]["image"]["alt"]) > 20
    for each in raw["cells"]:
        assert all(len(line) <= 100 for line in joined(each["source"]).splitlines()), each["id"]


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_ends_with_the_numbers_that_it_gave(page: str) -> None:
    first, *_, last = load(page)["cells"]
    assert re.match(r"# \S.*\n\n[A-Z]", joined(first["source"]))
    closing = joined(last["source"])
    assert closing.startswith("## What it gave\n\n")
    given = re.findall(NUMBER, " ".join(each.committed.text for each in cells(page)))
    told = re.findall(NUMBER, re.sub(r"\]\(.*?\)", "", closing))
    assert len(told) >= 2
    assert [number for number in told if number not in given] == []


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    assert cell("x = 3\nprint('so')\nx + 1").run(names) == Given("so\n4", 0)
    assert cell("x;").run(names) == Given("", 0)
    assert cell("None").run(names) == Given("", 0)
    assert cell("").run(names) == Given("", 0)
    assert names["x"] == 3


def test_figures_are_counted_shown_or_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    code = "from matplotlib import pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1]);"
    assert cell("%matplotlib inline\n" + code).run(names) == Given("", 1)
    shown = "from matplotlib.figure import Figure\nFigure()"
    assert cell(shown).run(names) == Given("", 1)


@pytest.mark.usefixtures("elsewhere")
def test_a_cell_that_is_a_file_is_written() -> None:
    assert cell("%%writefile one.py\nprint(1)").run({}) == Given("Writing one.py", 0)
    assert Path("one.py").read_text(encoding="utf-8") == "print(1)\n"


def test_an_error_or_a_warning_fails_at_its_line() -> None:
    with pytest.raises(AssertionError) as caught:
        cell("%matplotlib inline\nassert 1 == 2").run({})
    assert caught.traceback[-1].lineno == 1  # from 0
    with pytest.raises(UserWarning, match="so not"):
        cell("import warnings\nwarnings.warn('so not')").run({"warnings": warnings})
    with pytest.raises(SyntaxError):
        cell("%time 1").run({})


def test_what_is_committed_and_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def committed(text: str, **more: str) -> dict[str, Any]:
        return {"output_type": "stream", "name": "stdout", "text": [text]} | more

    def check(*found: Cell) -> None:
        monkeypatch.setattr(notebooks, "cells", lambda _: found)
        run_notebook("a tutorial")

    print_it = "print('3 of', 0.25)"
    check(cell(print_it, committed("3 of 11.5\n")))  # decimals are a processor's own
    for text in ("4 of 0.25\n", "3 or 0.25\n", "3 of nan\n", "3 of 0.25, 0.5\n", ""):
        with pytest.raises(AssertionError):
            check(cell(print_it, committed(text)))
    check(cell(print_it, committed("none"), tags=("varies",)))
    with pytest.raises(AssertionError):
        check(cell(print_it, tags=("varies",)))
    picture: dict[str, Any] = {
        "output_type": "display_data",
        "data": {"image/png": "", "text/plain": "<Figure>"},
    }
    for tags in ((), ("varies",)):
        with pytest.raises(AssertionError):
            check(cell("x = 1", picture, tags=tags))
    with pytest.raises(AssertionError, match="beware"):
        check(cell("x = 1", committed("beware", name="stderr")))
    with pytest.raises(AssertionError, match="error"):
        check(cell("x = 1", {"output_type": "error"}))
