"""`cosanneal export`: the ensemble of a folder as one file, compared in its runtime."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..core.errors import (
    CosannealError,
    EnsembleError,
    MissingExtraError,
    human_size,
    plural,
    shown,
)
from ..core.paths import kind_of, local_path, url_of
from .card import AsCard, Dataset, Described, LabelsOfInput, Name, Task, check_folder, write_folder
from .console import needs_package, output_console, outside, print_error, print_note
from .functions import called, named_function
from .samples import Input, InputDtype, Samples, Shape, samples_of
from .shipping import FORMATS, SHIPPINGS, Shipping
from .without import Without, left_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..snapshots import Snapshot
    from ..snapshots.beside import Beside

_DIFFERS = 1  # the exit code when the file gives other numbers than the ensemble


class Format(StrEnum):
    """What is written."""

    ONNX = "onnx"
    PT2 = "pt2"
    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    STABLEHLO = "stablehlo"


class Outputs(StrEnum):
    """What the model returns."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    GAUSSIAN = "gaussian"


class Held(StrEnum):
    """In which dtype the members are."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


# How far a file may be from the ensemble: of such members four of the spacings that their dtype
# has at 1, since each layer rounds.
_TOLERANCES: Final = {None: 1e-05, Held.BFLOAT16: 4 * 2.0**-7, Held.FLOAT16: 4 * 2.0**-10}

Folder = Annotated[
    str,
    typer.Argument(
        help="The folder of the snapshots, or its URL.", metavar="FOLDER", show_default=False
    ),
]
ModelFunction = Annotated[
    str,
    typer.Option(
        help="A function without arguments, found from the current folder, that builds the "
        "model of the snapshots: a torch.nn.Module or a Keras model; of JAX it returns the "
        "apply function and params.",
        metavar="MODULE:FUNCTION",
        show_default=False,
    ),
]
FormatToWrite = Annotated[
    Format,
    typer.Option(
        help="What to write: onnx or pt2 (torch); keras, savedmodel or onnx (Keras); "
        "stablehlo (JAX).",
        metavar="FORMAT",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.", show_default=False)]
ChoiceFile = Annotated[
    Path | None,
    typer.Option(
        help="The ensemble that was chosen, as its save wrote it; by default the folder's "
        "ensemble.json, and where there is none the mean of the members.",
        metavar="FILE",
        show_default=False,
    ),
]
Last = Annotated[
    int | None,
    typer.Option(min=1, help="Only the newest so many.", metavar="N", show_default=False),
]
OutputsAre = Annotated[
    Outputs | None,
    typer.Option(
        help="What the model returns: logits, probabilities, values or gaussian; by default "
        "found out.",
        metavar="WHAT",
        show_default=False,
    ),
]
ClassAxis = Annotated[
    str | None,
    typer.Option(
        help="The axis of the classes, or none where each number is an outcome of its own; by "
        "default found out.",
        metavar="N|none",
        show_default=False,
    ),
]
HeldIn = Annotated[
    Held | None,
    typer.Option(
        "--dtype",
        help="Hold the members' weights in bfloat16 or float16, which halves the file, and compute "
        "in it: what the members give, so rounded. ONNX takes float16 alone.",
        metavar="DTYPE",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="The largest difference to the ensemble that is let pass, of numbers above 1 "
        "relative to them; by default 1e-05, with --dtype 0.031 (bfloat16) or 0.0039 (float16).",
        metavar="X",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace the file, or the folder of --card, if it exists."),
]


def export(
    folder: Folder,
    model: ModelFunction,
    format: FormatToWrite,  # noqa: A002
    out: Out,
    input: Input = None,  # noqa: A002
    shape: Shape = None,
    input_dtype: InputDtype = None,
    choice: ChoiceFile = None,
    last: Last = None,
    without: Without = None,
    outputs: OutputsAre = None,
    class_axis: ClassAxis = None,
    dtype: HeldIn = None,
    tolerance: Tolerance = None,
    card: AsCard = False,
    labels: LabelsOfInput = None,
    name: Name = None,
    task: Task = None,
    dataset: Dataset = None,
    force: Force = False,
) -> None:
    """Write the ensemble of a folder as one file, and compare it with the ensemble.

    The file takes a batch of any size of what the model takes, and holds the members that
    count, their weights and the temperature. It is opened in its runtime, where that is
    installed, and run on the samples: if it gives other numbers than the ensemble, the
    exit code is 1, and the file stays. With --card it is a folder with all that a person
    needs who gets it, and a file that gives other numbers is not written.
    """
    _check_dtype(dtype, format, labels)
    if tolerance is None:
        tolerance = _TOLERANCES[dtype]
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise CosannealError(
            "Option --tolerance must be a finite number of at least 0. "
            f"Received: {shown(tolerance)}"
        )
    described = Described(labels, name, task, dataset)
    described.check(card, input)
    if card:
        with needs_package("Writing a report"):
            path = check_folder(out, force)
    else:
        path = _target(out, format, force)
    with needs_package("Reading snapshots"):
        framework = _framework_of(folder, format)
    samples = samples_of(input, shape, input_dtype)
    if card and len(samples.arrays) > 1:
        raise CosannealError(
            "Option --card must be given for a model of one input. Received: it with "
            f"{len(samples.arrays)} inputs; leave it out, which writes the file alone"
        )
    options: dict[str, Any] = {
        "last": last,
        "members": None if not without else _members_without(folder, without, last),
        "outputs": "auto" if outputs is None else outputs.value,
        "class_axis": _axis(class_axis),
    }
    function = named_function(model, "--model")
    saved = _choice_file(folder, choice)
    with _in_options():
        shipping = SHIPPINGS[framework](
            lambda: called(function, model, "--model"),
            model,
            folder,
            options,
            samples,
            None if dtype is None else dtype.value,
        )
        ensemble = shipping.ensemble
        if saved is not None:
            ensemble.load(None if saved.remote is not None else saved.path)
        wanted = [_predicted(shipping, each) for each in (samples, samples.first())]
        said = _members(ensemble, saved)

        def write(file: Path) -> tuple[int, float] | None:
            return _write(shipping, file, samples, wanted, format.value, tolerance, out, said, card)

        if not card:
            write(path)
            return
        write_folder(
            path,
            shipping,
            described,
            samples.arrays[0],
            folder=folder,
            format=format.value,
            held=None if dtype is None else dtype.value,
            class_axis=options["class_axis"],
            force=force,
            predicted=wanted[0],
            write=write,
        )
    output_console().print(outside(f"Wrote the folder {out}, with its README.md"), soft_wrap=True)


def _check_dtype(dtype: Held | None, format: Format, labels: Path | None) -> None:  # noqa: A002
    """Refuse what cannot be with a dtype of the members."""
    if dtype is Held.BFLOAT16 and format is Format.ONNX:
        raise CosannealError(
            "Option --dtype must be float16 for --format onnx, whose runtime does not compute in "
            "bfloat16 on the host. Received: bfloat16"
        )
    if dtype is not None and labels is not None:
        raise CosannealError(
            "Option --labels must be given without --dtype: the scores of a card are those of the "
            f"members as they were trained. Received: it with --dtype {dtype.value}; score what "
            "the file gives"
        )


def _write(
    shipping: Shipping,
    path: Path,
    samples: Samples,
    wanted: list[list[NDArray[Any]]],
    format: str,  # noqa: A002
    tolerance: float,
    out: Path,
    said: str,
    in_folder: bool,
) -> tuple[int, float] | None:
    """Write what is exported, and compare it; on how many samples, and how far it is off."""
    begun = time.perf_counter()
    shipping.write(path, shipping.take(samples), format)
    taken = time.perf_counter() - begun
    console = output_console()
    console.print(outside(said), soft_wrap=True)
    size = sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())
    # A folder has its name once all of it is there.
    name = Path(path.name) if in_folder else out
    done = "Exported" if in_folder else "Wrote"
    console.print(
        outside(f"{done} {name}: {format}, {human_size(size)}, in {taken:.1f} s"), soft_wrap=True
    )
    try:
        found = [
            shipping.run(path, shipping.take(each), format) for each in (samples, samples.first())
        ]
    except MissingExtraError as error:
        print_note(f"Note: The file was not compared with the ensemble. {error}")
        return None
    count = len(samples)
    return count, _compare(found, wanted, tolerance, name, count, stays=not in_folder)


def _predicted(shipping: Shipping, samples: Samples) -> list[NDArray[Any]]:
    """What the ensemble predicts; the model may not take such samples at all."""
    try:
        return shipping.arrays(shipping.ensemble.predict(shipping.take(samples)))
    except CosannealError:
        raise
    except Exception as error:
        what = str(error).strip().partition("\n")[0]
        shapes = " and ".join(str(each.shape) for each in samples.arrays)
        batch = "a batch of shape" if len(samples.arrays) == 1 else "batches of the shapes"
        raise CosannealError(
            f"The model must take the samples of {samples.origin}. Received: "
            f"{type(error).__name__}: {what}, of {batch} {shapes}; the shape is that of one "
            "sample, without the batch"
        ) from error


def _target(out: Path, format: Format, force: bool) -> Path:  # noqa: A002
    """The file to write, which must not be there but with --force."""
    from ..snapshots.export import check_target

    path = local_path(out)
    if format is Format.KERAS and path.suffix != ".keras":
        raise CosannealError(f"Option --out must end in .keras for --format keras. Received: {out}")
    try:
        check_target(path, force, what="an export", error=CosannealError)
    except CosannealError as error:
        raise CosannealError(str(error).replace("overwrite=True", "--force")) from error
    if kind_of(path) == "folder":
        raise CosannealError(
            f"Option --out must not lead to a folder that is there. Received: {out}; choose "
            "another name, or remove it"
        )
    if kind_of(path.parent) != "folder":
        raise CosannealError(
            f"Option --out must lead into a folder that is there. Received: {out}; make the folder "
            "first"
        )
    return path


def _members_without(
    folder: str, without: Sequence[str], last: int | None
) -> Callable[[Snapshot], bool]:
    """Which snapshots of the folder are members."""
    snapshots = _listed(folder)
    gone = {each.path.name for each in left_out(snapshots, without, f"folder {folder}")}
    if len(snapshots) - len(gone) < (last or 1):
        wanted = "at least one snapshot" if last is None else f"the {last} snapshots of --last"
        raise CosannealError(
            f"Folder {folder} must hold {wanted} beside those of --without. "
            f"Received: {len(snapshots) - len(gone)}"
        )
    return lambda snapshot: snapshot.path.name not in gone


def _listed(folder: str) -> list[Snapshot]:
    """The snapshots of a folder, which must have some."""
    from ..snapshots.sources import Sources

    if url_of(folder) is None and kind_of(local_path(folder)) != "folder":
        raise CosannealError(
            f"Argument FOLDER must be a folder of snapshots. Received: {folder}, no such folder"
        )
    snapshots: list[Snapshot] = Sources(folder, name="Argument FOLDER", error=CosannealError).list()
    if not snapshots:
        from ..snapshots.below import runs_below

        below = "" if url_of(folder) is not None else runs_below([local_path(folder)])
        hint = f"; {below}" if below else ""
        raise CosannealError(
            f"Folder {folder} must hold at least one snapshot. Received: none{hint}"
        )
    return snapshots


def _framework_of(folder: str, format: Format) -> str:  # noqa: A002
    """The framework of a folder's snapshots, of which the format must be one."""
    framework = str(_listed(folder)[-1].metadata["framework"])
    if framework not in FORMATS:
        raise CosannealError(
            f"The snapshots must be of {' or '.join(FORMATS)}. Received: "
            f"{shown(framework)} in {folder}"
        )
    if format.value not in FORMATS[framework]:
        raise CosannealError(
            f"Option --format must be {' or '.join(FORMATS[framework])} for snapshots of "
            f"{framework}. Received: {format.value}"
        )
    return framework


