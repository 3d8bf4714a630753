"""The option `--without` of the commands that take several snapshots: which are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..snapshots import Snapshot

Without = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out this snapshot, by its cycle's number or its file's name, before the "
        "newest are counted. May be given several times.",
        metavar="CYCLE|NAME",
        show_default=False,
    ),
]


def left_out(snapshots: Sequence[Snapshot], without: Sequence[str], where: str) -> list[Snapshot]:
    """Those of the snapshots that `--without` names.

    Args:
        snapshots: oldest first.
        without: what was given: numbers of cycles and names of files.
        where: what holds the snapshots, for the messages.

    Raises:
        EnsembleError: one that is not there, that stands for several, or is given twice.
    """
    from ..ensemble.members import choose_members

    names = [int(each) if re.fullmatch(r"[0-9]{1,20}", each) else each for each in without]
    return choose_members(snapshots, names, where=where, name="Option --without")
