"""`cosanneal evaluate --regression`: what the predictions of a regression are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import CosannealError, EnsembleError, plural, shown
from .arrays import load_array
from .console import needs_package, outside, print_findings
from .scores import comparisons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..ensemble import Choice


def check_regression(regression: bool, quantiles: str | None, of_classes: bool) -> None:
    """Refuse options that cannot be together.

    Args:
        regression: whether it is one.
        quantiles: those given.
        of_classes: whether an option of classes is given.
    """
    if not regression and quantiles is not None:
        raise CosannealError(
            "Option --quantiles must be given with --regression. "
            f"Received: --quantiles={quantiles} alone"
        )
    if regression and of_classes:
        raise CosannealError(
            "Option --regression must be given without --logits, --class-axis, --outcomes, "
            "--ignore-index, --mask, --sample-weight and --classes, which are of classes. "
            "Received: one of them"
        )


def evaluate_regression(
    files: Sequence[Path],
    targets_file: Path,
    validation_files: Sequence[Path],
    validation_targets: Path | None,
    chosen: Path | None,
    baselines: tuple[Path | None, Path | None],
    quantiles: str | None,
    *,
    options: dict[str, Any],
) -> tuple[dict[str, Any], Choice | None]:
    """The part `regression` of a results document for members in files, and the choice.

    Args:
        files: the members', each an array of the targets' shape, or with the means and the
            variances along a first axis more.
        targets_file: the truth.
        validation_files: the same members' for data to choose by; none to choose nothing.
        validation_targets: their truth.
        chosen: a choice that was made before.
        baselines: another model's, and the same model's for the data to choose by.
        quantiles: which the last axis of each member has, with commas between.
        options: of `fit_regression`.
    """
    # Imported here, so that other commands need no numpy.
    with needs_package("Evaluating predictions"):
        from ..ensemble import Choice, analyze_regression, fit_regression
    levels = None if quantiles is None else _quantiles(quantiles)
    members, targets, outputs = _read(files, targets_file, levels)
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    given: dict[str, Any] = {"outputs": outputs, "quantiles": levels}
    choice = None
    if chosen is not None:
        choice = Choice.load(chosen)
        short = [name.removesuffix(".safetensors") for name in choice.members]
        if names not in (list(choice.members), short) or choice.outputs != outputs:
            raise CosannealError(
                "Option --choice must be a choice among the members of --predictions, which are "
                "known by their files' names, oldest first, and of such outputs. Received: one "
                f"among {shown(choice.members)} of {choice.outputs!r}, for {shown(tuple(names))} "
                f"of {outputs!r}"
            )
        names = list(choice.members)
    if validation_targets is not None:
        test = {path.resolve() for path in [*files, targets_file]}
        shared = test & {path.resolve() for path in [*validation_files, validation_targets]}
        if shared:
            raise CosannealError(
                "The validation data must not be those that are reported, or the choice would be "
                f"reported on the data that it was made on. Received: {min(shared)} as both"
            )
        held_out, truth, same = _read(validation_files, validation_targets, levels)
        if len(held_out) != len(members) or same != outputs:
            raise CosannealError(
                "Options --predictions and --validation-predictions must match the same members. "
                f"Received: {plural(len(members), 'file')} of {outputs!r} and {len(held_out)} of "
                f"{same!r}"
            )
        other = _other(baselines[1], validation_targets, levels, outputs)
        choice = fit_regression(held_out, truth, names=names, baseline=other, **given, **options)
    other, seed = _other(baselines[0], targets_file, levels, outputs), options["seed"]
    document = analyze_regression(
        members, targets, names=names, choice=choice, seed=seed, baseline=other, **given
    )
    for row, file in zip(document["members"], files, strict=True):
        row["file"] = str(file)
    return document, choice


def _other(
    file: Path | None, targets_file: Path, levels: tuple[float, ...] | None, outputs: str
) -> NDArray[Any] | None:
    """Another model's outputs, of the members' kind."""
    if file is None:
        return None
    (found,), _, kind = _read([file], targets_file, levels)
    if kind != outputs:
        raise CosannealError(
            "The baseline's file must hold variances where the members' do. "
            f"Received: {kind!r} in {file}, for members of {outputs!r}"
        )
    return found


def show_regression(console: Console, document: dict[str, Any]) -> None:
    """Print a table of the scores, and what was chosen."""
    from ..ensemble.score.regression import REGRESSION_TITLES

    members, ensembles, chosen = (document[key] for key in ("members", "ensembles", "chosen"))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Model", overflow="fold")
    columns = _columns(document)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    others = (document.get("last_calibrated"), document.get("baseline"))
    scored = [row for row in (*members, *ensembles, chosen, *others) if row]

    def add(title: str, row: dict[str, Any], *, end: bool) -> None:
        cells = []
        for _, name, place in columns:
            value = row.get(name) if place is None else row.get(name, {place: None})[place]
            least = min((each[name] for each in scored if name in each), default=None)
            bold = place is None and len(scored) > 1 and value is not None and value == least
            share = name in ("coverage", "calibration", "crossing")
            text = "" if value is None else f"{100 * value:.2f}" if share else f"{value:.4g}"
            cells.append(Text(text, style="bold" if bold else ""))
        table.add_row(outside(title), *cells, end_section=end)

    for i, row in enumerate(members):
        add(row["name"], row, end=i == len(members) - 1)
    for i, row in enumerate(ensembles):
        add(f"Mean of the last {row['last']}", row, end=i == len(ensembles) - 1)
    if chosen:
        add(f"Chosen: {_what(document['choice'])}", chosen, end=True)
    if "last_calibrated" in document:
        add("The last alone, own variance", document["last_calibrated"], end=True)
    if "baseline" in document:
        add("Baseline", document["baseline"], end=True)
    console.print(f"{plural(document['samples'], 'sample')}, {plural(len(members), 'member')}.")
    console.print(table)
    choice = document["choice"]
    if choice:
        used = [member for member in choice["members"] if member["weight"] > 0]
        what = ", ".join(f"{member['name']} {member['weight']:.3f}" for member in used)
        told = REGRESSION_TITLES.get(choice["metric"], choice["metric"])
        samples = plural(choice["samples"], "other sample")
        console.print(outside(f"Chosen by {told} on {samples}: {what}."))
        if choice["noise"] is not None:
            noise = ", ".join(f"{each:.4g}" for each in choice["noise"])
            scale = f"{choice['variance_scale']:.3g}"
            console.print(f"Variance: {scale} times that between the members, and {noise}.")
        elif choice["variance_scale"] != 1:
            console.print(f"Variance: {choice['variance_scale']:.3g} times the members'.")
    elif ensembles:
        console.print(
            "Nothing was chosen: that takes --validation-predictions and --validation-labels."
        )
    for sentence, rows in comparisons(document):
        console.print(sentence)
        for row in rows:
            low, high = row["interval"]
            console.print(
                f"  {row['metric']:13}{row['difference']:>+11.4g}   {low:+.4g} to {high:+.4g}   "
                f"p = {row['p_value']:.2g}"
            )
    print_findings(console, document["findings"])


def _what(choice: dict[str, Any]) -> str:
    used = sum(member["weight"] > 0 for member in choice["members"])
    if choice["select"] == "last":
        return f"the last {used}"
    how = "greedily" if choice["select"] == "greedy" else "weights"
    return f"{how}, {used} of {len(choice['members'])}"


def _columns(document: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    """Of each column its heading, the score, and which of several numbers it is."""
    names = {"rmse": "RMSE", "mae": "MAE", "gaussian_nll": "NLL", "pinball": "Pinball"}
    rows = [*document["members"], *([document["chosen"]] if document["chosen"] else [])]
    levels = document["levels"] if document["quantiles"] is None else document["quantiles"]
    what = "In {:.4g} %, %" if document["quantiles"] is None else "Below {:.4g} %, %"
    found: list[tuple[str, str, int | None]] = [
        *((heading, name, None) for name, heading in names.items()),
        *((what.format(100 * level), "coverage", i) for i, level in enumerate(levels)),
        ("Calibration, %", "calibration", None),
        ("Crossing, %", "crossing", None),
    ]
    return [each for each in found if any(each[1] in row for row in rows)]


def _quantiles(text: str) -> tuple[float, ...]:
    from ..ensemble.score.quantiles import check_quantiles

    try:
        return check_quantiles([float(part) for part in text.split(",")])
    except (ValueError, EnsembleError):
        raise CosannealError(
            "Option --quantiles must be increasing numbers between 0 and 1 with commas between. "
            f"Received: {text!r}; give such as --quantiles=0.1,0.5,0.9"
        ) from None


def _read(
    files: Sequence[Path], targets_file: Path, quantiles: tuple[float, ...] | None
) -> tuple[list[NDArray[Any]], NDArray[Any], str]:
    """The members' outputs, the targets, and which outputs they are: by their shapes alone."""
    targets = load_array(targets_file)
    members, kinds = [], []
    more = () if quantiles is None else (len(quantiles),)
    for file in files:
        member = load_array(file)
        shapes = {(*targets.shape, *more): "values", (*targets.shape, 1): "values"}
        if quantiles is None:
            shapes |= {
                (2, *targets.shape): "gaussian",
                (2, *targets.shape, 1): "gaussian",
                targets.shape[:-1] if targets.shape[-1:] == (1,) else targets.shape: "values",
            }
        if member.shape not in shapes:
            wanted = f"{(*targets.shape, *more)}"
            pair = "" if quantiles else f", or {(2, *targets.shape)} with variances after the means"
            raise CosannealError(
                f"{file} must be of shape {wanted} for the targets in {targets_file}{pair}. "
                f"Received: shape {member.shape}"
            )
        members.append(member)
        kinds.append(shapes[member.shape])
        if kinds[-1] != kinds[0]:
            raise CosannealError(
                f"The members' files must all hold variances, or none. Received: {kinds[0]!r} in "
                f"{files[0]}, {kinds[-1]!r} in {file}"
            )
    return members, targets, kinds[0]
