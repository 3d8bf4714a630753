"""`cosanneal inspect`, `verify` and `average`: what a folder of snapshots holds, and its mean."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from ..core.errors import CosannealError, EnsembleError, SnapshotError, human_size, plural
from ..core.paths import kind_of, lasting_path, local_path, url_of
from .console import needs_package, output_console, outside, print_error, print_note, visible
from .without import Without, left_out

if TYPE_CHECKING:
    from ..snapshots import Snapshot

_DAMAGED = 1  # the exit code when a snapshot is not what was written
_GAP = 3  # characters between two columns of a table
_MOST_STEPS = 5
_STATISTIC = re.compile(
    r"(^|[./])((running_mean|running_var|moving_mean|moving_variance)$|batch_stats[./])"
)
_MOST_ROWS = 100  # of a table in a terminal, unless more are asked for

Folders = Annotated[
    list[str],
    typer.Argument(
        help="The folder of the snapshots, or several; or files of single ones. Of an object store "
        "the URL.",
        metavar="FOLDER...",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def inspect(
    folders: Folders,
    last: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Look at the newest so many of each folder; by default all, of which a terminal "
            f"shows the newest {_MOST_ROWS}.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the snapshots of folders: their steps, sizes, metrics and tensors.

    Only the headers are read, each of which is compared with its digest; see
    `verify` for the tensors. A snapshot whose header cannot be read is named,
    and the exit code is 1. One of weights that were not finite is marked.
    """
    snapshots = _snapshots(folders)
    found: dict[Path, list[Snapshot]] = {folder: [] for folder in map(_folder_of, folders)}
    for snapshot in snapshots:
        found[snapshot.path.parent].append(snapshot)
    shown = {_folder_of(folder): _shown(folder) for folder in folders}
    described = {
        folder: [_describe(each) for each in snapshots[-(last or len(snapshots)) :]]
        for folder, snapshots in found.items()
    }
    rows = [row for each in described.values() for row in each]
    if as_json:
        from ..snapshots.metadata import without_nan

        whole = [
            {"folder": shown[folder], **row} for folder, each in described.items() for row in each
        ]
        document = {"folders": [*shown.values()], "snapshots": without_nan(whole)}
        typer.echo(json.dumps(document, indent=2))
    else:
        console = output_console()
        for folder, each in described.items():
            most = _MOST_ROWS if last is None and console.is_terminal else len(each)
            _show(each, shown[folder], console, most=most, there=len(found[folder]))
    _exit_if_any(row["error"] for row in rows)


def verify(folders: Folders, as_json: AsJson = False) -> None:
    """Read the snapshots of folders to the last byte and compare them with their digests.

    Those that are not what was written are named, and the exit code is 1. Named
    are also those with a NaN or an infinity: whole, but of no use to an ensemble.
    A folder without snapshots is refused.
    """
    snapshots = _at_least(1, folders, "at least one snapshot")
    from ..snapshots.sources import names_of

    rows: list[dict[str, Any]] = []
    with _progress("verifying", map(_size, snapshots)) as advance:
        for snapshot, name in names_of(snapshots).items():
            rows.append({"name": name, "error": None, "nonfinite": None})
            try:
                snapshot.verify(advance)
                # Also of those that were written before it was noted.
                rows[-1]["nonfinite"] = snapshot.first_nonfinite()
            except SnapshotError as error:
                rows[-1]["error"] = str(error)
    damaged = [row["error"] for row in rows if row["error"] is not None]
    if as_json:
        typer.echo(json.dumps({"folders": folders, "snapshots": rows}, indent=2))
    else:
        for message in damaged:
            print_error(message)
        for row in rows:
            if row["nonfinite"] is not None:
                print_note(
                    f"Note: {row['name']} is not finite: it has a NaN or an infinity in its tensor "
                    f"{row['nonfinite']!r}. It is whole, but an ensemble or an average refuses it."
                )
        whole = f"{len(snapshots) - len(damaged)} of {plural(len(snapshots), 'snapshot')}"
        output_console().print(outside(f"Whole: {whole} in {_joined(folders)}"), soft_wrap=True)
    _exit_if_any(row["error"] for row in rows)


