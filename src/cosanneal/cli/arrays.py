"""Arrays in files, as patterns name them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import open_regular
from ..core.errors import CosannealError
from ..core.paths import local_path

if TYPE_CHECKING:
    from numpy.typing import NDArray


def matching(patterns: Sequence[str], option: str) -> list[Path]:
    """The files of the patterns, each pattern's in the order of their names."""
    found: list[Path] = []
    for pattern in patterns:
        # A name with brackets is a pattern too, which would match other files.
        local_path(pattern)  # which refuses a URL
        wide = os.path.expanduser(pattern)  # noqa: PTH111, for a pattern is no path
        there = os.path.lexists(wide)
        names = [wide] if there else glob.glob(wide, recursive=True)  # noqa: PTH207
        if not names:
            raise CosannealError(
                f"Option {option} must match at least one file. Received: {pattern!r}, which "
                f"matches none from the folder {Path.cwd()}"
            )
        found += sorted(map(Path, names), key=_by_number)
    return found


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """A key by which `m2` stands before `m10`."""
    return [
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.split(r"([0-9]+)", str(path))
    ]


def load_array(file: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped into memory."""
    import numpy as np

    path = local_path(file)
    try:
        with open_regular(path, remedy="give the array's own file") as opened:
            start = opened.read(6)
        # numpy advises to trust, as a pickle, whatever else it finds.
        if start.startswith(b"PK"):
            raise CosannealError(
                f"{file} must be a .npy file of one array. Received: a .npz archive, of "
                "several; save the one that is meant, with numpy.save"
            )
        if start != b"\x93NUMPY":
            received = "another kind of file" if start else "an empty file"
            raise CosannealError(
                f"{file} must be a .npy file of numbers. Received: {received}; save the array "
                "with numpy.save"
            )
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise CosannealError(f"{file} could not be read: {error.strerror or error}") from error
    except (ValueError, OverflowError, EOFError) as error:
        raise CosannealError(
            f"{file} could not be read as a .npy file of numbers: {error}"
        ) from error
    return found
