"""Tests of a framework stand in a folder or a file of their own, which needs its packages.

`pytest tests/adapters/FRAMEWORK` fails where one is missing; a run over all tests leaves the
folder out instead, since only the framework's own session installs them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest


def left_out(
    place: str, packages: tuple[str, ...], path: Path, config: pytest.Config
) -> bool | None:
    """What `pytest_ignore_collect` of a conftest.py returns for a folder or file of tests/."""
    paths = (config.invocation_params.dir / arg.split("::")[0] for arg in config.args)
    asked = any(f"/tests/{place}/" in f"{path.as_posix()}/" for path in paths)
    missing = [name for name in packages if find_spec(name) is None]
    return True if missing and not asked and path.suffix == ".py" else None