def _axis(text: str | None) -> Any:
    if text is None or text == "none":
        return "auto" if text is None else None
    if not re.fullmatch(r"-?[0-9]{1,3}", text):
        raise CosannealError(
            f"Option --class-axis must be an integer, or none. Received: {shown(text)}"
        )
    return int(text)


def _choice_file(folder: str, choice: Path | None) -> Beside | None:
    """Where the choice is: the file that was given, or the folder's own."""
    from ..ensemble.members import CHOICE_NAME
    from ..snapshots import SnapshotStore
    from ..snapshots.beside import Beside

    if choice is not None:
        return Beside(local_path(choice))
    if url_of(folder) is not None:
        own = SnapshotStore(folder).beside(CHOICE_NAME)
    else:
        own = Beside(local_path(folder) / CHOICE_NAME)  # named as the user names it
    return own if own.exists() else None


@contextlib.contextmanager
def _in_options() -> Iterator[None]:
    """Errors with the library's arguments named as the options they are."""
    try:
        yield
    except EnsembleError as error:
        message = re.sub(
            r"Argument `(outputs|class_axis|last)`",
            lambda match: f"Option --{match[1].replace('_', '-')}",
            str(error),
        )
        message = message.replace("among those of members=", "beside those of --without")
        message = re.sub(
            r"; to have it otherwise, give .*",
            "; give --input or --shape once for each, as NAME=... where it takes them by name",
            message,
            flags=re.DOTALL,
        )
        message = re.sub(r"\boutputs=['\"](\w+)['\"]", r"--outputs \1", message)
        message = re.sub(
            r"\bclass_axis=(-?\d+|None)",
            lambda match: f"--class-axis {match[1].lower()}",
            message,
        )
        raise CosannealError(message) from error


