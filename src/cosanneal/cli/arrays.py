"""Arrays in files, as the commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import open_regular
from ..core.errors import CosannealError
from ..core.paths import local_path

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_array(file: Path) -> NDArray[Any]:
    """The array of a .npy file, which is read where it is needed.

    Raises:
        CosannealError: the file cannot be read, or is another kind of file.
    """
    import numpy as np

    path = local_path(file)
    try:
        with open_regular(path, remedy="give the array's own file") as opened:
            start = opened.read(6)
        # numpy advises to trust, as a pickle, whatever else it finds.
        if start.startswith(b"PK"):
            raise CosannealError(
                f"{file} must be a .npy file of one array. Received: a .npz archive; save each "
                "member with numpy.save"
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
