"""The tutorials: notebooks, run here cell by cell in one namespace, and what they show on the site.

Not in Jupyter: there each would begin a process that imports PyTorch once more, warnings would be
printed in place of raised, and the session would need some thirty packages besides. Jupyter runs
them in `docs/run_tutorials.py`, which writes what comes out into them; a cell must give the same.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.shared.pages import DOCS

# The tag of a cell whose words, too, may differ on another processor.
VARIES = "varies"


@dataclass(frozen=True)
class Given:
    """What a cell shows: its text, and how many pictures."""

    text: str
    pictures: int

    @property
    def form(self) -> tuple[str, int]:
        """It without what differs between processors: decimals, and how far they are indented."""
        decimals = re.sub(r"[-+]?\d+\.\d+(e[-+]?\d+)?", "#", self.text)
        return " ".join(decimals.split()), self.pictures


@dataclass(frozen=True)
class Cell:
    """A cell of code, and what the notebook has of what it showed when Jupyter ran it."""

    place: str
    source: str
    tags: tuple[str, ...]
    outputs: tuple[dict[str, Any], ...]

    @property
    def committed(self) -> Given:
        text, pictures = "", 0
        for output in self.outputs:
            kind = output["output_type"]
            if kind == "stream":
                assert output["name"] == "stdout", f"{self.place}: {joined(output['text'])}"
                text += joined(output["text"])
            else:
                assert kind in ("display_data", "execute_result"), f"{self.place}: {kind}"
                if "image/png" in output["data"]:
                    pictures += 1
                else:
                    text += joined(output["data"]["text/plain"])
        return Given(text, pictures)

    @property
    def images(self) -> list[bytes]:
        found = (output.get("data", {}).get("image/png") for output in self.outputs)
        return [base64.b64decode(joined(each)) for each in found if each]

    def run(self, names: dict[str, Any]) -> Given:
        """Run it in the namespace and the folder of those before, as a notebook does."""
        written = re.match(r"%%writefile (\S+)\n", self.source)
        if written:
            Path(written[1]).write_text(self.source[written.end() :] + "\n", encoding="utf-8")
            return Given(f"Writing {written[1]}", 0)
        # Which is for Jupyter alone; the line stays, so that a traceback names the right one.
        source = re.sub(r"^%matplotlib inline$", "", self.source, flags=re.MULTILINE)
        tree = ast.parse(source)
        last = tree.body[-1] if tree.body else None
        shown: ast.Expr | None = None
        if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
            tree.body.pop()
            shown = last
        value, pictures = None, 0
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(tree, self.place, "exec"), names)  # noqa: S102 - our own tutorials
            if shown is not None:
                value = eval(compile(ast.Expression(shown.value), self.place, "eval"), names)  # noqa: S307
        if hasattr(value, "savefig"):
            value, pictures = None, 1
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pictures += len(pyplot.get_fignums())
            pyplot.close("all")
        return Given(printed.getvalue() + ("" if value is None else repr(value)), pictures)


def joined(text: str | list[str]) -> str:
    """A notebook's text, which is one string or its lines."""
    return text if isinstance(text, str) else "".join(text)


def load(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / page).read_text(encoding="utf-8"))
    return found


def cells(page: str) -> list[Cell]:
    """The cells of code, in order."""
    return [
        Cell(
            f"{page}, {each['id']}",
            joined(each["source"]),
            tuple(each["metadata"].get("tags", ())),
            tuple(each["outputs"]),
        )
        for each in load(page)["cells"]
        if each["cell_type"] == "code"
    ]


def run_notebook(page: str) -> dict[str, Any]:
    """The names of the notebook when all of it has run; every cell gives what is committed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(page):
        given, committed = cell.run(names), cell.committed
        if VARIES in cell.tags:
            assert bool(given.text) == bool(committed.text), cell.place
            assert given.pictures == committed.pictures, cell.place
        else:
            assert given.form == committed.form, cell.place
    return names
