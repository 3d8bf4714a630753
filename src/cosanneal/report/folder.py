"""A folder to ship: what was exported, its choice, its report and its model card."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..core.atomic import sync_folder, sync_tree
from ..core.errors import CosannealError, human_size, shown
from ..core.paths import kind_of, local_path
from ..ensemble.choose.choice import Choice
from ..ensemble.results import check_results, write_results
from .card import FILES, Card, card_text
from .page import write_report
from .words import choice_of, regression_choice_of

CARD: Final = "README.md"
_MARK: Final = "library_name: cosanneal"
# All that stands in such a folder; one with anything else is not replaced.
_OURS: Final = frozenset(
    {CARD, "ensemble.json", "results.json", "report.html", "report_files", *FILES.values()}
)


def check_model_folder(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The path of a folder to ship, where one may be written.

    Args:
        out: the folder.
        overwrite: whether it may replace one that was written before.

    Raises:
        CosannealError: something is there that may not be replaced, or no folder to write into.
    """
    path = local_path(out)
    if kind_of(path.parent) != "folder":
        raise CosannealError(
            "The folder to ship must lead into a folder that is there. Received: "
            f"{shown(str(out))}; make that first"
        )
    if not os.path.lexists(path):
        return path
    if not overwrite:
        raise CosannealError(
            f"The folder to ship must not be there yet. Received: {path}; choose another name, or "
            "replace it with overwrite=True"
        )
    inside = [] if path.is_symlink() or not path.is_dir() else path.iterdir()
    others = sorted(each.name for each in inside)
    strange = [each for each in others if each not in _OURS]
    if not others or strange or not _is_ours(path / CARD):
        found = f", with {strange[0]!r} in it" if strange else ""
        raise CosannealError(
            "The folder to replace must be one that was shipped, and hold nothing else. Received: "
            f"{path}{found}; choose another name"
        )
    return path


def write_model_folder(
    out: str | os.PathLike[str],
    export: Callable[[Path], tuple[int, float] | None],
    card: Card,
    results: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a folder to ship: what is exported, the choice, the report and a model card.

    `README.md` is a card as the Hugging Face hub has them: a front matter with `library_name`,
    `tags` and, where scores were measured, the `model-index`; how to load the model, its scores
    with their intervals beside those of the last snapshot, its members, and what is not known.
    With it stand the file (or folder) `ensemble` with the ending of its format, `results.json`,
    `report.html` with its figures, and `ensemble.json` if there is a choice.

    The folder has its name when all of it is written and durable. One that is there is put aside
    first, and comes back if that fails.

    Args:
        out: the folder; the one above it must be there.
        export: writes the exported file, or folder, under the path that it is handed: such as
            `lambda path: export_ensemble(ensemble, path, x, format="onnx")` of an adapter. It may
            run it and return on how many samples it was compared with the ensemble, and by how
            much it differed at most; or None.
        card: what the card says beside the results.
        results: the results document, as `cosanneal.ensemble.results` describes it: the part
            `analysis` or `regression` has the scores, `choice` the choice, `snapshots` the steps.
        overwrite: whether a folder that was shipped before is replaced; never any other, nor
            one with files that are not of it, such as `.git`.

    Returns:
        The folder.

    Raises:
        EnsembleError: no such document; or as `export`.
        CosannealError: the folder is there, or cannot be written; a document without anything to
            report; or `export` wrote nothing.

    Example:
        >>> from cosanneal.ensemble import analyze
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> results = {"format": "cosanneal.results", "version": 1, "title": "two members"}
        >>> results["analysis"] = analyze(members, [0, 1], names=["a", "b"])
        >>> card = Card(format="onnx", shape=(4,), dtype="float32", members=["a", "b"])
        >>> out = Path(tempfile.mkdtemp()) / "shipped"
        >>> made = write_model_folder(out, lambda path: path.touch(), card, results)
        >>> sorted(each.name for each in made.iterdir())
        ['README.md', 'ensemble.onnx', 'report.html', 'report_files', 'results.json']

    Source: Mitchell et al., "Model Cards for Model Reporting" (2019).
    """
    path = check_model_folder(out, overwrite)
    results = check_results(results)
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        ) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            _fill(made, export, card, results)
            sync_tree(made)
            check_model_folder(path, overwrite)  # it may have come meanwhile
            _put(made, path)
        sync_folder(path.parent)
    except OSError as error:
        raise CosannealError(f"{path} could not be written: {error.strerror or error}") from error
    return path


def _fill(
    made: Path,
    export: Callable[[Path], tuple[int, float] | None],
    card: Card,
    results: dict[str, Any],
) -> None:
    exported = made / card.file
    compared = export(exported)
    kind = kind_of(exported)
    if kind not in ("file", "folder"):
        raise CosannealError(
            "Argument `export` must write a file or a folder under the path that it is handed. "
            f"Received: nothing is at {exported.name}"
        )
    digest = ""
    if kind == "file":
        with exported.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = sum(each.stat().st_size for each in (exported, *exported.rglob("*")) if each.is_file())
    choice = choice_of(results) or regression_choice_of(results)
    if choice is not None:
        Choice.from_dict(choice).save(made / "ensemble.json")
    write_results(results, made / "results.json")
    write_report(results, made / "report.html")
    text = card_text(card, results, human_size(size), digest, compared)
    (made / CARD).write_text(text, encoding="utf-8", newline="\n")


def _put(made: Path, path: Path) -> None:
    """Give a folder its name; what had it before comes back if that fails."""
    if not os.path.lexists(path):
        made.rename(path)
        return
    before = path.with_name(f".{path.name}.{secrets.token_hex(4)}.before")
    path.rename(before)
    try:
        made.rename(path)
    except BaseException:
        before.rename(path)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _is_ours(card: Path) -> bool:
    try:
        with card.open(encoding="utf-8") as file:
            return file.readline().strip() == "---" and file.readline().strip() == _MARK
    except (OSError, UnicodeDecodeError):
        return False
