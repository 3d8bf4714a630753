"""Which modules have examples in their docstrings, and whether those run as they are printed."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import cosanneal

SOURCE = Path(cosanneal.__file__).parents[1]


def modules_with_examples(*packages: str) -> list[str]:
    """Every module of the packages that shows an example, at whatever depth."""
    folders = (SOURCE.joinpath(*package.split(".")) for package in packages)
    files = sorted(
        file
        for folder in folders
        for file in (folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")])
    )
    return [
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if re.search(r"^ *>>> ", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def check_examples(module: str) -> None:
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0
