"""The code on the pages of the site: where it stands, who runs it, and running it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"

# By page, the sessions that run its code: each all of it, or what stands under its framework's tab,
# or under a title whose packages it alone has.
PAGES = {
    "index.md": ("torch", "keras", "jax"),
    "start/torch.md": ("torch",),
    "start/keras.md": ("keras",),
    "start/jax.md": ("jax",),
    "start/lightning.md": ("engines",),
    "start/transformers.md": ("engines",),
    "schedules.md": ("torch",),
    "restarts.md": ("torch",),
    "conventions.md": ("torch",),
    "ensembles.md": ("torch", "engines"),
    "snapshots.md": ("torch",),
    "coming-from.md": ("peers",),
    "tutorials/from-scratch.ipynb": ("torch",),
    "tutorials/lora.ipynb": ("torch",),
    "tutorials/regression.ipynb": ("torch",),
    "tutorials/segmentation.ipynb": ("torch",),
    "tutorials/study.ipynb": ("torch",),
}
# Which tests of their own run.
ELSEWHERE = {"preemption.md", "snapshot-format.md", "storage.md", "study.md", "trackers.md"}


@dataclass(frozen=True)
class Block:
    """Code of a page, with the line it begins at and the titles that it stands under."""

    page: str
    line: int
    titles: tuple[str, ...]
    code: str

    def run(self, names: dict[str, Any]) -> None:
        # With the page's own lines, so that a traceback names them.
        code = "\n" * (self.line - 1) + self.code
        exec(compile(code, str(DOCS / self.page), "exec"), names)  # noqa: S102 - our own pages


def blocks(
    page: str, under: str | None = None, *, but: str | None = None, folder: Path = DOCS
) -> list[Block]:
    """The page's blocks of Python; `under` a heading or the title of a tab, if one is given.

    What stands under the heading or title `but` is left out; there must be such.
    """
    found: list[Block] = []
    section, tab, begun = "", "", 0
    lines = (folder / page).read_text(encoding="utf-8").splitlines()
    fence = ""
    for number, line in enumerate(lines, 1):
        if fence:
            if line.strip() == "```":
                if fence == "python":
                    code = textwrap.dedent("\n".join(lines[begun : number - 1]))
                    found.append(Block(page, begun + 1, (section, tab), code))
                fence = ""
        elif opened := re.fullmatch(r" *```(\S*).*", line):
            fence, begun = opened[1] or "text", number
        elif opened := re.fullmatch(r" *:::\{tab-item\} (.*)", line):
            tab = opened[1]
        elif re.fullmatch(r" *:::", line):
            tab = ""
        elif opened := re.fullmatch(r"#+ (.*)", line):
            section = opened[1]
    assert not fence, f"{page}: a block of code is not closed"
    assert but is None or any(but in block.titles for block in found), f"{page}: no code of {but}"
    kept = (block for block in found if but not in block.titles)
    return [block for block in kept if under is None or under in block.titles]


def run_page(
    page: str,
    names: dict[str, Any] | None = None,
    under: str | None = None,
    *,
    but: str | None = None,
) -> Any:
    """What the names of the page are when its code has run, in order, as it is printed."""
    names = {"__name__": "page"} | (names or {})
    found = blocks(page, under, but=but)
    assert found
    for block in found:
        block.run(names)
    return names


def pages_of(session: str) -> list[str]:
    return [page for page, sessions in PAGES.items() if session in sessions]