def _members(ensemble: Any, saved: Beside | None) -> str:
    """What the ensemble is, in one line."""
    if saved is None:
        return f"The mean of {plural(len(ensemble), 'member')}; no choice was saved"
    choice = ensemble.choice
    weights = ", ".join(f"{each:.3g}" for each in choice.weights if each)
    counted = sum(map(bool, choice.weights))
    return (
        f"{plural(counted, 'member')} of {len(choice.weights)} with the weights {weights}, "
        f"temperature {choice.temperature:.3g}, chosen in {saved}"
    )


def _compare(
    found: list[list[NDArray[Any]]],
    wanted: list[list[NDArray[Any]]],
    tolerance: float,
    out: Path,
    samples: int,
    *,
    stays: bool = True,
) -> float:
    """Say how far the file is from the ensemble, and exit with an error if it is too far."""
    import numpy as np

    then = "it stays, but do not use it" if stays else "nothing was written"

    worst = 0.0
    for those, these in zip(found, wanted, strict=True):
        shapes = [[each.shape for each in several] for several in (those, these)]
        if shapes[0] != shapes[1]:
            print_error(
                f"{out} must give arrays of the ensemble's shapes, {shapes[1]}. "
                f"Received: {shapes[0]}; {then}"
            )
            raise typer.Exit(_DIFFERS)
        for one, other in zip(those, these, strict=True):
            wide = np.asarray(other, np.float64)
            apart = abs(np.asarray(one, np.float64) - wide) / np.maximum(1, abs(wide))
            if apart.size:
                worst = max(worst, math.inf if np.isnan(apart).any() else float(apart.max()))
    if not worst <= tolerance:
        print_error(
            f"{out} must differ from the ensemble by at most {tolerance:g}. Received: {worst:.1e} "
            f"on {plural(samples, 'sample')}; {then}, or give --tolerance"
        )
        raise typer.Exit(_DIFFERS)
    output_console().print(
        f"It differs from the ensemble by at most {worst:.1e} on {plural(samples, 'sample')} "
        f"(limit {tolerance:g})",
        soft_wrap=True,
    )
    return worst
