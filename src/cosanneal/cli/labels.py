"""Options of `cosanneal evaluate`: which labels count, how much, and their names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.documents import open_regular
from ..core.errors import CosannealError, shown
from ..core.paths import local_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PANEL = "Labels"


def _file(help_text: str) -> Any:
    return typer.Option(help=help_text, metavar="FILE", rich_help_panel=_PANEL, show_default=False)


IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        help="Leave out labels of this number, such as -100 or 255.",
        metavar="N",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Mask = Annotated[
    Path | None,
    _file("A .npy file of the labels' shape: true (or 1) where a label counts."),
]
SampleWeight = Annotated[
    Path | None,
    _file("A .npy file: how much each sample, or each label, counts."),
]
Classes = Annotated[
    Path | None,
    _file(
        "The labels' names, in the order of the outputs: a .json list, or a text file with one "
        "on each line."
    ),
]
ValidationMask = Annotated[Path | None, _file("As --mask, of the validation data.")]
ValidationSampleWeight = Annotated[
    Path | None, _file("As --sample-weight, of the validation data.")
]

# The largest file of names that is read.
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Counted:
    """Which labels count, as the options say it.

    Args:
        ignore_index: the number of those that do not.
        classes: the file of the names.
        files: those of the mask and of the weights.
        validation_files: those of the validation data.
    """

    ignore_index: int | None
    classes: Path | None
    files: Sequence[Path | None]
    validation_files: Sequence[Path | None]

    @property
    def given(self) -> bool:
        """Whether any of it is said."""
        said = (self.ignore_index, self.classes, *self.files, *self.validation_files)
        return any(each is not None for each in said)

    def options(
        self,
        load: Callable[[Path], NDArray[Any]],
        files: Sequence[Path | None],
        labels: NDArray[Any],
    ) -> dict[str, Any]:
        """What the scores take, with the mask and the weights in the files."""
        classes = None if self.classes is None else read_classes(self.classes)
        if classes and labels.dtype.kind in "biuf":
            # The lines of a text are texts, also those of numbers.
            classes = [_number(name) for name in classes]
        mask, weights = (None if file is None else load(file) for file in files)
        return {
            "ignore_index": self.ignore_index,
            "classes": classes,
            "mask": mask,
            "sample_weight": weights,
        }


def _number(name: Any) -> Any:
    return int(name) if isinstance(name, str) and re.fullmatch("-?[0-9]{1,18}", name) else name


def read_classes(file: Path) -> list[Any]:
    """The names of the classes in a file."""
    path = local_path(file)
    try:
        with open_regular(path, remedy="give the names' own file") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise CosannealError(
                f"{file} must be a list of names. Received: more than {_MOST_BYTES >> 20} MiB"
            )
        text = content.decode()
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except OSError as error:
        raise CosannealError(f"{file} could not be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CosannealError(f"{file} could not be read as a list of names: {error}") from error
    if not isinstance(found, list) or not all(isinstance(name, str | int) for name in found):
        raise CosannealError(
            f"{file} must be a list of texts or integers. Received: {shown(found)}"
        )
    return found