def average(
    folders: Folders,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The safetensors file to write.", show_default=False)
    ],
    last: Annotated[
        int | None,
        typer.Option(min=1, help="Average the newest so many; by default all.", metavar="N"),
    ] = None,
    without: Without = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the mean of the snapshots of folders as one safetensors file of weights.

    Of several folders, the newest are the last ones in the order given. A piece of
    each is in memory at a time. Sums are in float64. Integers and bools have no
    mean: the newest snapshot's are taken. Running statistics (BatchNorm) are
    averaged like weights, which is said, and no loss is measured: an ensemble's
    `average_weights` in Python estimates them anew and measures it. A snapshot with
    a NaN or an infinity is refused.
    """
    wanted = "at least one snapshot" if last is None else f"the {last} snapshots of --last"
    snapshots = _at_least(last or 1, folders, wanted, without or ())
    with needs_package("Reading snapshots"):
        from ..ensemble import average_snapshots
    members = snapshots if last is None else snapshots[-last:]
    with _progress("averaging", map(_size, members)) as advance:
        try:
            differing = average_snapshots(members, out, overwrite=force, progress=advance)
        except EnsembleError as error:
            message = str(error).replace("overwrite=True", "--force")
            message = message.replace("leave it out of `snapshots`", "leave it out by --without")
            raise EnsembleError(message) from error
    statistics = _running_statistics(members[-1].layout())
    if as_json:
        from ..snapshots.sources import names_of

        document = {
            "out": str(out),
            "bytes": local_path(out).stat().st_size,
            "averaged": list(names_of(members).values()),
            "taken_from_newest_though_different": list(differing),
            "running_statistics_averaged": statistics,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    steps = ", ".join(str(snapshot.step) for snapshot in members)
    console = output_console()
    console.print(
        outside(f"Averaged {plural(len(members), 'snapshot')} (step {steps}) into {out}"),
        soft_wrap=True,
    )
    if differing:
        console.print(
            outside(f"Taken from the newest, for integers have no mean: {', '.join(differing)}"),
            soft_wrap=True,
        )
    if statistics:
        console.print(
            outside(
                "The loss of the mean was not measured, and BatchNorm's running statistics were "
                f"averaged ({statistics[0]}, ...): average_weights in Python estimates them anew "
                "and measures the loss"
            ),
            soft_wrap=True,
        )
    else:
        console.print(
            "The loss of the mean was not measured: average_weights in Python does it",
            soft_wrap=True,
        )


def _running_statistics(names: Iterable[str]) -> list[str]:
    """Those that are running statistics, by the names that PyTorch, Keras and Flax give them."""
    return [name for name in names if _STATISTIC.search(name)]


def _snapshots(folders: Sequence[str]) -> list[Snapshot]:
    with needs_package("Reading snapshots"):
        from ..snapshots.sources import Sources
    for folder in folders:
        if url_of(folder) is None and kind_of(local_path(folder, error=SnapshotError)) is None:
            raise CosannealError(
                "Argument FOLDER must be a folder, or the file of a snapshot. "
                f"Received: {folder}, no such folder"
            )
    given = folders[0] if len(folders) == 1 else folders
    return Sources(given, name="Argument FOLDER", error=CosannealError).list()


def _folder_of(given: str) -> Path:
    """The folder that a path is, or whose file it is; of a URL that of the local copies."""
    url = _folder_at(given)
    if url is not None:
        from ..snapshots import SnapshotStore

        return SnapshotStore(url).folder
    path = lasting_path(given, error=SnapshotError)
    return path.parent if kind_of(path) == "file" else path


def _shown(given: str) -> str:
    """The same, as it was given."""
    url, path = _folder_at(given), Path(given)
    if url is not None:
        return url
    return str(path.parent if kind_of(local_path(path)) == "file" else path)


def _folder_at(given: str) -> str | None:
    """The URL of a folder, or of that of a snapshot; None of a local one."""
    url = url_of(given)
    return re.sub(r"/cycle-[^/]*\.safetensors$", "", url) if url is not None else None


def _joined(folders: Sequence[str]) -> str:
    return " and ".join(folders)


def _at_least(
    count: int, folders: Sequence[str], wanted: str, without: Sequence[str] = ()
) -> list[Snapshot]:
    snapshots = _snapshots(folders)
    several = "s" if len(folders) > 1 else ""
    if without:
        gone = left_out(snapshots, without, f"folder{several} {_joined(folders)}")
        snapshots = [snapshot for snapshot in snapshots if snapshot not in gone]
        wanted += " beside those of --without"
    if len(snapshots) < count:
        from ..snapshots.below import runs_below

        here = [local_path(each) for each in folders if url_of(each) is None]
        below = "" if snapshots or without else runs_below(here)
        raise CosannealError(
            f"Folder{several} {_joined(folders)} must hold {wanted}. Received: {len(snapshots)}"
            + (f"; {below}" if below else "")
        )
    return snapshots


def _size(snapshot: Snapshot) -> int:
    try:
        return snapshot.size
    except OSError:  # deleted since it was listed: reading it says so
        return 0


@contextlib.contextmanager
def _progress(what: str, sizes: Iterator[int]) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on stderr, so that what is piped is the result alone."""
    console = Console(stderr=True)
    if not console.is_terminal:  # where older releases of rich leave a line behind
        yield lambda _: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=sum(sizes))
        yield lambda count: bar.advance(task, count)


