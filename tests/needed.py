"""Tests of a framework stand in a folder of their own, which needs that framework's packages.

`pytest tests/FOLDER` fails where one is missing; a run over all tests leaves the
folder out instead, since only the framework's own session installs them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest


def left_out(
    folder: str, packages: tuple[str, ...], path: Path, config: pytest.Config
) -> bool | None:
    """What `pytest_ignore_collect` of the folder's conftest.py returns."""
    asked = any(folder in Path(arg.split("::")[0]).parts for arg in config.args)
    missing = [name for name in packages if find_spec(name) is None]
    return True if missing and not asked and path.suffix == ".py" else None
