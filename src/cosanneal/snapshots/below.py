"""The runs in a folder of runs, for an error where one of them is meant."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from .names import SNAPSHOT_NAME

_MOST: Final = 3  # runs that are named


def runs_below(folders: Iterable[Path]) -> str:
    """What to say of runs in folders that hold no snapshots themselves; nothing without one.

    Args:
        folders: the folders, here; they need not be there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> run = folder / "digits"
        >>> run.mkdir()
        >>> (run / "cycle-0001-step-0000000010.safetensors").touch()
        >>> runs_below([folder]) == f"give a run in it, such as {run}"
        True
    """
    found = (run for folder in folders for run in _folders_of(folder) if _is_run(run))
    runs = ", ".join(map(str, islice(found, _MOST)))
    return f"give a run in it, such as {runs}" if runs else ""


def _folders_of(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    try:
        return any(SNAPSHOT_NAME.fullmatch(each.name) for each in folder.iterdir())
    except OSError:
        return False