def _describe(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as plain data; where it cannot be read, `error` says why."""
    from ..snapshots.file import count_bytes

    row: dict[str, Any] = {
        "name": snapshot.path.name,
        "cycle": snapshot.cycle,
        "step": snapshot.step,
        "bytes": _size(snapshot),
        "written": None,
        "error": None,
    }
    try:
        written = snapshot.written
        row["written"] = written and written.isoformat(timespec="seconds")
        layout, metadata = snapshot.layout(), snapshot.metadata
    except OSError as error:
        row["error"] = f"Snapshot {snapshot.path} could not be read: {error.strerror or error}"
    except SnapshotError as error:
        row["error"] = str(error)
    else:
        names = ("framework", "versions", "digest", "rate", "metrics", "nonfinite")
        row |= {name: metadata[name] for name in names}
        row["tensors"] = len(layout)
        row["left_out"] = None if metadata["rest"] is None else len(metadata["rest"])
        sizes: Counter[str] = Counter()
        for shape, dtype in layout.values():
            sizes[dtype] += count_bytes(shape, dtype)
        row["dtypes"] = dict(sizes.most_common())
    return row


def _show(
    rows: Sequence[dict[str, Any]], folder: str, console: Console, *, most: int, there: int
) -> None:
    """Show what was read of so many snapshots that are there, and of the newest a table."""
    size = human_size(sum(row["bytes"] for row in rows))
    of = "" if len(rows) == there else f"{len(rows)} of "
    console.print(
        Text.assemble((of + plural(there, "snapshot"), "bold"), visible(f" in {folder}, {size}")),
        soft_wrap=True,
    )
    if not rows:
        return
    whole = [row for row in rows if row["error"] is None]
    for contents in dict.fromkeys(map(_contents, whole)):
        alike = [row for row in whole if _contents(row) == contents]
        where = "" if len(alike) == len(whole) else f" ({_steps(alike)})"
        console.print(outside(contents + where))
    named = [row["error"] for row in rows if row["error"] is not None]
    rows = rows[-most:]
    columns: dict[str, list[Text]] = {
        "cycle": [Text(str(row["cycle"])) for row in rows],
        "step": [Text(str(row["step"])) for row in rows],
        "rate": [
            Text(f"{row['rate']:.4g}") if row["error"] is None else Text("damaged", "red")
            for row in rows
        ],
        "size": [Text(human_size(row["bytes"])) for row in rows],
        "written": [Text(_local(row)) for row in rows],
    }
    if any(row.get("nonfinite") is not None for row in rows):
        columns["finite"] = [
            Text("no", "red") if row.get("nonfinite") is not None else Text() for row in rows
        ]
    names = dict.fromkeys(name for row in rows for name in row.get("metrics", ()))
    room = console.width - sum(_width(heading, cells) for heading, cells in columns.items())
    left_out = []
    for name in names:
        heading, cells = visible(name), [_metric(row, name) for row in rows]
        if (width := _width(heading, cells)) <= room and heading not in columns:
            columns[heading] = cells
            room -= width
        else:
            left_out.append(heading)
    headings = (Column(Text(heading), justify="right") for heading in columns)
    table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for line in zip(*columns.values(), strict=True):
        table.add_row(*line)
    console.print(table)
    if left_out:
        console.print(Text(f"--json also has: {', '.join(left_out)}", style="dim"))
    if most < there:
        older = f"{there - len(rows)} older ones are not in the table: --last {there} shows them"
        console.print(Text(older, style="dim"))
    for row in whole:
        if row["nonfinite"] is not None:
            where = f"{row['name']} is not finite, first in its tensor {row['nonfinite']!r}"
            print_note(f"Note: {where}; an ensemble or an average refuses it.")
    for error in named:
        print_error(error)


def _width(heading: str, cells: Sequence[Text]) -> int:
    return max(cell_len(heading), *(cell.cell_len for cell in cells)) + _GAP


def _steps(rows: Sequence[dict[str, Any]]) -> str:
    steps = ", ".join(str(row["step"]) for row in rows[:_MOST_STEPS])
    more = f" and {len(rows) - _MOST_STEPS} more" if len(rows) > _MOST_STEPS else ""
    return f"step {steps}{more}"


def _metric(row: dict[str, Any], name: str) -> Text:
    if row["error"] is not None or name not in row["metrics"]:
        return Text()
    value = row["metrics"][name]
    return outside(f"{value:.4g}" if isinstance(value, float) else str(value))


def _contents(row: dict[str, Any]) -> str:
    """The tensors of a snapshot, in short."""
    framework = row["framework"]
    version = row["versions"].get(framework, "")
    dtypes = ", ".join(f"{name} {human_size(size)}" for name, size in row["dtypes"].items())
    tensors = plural(row["tensors"], "tensor")
    if row["left_out"] is not None:
        tensors = f"{row['tensors']} of {row['tensors'] + row['left_out']} tensors, a part,"
    return f"{tensors} of {framework} {version}: {dtypes}"


def _local(row: dict[str, Any]) -> str:
    if row["written"] is None:
        return ""
    return f"{datetime.fromisoformat(row['written']).astimezone():%Y-%m-%d %H:%M}"


def _exit_if_any(errors: Iterable[str | None]) -> None:
    if any(error is not None for error in errors):
        raise typer.Exit(_DAMAGED)
