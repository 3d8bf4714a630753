"""`cosanneal export --card`: a folder to ship, with a model card of measured scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import CosannealError, EnsembleError
from .arrays import load_array
from .shipping import Shipping

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PANEL = "A folder to ship"


def _option(*names: str, **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_PANEL, show_default=False, **options)


AsCard = Annotated[
    bool,
    _option(
        "--card",
        help="Write a folder as --out: the file, a model card as the Hugging Face hub has them, "
        "the choice, and the report page.",
    ),
]
LabelsOfInput = Annotated[
    Path | None,
    _option(
        "--labels",
        help="The labels (or targets) of --input, of data that nothing was trained or chosen on: "
        "the scores of the card.",
        metavar="FILE.NPY",
    ),
]
Name = Annotated[str | None, _option(help="The model's name in the card.")]
Task = Annotated[
    str | None,
    _option(help="The hub's name of the task, such as image-classification.", metavar="TASK"),
]
Dataset = Annotated[str | None, _option(help="The name of the data of --labels.", metavar="NAME")]


@dataclass(frozen=True, slots=True)
class Described:
    """What was said of a card.

    Args:
        labels: the file of the labels.
        name: the model's.
        task: its task.
        dataset: that of the labels.
    """

    labels: Path | None
    name: str | None
    task: str | None
    dataset: str | None

    def check(self, card: bool, input: Sequence[str] | None) -> None:  # noqa: A002
        """Refuse what does not go together.

        Args:
            card: whether there is to be a card.
            input: the files of the samples.
        """
        given = {f"--{name}": getattr(self, name) for name in ("labels", "name", "task", "dataset")}
        for option, value in given.items():
            if value is not None and not card:
                raise CosannealError(
                    f"Option {option} must be given with --card. Received: it alone"
                )
        if self.labels is not None and not input:
            raise CosannealError(
                "Option --labels must be given with --input, whose labels they are. Received: it "
                "with --shape"
            )
        if self.dataset is not None and self.labels is None:
            raise CosannealError(
                "Option --dataset must be given with --labels, which are of it. Received: it alone"
            )


def check_folder(out: Path, force: bool) -> Path:
    """The folder to write, which must not be there but with --force."""
    from ..report.folder import check_model_folder

    try:
        return check_model_folder(out, force)
    except CosannealError as error:
        raise CosannealError(_in_options(str(error))) from error


def write_folder(
    out: Path,
    shipping: Shipping,
    described: Described,
    x: NDArray[Any],
    *,
    folder: str,
    format: str,  # noqa: A002
    held: str | None,
    class_axis: Any,
    force: bool,
    predicted: list[NDArray[Any]],
    write: Callable[[Path], tuple[int, float] | None],
) -> None:
    """Write the folder.

    Args:
        out: the folder.
        shipping: the ensemble.
        described: what was said of it.
        x: the samples.
        folder: of the snapshots.
        format: of what is exported.
        held: the dtype of its members, if it is not their own.
        class_axis: as it was given.
        force: whether a folder is replaced.
        predicted: the outputs of the ensemble for the samples.
        write: writes what is exported; see `write_model_folder`.
    """
    from ..ensemble import folder_results
    from ..report import Card, write_model_folder

    ensemble = shipping.ensemble
    results = folder_results(folder, choice=False)
    intervals: Mapping[str, tuple[float, float]] = {}
    if described.labels is not None:
        labels = load_array(described.labels)
        found = ensemble.evaluate(x, labels)
        if "outputs" in found:
            results["regression"] = found
            if found["quantiles"] is None:
                intervals = _regression_intervals(predicted, labels)
        else:
            results["analysis"] = found
            intervals = _intervals(predicted, labels, class_axis)
    elif ensemble.choice is not None:
        results["choice"] = ensemble.choice.to_dict()
    weights = [1.0] * len(ensemble) if ensemble.choice is None else ensemble.choice.weights
    members = zip(ensemble.members, weights, strict=True)
    card = Card(
        format=format,
        shape=x.shape[1:],
        dtype=_dtype(ensemble, x, format),
        members=[each.path.name for each, weight in members if weight],
        name=described.name,
        task=described.task,
        dataset=described.dataset,
        intervals=intervals,
        framework=str(ensemble.members[0].metadata["framework"]),
        held=held,
    )
    try:
        write_model_folder(out, write, card, results, overwrite=force)
    except EnsembleError:
        raise
    except CosannealError as error:
        raise CosannealError(_in_options(str(error))) from error


def _intervals(
    predicted: list[NDArray[Any]], labels: NDArray[Any], class_axis: Any
) -> dict[str, tuple[float, float]]:
    """The bootstrap intervals of the scores; none of several outputs."""
    from ..ensemble import bootstrap_interval, sample_scores
    from ..ensemble.score.metrics import METRICS

    if len(predicted) != 1:
        return {}
    (p,) = predicted
    axis = class_axis
    if axis == "auto":
        axis = None if labels.shape == p.shape else -1
        if axis == -1 and p.ndim != 2:
            raise CosannealError(
                "Option --class-axis must be given for the scores of outputs of more than two "
                f"axes. Received: outputs of shape {p.shape}"
            )
    return {
        name: bootstrap_interval(sample_scores(name, p, labels, class_axis=axis))
        for name in METRICS
    }


def _regression_intervals(
    predicted: list[NDArray[Any]], targets: NDArray[Any]
) -> dict[str, tuple[float, float]]:
    """Those of the mean, which is the first of the outputs."""
    from ..ensemble import bootstrap_interval, regression_scores

    squared, absolute = (
        bootstrap_interval(regression_scores(name, predicted[0], targets))
        for name in ("mse", "mae")
    )
    low, high = (math.sqrt(each) for each in squared)
    return {"rmse": (low, high), "mae": absolute}


def _dtype(ensemble: Any, x: NDArray[Any], format: str) -> str:  # noqa: A002
    """The dtype of the input: of floats that of the weights, which exports are made for."""
    if x.dtype.kind != "f":
        return str(x.dtype)
    if format == "stablehlo":  # which takes what it was traced with, and JAX has no float64
        return "float32" if x.dtype == "float64" else str(x.dtype)
    dtypes = (dtype for _, dtype in ensemble.members[0].layout().values())
    return next((each for each in dtypes if "float" in each), "float32")


def _in_options(message: str) -> str:
    message = message.replace("The folder to ship", "Option --out").replace(
        "The folder to replace", "The folder of option --out"
    )
    return message.replace("overwrite=True", "--force")
