"""Small packages to try the checks on."""

from __future__ import annotations

import textwrap
from pathlib import Path


def write(source: Path, files: dict[str, str]) -> Path:
    """A package of these files, by their place in it; all its folders get an `__init__.py`."""
    source.mkdir(parents=True, exist_ok=True)
    for place, code in files.items():
        path = source / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code), encoding="utf-8")
    for folder in {path.parent for path in source.rglob("*.py")} | {source}:
        (folder / "__init__.py").touch()
    return source
