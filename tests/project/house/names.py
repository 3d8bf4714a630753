"""What files are called, and that each begins by saying what it is for."""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

from .source import read

# The longest first. One that changes a word's sense is left out: "store" and "storage" are two.
ENDINGS = ("ings", "ions", "ors", "ers", "ing", "ion", "ed", "er", "es", "is", "or", "s")
SHORTEST_ROOT = 3


def found(source: Path) -> list[str]:
    """Names in one folder that differ by an ending, and files that begin without a docstring."""
    return [*_alike(source), *_unsaid(source)]


def root(name: str) -> str:
    """What is left of a file's name without its ending: "averag" of average, averages, averaged."""
    name = name.rstrip("_0123456789") or name
    ending = next((each for each in ENDINGS if name.endswith(each)), "")
    if len(name) - len(ending) >= SHORTEST_ROOT and not name.endswith("ss"):
        name = name.removesuffix(ending)
    name = name.rstrip("e")
    return name[:-1] if name[-2:-1] == name[-1:] else name  # plan, planning; class, classes


def _alike(source: Path) -> list[str]:
    lines = []
    for folder in sorted({path.parent for path in source.rglob("*.py")}):
        # A file and a folder may differ by the ending as little as two files.
        folders = [path for path in folder.iterdir() if any(path.glob("*.py"))]
        entries = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        named = sorted((root(path.stem), path.name) for path in [*entries, *folders])
        for _, group in groupby(named, key=lambda each: each[0]):
            names = [name for _, name in group]
            if len(names) > 1:
                where = ".".join((source.name, *folder.relative_to(source).parts))
                lines.append(f"{where} has names that differ by an ending: {', '.join(names)}")
    return lines


def _unsaid(source: Path) -> list[str]:
    return [
        f"{module} begins without a docstring"
        for module, file in read(source).items()
        if ast.get_docstring(file.tree) is None
        and (file.path.name != "__init__.py" or file.text.strip())
    ]
