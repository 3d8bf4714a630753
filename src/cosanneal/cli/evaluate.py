"""`cosanneal evaluate`: what predictions of any origin are worth, alone and together."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import CosannealError, EnsembleError, plural, shown
from ..core.paths import local_path
from .arrays import load_array
from .console import needs_package, output_console, outside, print_note
from .regression import check_regression, evaluate_regression, show_regression
from .report import write_page
from .uncertainty import Alpha, Elsewhere, Risk, check_elsewhere, show_uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..ensemble import Choice
    from ..ensemble.predict.outputs import Auto

# An option of each panel of the help.
_data, _choice, _output = (
    functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Choice", "Output")
)

# Of each score its heading, what it is multiplied by, and its digits.
_COLUMNS = {
    "error": ("Error, %", 100, 2),
    "log_loss": ("Log-loss", 1, 4),
    "brier": ("Brier", 1, 4),
    "ece": ("ECE, %", 100, 2),
}


class _Select(StrEnum):
    LAST = "last"
    GREEDY = "greedy"
    WEIGHTS = "weights"


class _Metric(StrEnum):
    LOG_LOSS = "log_loss"
    BRIER = "brier"
    ERROR = "error"
    MSE = "mse"
    MAE = "mae"
    GAUSSIAN_NLL = "gaussian_nll"
    CRPS = "crps"
    PINBALL = "pinball"


# A pattern that the shell has matched leaves arguments over, to be refused with what to do.
CONTEXT = {"allow_extra_args": True}

_Predictions = Annotated[
    list[str],
    _data(
        help="The members' predictions: .npy files by a quoted pattern, such as "
        "'test/*.npy', oldest first by name; numbers in names count as numbers. May be "
        "given several times.",
        metavar="PATTERN",
        show_default=False,
    ),
]
_Labels = Annotated[
    Path, _data(help="The true classes (or targets), a .npy file.", show_default=False)
]
_ValidationPredictions = Annotated[
    list[str] | None,
    _data(
        help="The same members' predictions for validation data, in the same order: to "
        "choose an ensemble and its temperature by.",
        metavar="PATTERN",
        show_default=False,
    ),
]
_ValidationLabels = Annotated[
    Path | None, _data(help="The true classes of the validation data.", show_default=False)
]
_Logits = Annotated[bool, _data("--logits", help="The files hold logits.")]
_ClassAxis = Annotated[
    int | None,
    _data(
        help="The axis of the classes; by default the last one. It must be given for logits of "
        "more than two axes.",
        show_default=False,
    ),
]
_Outcomes = Annotated[
    bool,
    _data(
        "--outcomes",
        help="Each number stands for an outcome of its own (binary, multi-label), and the "
        "labels are 0 or 1.",
    ),
]
_Regression = Annotated[
    bool,
    _data(
        "--regression",
        help="The files hold values of a regression, of the targets' shape, or means and "
        "variances, along a first axis more.",
    ),
]
_Quantiles = Annotated[
    str | None,
    _data(
        help="With --regression: which quantiles lie along the last axis, such as 0.1,0.5,0.9.",
        metavar="Q,Q,...",
        show_default=False,
    ),
]
_SelectBy = Annotated[
    _Select,
    _choice(
        help="How to choose: last, the best last m; greedy, one by one with replacement; or "
        "weights, the best ones.",
        metavar="HOW",
    ),
]
_MetricToUse = Annotated[
    _Metric | None,
    _choice(
        help="By which score to choose: log_loss (by default), brier or error; of a regression "
        "mse, mae, gaussian_nll, crps or pinball.",
        metavar="SCORE",
        show_default=False,
    ),
]
_Temperature = Annotated[
    bool, _choice(help="Fit one temperature after pooling; of a regression, the variance.")
]
_Seed = Annotated[int, _choice(min=0, help="Of the intervals.", metavar="N")]
_Chosen = Annotated[
    Path | None,
    _choice(
        "--choice",
        help="In place of validation data: the ensemble that was chosen before among the same "
        "members, as --save or a fitted ensemble's save wrote it.",
        metavar="FILE",
        show_default=False,
    ),
]
_Save = Annotated[
    Path | None,
    _output(
        help="Write the choice to this JSON file; --choice reads it, for other data.",
        show_default=False,
    ),
]
_Report = Annotated[
    Path | None,
    _output(
        help="Write all of it as a page to this .html file, with its figures beside it.",
        show_default=False,
    ),
]
_AsJson = Annotated[bool, _output("--json", help="Print JSON.")]


def evaluate(
    context: typer.Context,
    predictions: _Predictions,
    labels: _Labels,
    validation_predictions: _ValidationPredictions = None,
    validation_labels: _ValidationLabels = None,
    logits: _Logits = False,
    class_axis: _ClassAxis = None,
    outcomes: _Outcomes = False,
    regression: _Regression = False,
    quantiles: _Quantiles = None,
    select: _SelectBy = _Select.LAST,
    metric: _MetricToUse = None,
    temperature: _Temperature = True,
    seed: _Seed = 0,
    chosen: _Chosen = None,
    ood: Elsewhere = None,
    risk: Risk = 0.05,
    alpha: Alpha = 0.1,
    save: _Save = None,
    report: _Report = None,
    as_json: _AsJson = False,
) -> None:
    """Score the predictions of several models, and the ensembles of the last of them.

    With predictions for validation data too, an ensemble is chosen and
    calibrated on those alone, and scored like the others. What the members say of
    their uncertainty is scored too. Arrays may come from any framework; each file
    holds one member's, of shape (samples, classes).
    """
    if context.args:
        others = f" and {len(context.args) - 1} more after it" if len(context.args) > 1 else ""
        raise CosannealError(
            "Options --predictions and --validation-predictions must each be followed by one "
            f"pattern. Received: {context.args[0]!r}{others}; quote a pattern, as in "
            "'test/*.npy', so that the shell hands it on as it is"
        )
    if (validation_predictions is None) != (validation_labels is None):
        given = "labels" if validation_predictions is None else "predictions"
        raise CosannealError(
            "Options --validation-predictions and --validation-labels must be given together. "
            f"Received: --validation-{given} alone"
        )
    if chosen is not None and validation_labels is not None:
        raise CosannealError(
            "Option --choice must be given without validation data, on which an ensemble would be "
            "chosen anew. Received: both"
        )
    if save is not None and validation_labels is None:
        raise CosannealError(
            "Option --save must be given with --validation-predictions and --validation-labels, "
            "on which the choice is made. Received: neither of them"
        )
    check_regression(regression, quantiles, logits or outcomes or class_axis is not None)
    # What is wrong with these is said before anything is computed.
    if save is not None:
        local_path(save)
    if report is not None:
        from ..report.page import check_page

        check_page(report)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            inputs = (
                _matching(predictions, "--predictions"),
                labels,
                _matching(validation_predictions or [], "--validation-predictions"),
                validation_labels,
                chosen,
            )
            options: dict[str, Any] = {"select": select.value, "seed": seed}
            if regression:
                options |= {"metric": metric and metric.value, "variance": temperature}
                document, choice = evaluate_regression(
                    *inputs, quantiles=quantiles, options=options
                )
            else:
                chosen_by = (metric or _Metric.LOG_LOSS).value
                options |= {"metric": chosen_by, "temperature": temperature}
                document, choice = _evaluate(
                    *inputs,
                    _matching(ood or [], "--ood"),
                    logits=logits,
                    class_axis=None if outcomes else "auto" if class_axis is None else class_axis,
                    wanted={"risk": risk, "alpha": alpha},
                    options=options,
                )
        except EnsembleError as error:
            raise CosannealError(_in_options(str(error))) from error
    if choice is not None and save is not None:
        choice.save(save)
    wrote = None if report is None else _report(document, report)
    for warning in caught:
        print_note(f"Note: {_in_options(str(warning.message))}.")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        (show_regression if regression else _show)(output_console(), document)
    if wrote is not None:
        print_note(wrote)


def _matching(patterns: Sequence[str], option: str) -> list[Path]:
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


def _evaluate(
    files: Sequence[Path],
    labels_file: Path,
    validation_files: Sequence[Path],
    validation_labels: Path | None,
    chosen: Path | None,
    ood: Sequence[Path],
    *,
    logits: bool,
    class_axis: int | Auto | None,
    wanted: dict[str, float],
    options: dict[str, Any],
) -> tuple[dict[str, Any], Choice | None]:
    # Imported here, so that other commands need no numpy.
    with needs_package("Evaluating predictions"):
        from ..ensemble import Choice, analyze, analyze_uncertainty, fit
    if class_axis == "auto" and chosen is not None:
        class_axis = Choice.load(chosen).class_axis
    elif class_axis == "auto":
        class_axis = _last_axis(files[0], logits=logits)
    members, labels = _read(files, labels_file, logits=logits, class_axis=class_axis)
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    strange = _read(ood, None, logits=logits, class_axis=class_axis)[0] if ood else None
    if strange is not None:
        check_elsewhere(members, strange, class_axis)
    held_out: tuple[Any, Any] | None = None
    choice = None
    if chosen is not None:
        choice, names = _chosen(chosen, names, class_axis)
    if validation_labels is not None:
        test = {path.resolve() for path in [*files, labels_file]}
        shared = test & {path.resolve() for path in [*validation_files, validation_labels]}
        if shared:
            raise CosannealError(
                "The validation data must not be those that are reported, or the choice would be "
                f"reported on the data that it was made on. Received: {min(shared)} as both"
            )
        if len(validation_files) != len(files):
            raise CosannealError(
                "Options --predictions and --validation-predictions must match the same members. "
                f"Received: {len(files)} files and {len(validation_files)}"
            )
        held_out = _read(validation_files, validation_labels, logits=logits, class_axis=class_axis)
        choice = fit(*held_out, names=names, class_axis=class_axis, **options)
    document = analyze(
        members, labels, names=names, choice=choice, class_axis=class_axis, seed=options["seed"]
    )
    for row, file in zip(document["members"], files, strict=True):
        row["file"] = str(file)
    document["uncertainty"] = analyze_uncertainty(
        *(members, labels),
        choice=choice,
        class_axis=class_axis,
        held_out=held_out,
        ood=strange,
        seed=options["seed"],
        **wanted,
    )
    return document, choice


def _last_axis(file: Path, *, logits: bool) -> int:
    """The axis of the classes where none is given; any axis of logits has a softmax."""
    shape = load_array(file).shape
    if logits and len(shape) > 2:
        raise CosannealError(
            "Option --class-axis must be given for logits of more than two axes. Received: "
            f"{shape} in {file}; give --class-axis=1 for images as PyTorch has them, "
            "--class-axis=-1 where the classes lie along the last axis, or --outcomes"
        )
    return -1


def _chosen(file: Path, names: list[str], class_axis: int | None) -> tuple[Choice, list[str]]:
    """A choice that was saved, and its names of the members, which must be these."""
    from ..ensemble import Choice

    choice = Choice.load(file)
    if names not in (
        list(choice.members),
        [name.removesuffix(".safetensors") for name in choice.members],
    ):
        raise CosannealError(
            "Option --choice must be a choice among the members of --predictions, which are known "
            f"by their files' names, oldest first. Received: one among {shown(choice.members)}, "
            f"for {shown(tuple(names))}"
        )
    if choice.class_axis != class_axis:
        was = "--outcomes" if choice.class_axis is None else f"--class-axis {choice.class_axis}"
        raise CosannealError(
            f"Option --choice must be of predictions of one kind. Received: one made with {was}; "
            "give that here too"
        )
    return choice, list(choice.members)


def _read(
    files: Sequence[Path], labels_file: Path | None, *, logits: bool, class_axis: int | None
) -> tuple[list[NDArray[Any]], Any]:
    """The members' probabilities and the labels, if any, checked; an error names the file."""
    from ..ensemble import pool
    from ..ensemble.arrays import as_labels, as_rows, check_class_axis
    from ..ensemble.predict.found import FoundOutputs

    found = FoundOutputs("logits", class_axis, "probabilities", None)
    labels = None if labels_file is None else load_array(labels_file)
    members: list[NDArray[Any]] = []
    for file in files:
        member = load_array(file)
        if members and member.shape != members[0].shape:
            raise CosannealError(
                f"The members' predictions must have one shape. Received: {member.shape} in "
                f"{file}, after {members[0].shape} in {files[0]}"
            )
        try:
            if logits:
                check_class_axis(member.shape, class_axis, "Logits")
                found.look(member, [str(file)])
                member = pool([member], inputs="logits", class_axis=class_axis)
            as_rows(member, class_axis)
        except EnsembleError as error:
            raise EnsembleError(f"{file}: {error}") from error
        members.append(member)
    try:
        if labels is not None:
            as_labels(labels, members[0].shape, class_axis)
    except EnsembleError as error:
        raise EnsembleError(f"{labels_file}, for {files[0]}: {error}") from error
    return members, labels


# The words of the library for what is an option, or a file, here; longer ones first.
_OUR_WORDS = {
    "make probabilities of logits first": "if they are logits, give --logits",
    # Files hold no regressions.
    "for a regression give outputs='values', for": "for",
    "(binary, multi-label) class_axis=None": "(binary, multi-label) give --outcomes",
    "give class_axis=None": "give --outcomes",
    "if the input has none, its weights make the model overflow: leave the member out by "
    "members=": "leave the file out",
    "Argument `metric` must be 'log_loss'": "Option --metric must be log_loss",
    "Arguments `probabilities` and `labels`": "Probabilities and labels",
    "Argument `probabilities`": "The probabilities",
    "Argument `labels`": "The labels",
    "Argument `alpha`": "Option --alpha",
    "alpha=": "--alpha=",
}


def _in_options(message: str) -> str:
    """An error's text with the library's arguments named as the options, or files, they are."""
    for words, ours in _OUR_WORDS.items():
        message = message.replace(words, ours)
    message = re.sub(
        r", since the ensemble was given outputs='logits'(\. If they are probabilities), .*",
        r"\1, leave out --logits",
        message,
    )
    return re.sub(r"\b(select|metric)='(\w+)'", r"--\1=\2", message)


def _report(analysis: dict[str, Any], page: Path) -> str:
    """Write the page; returns what to say of it."""
    from ..ensemble.results import FORMAT, VERSION

    samples = plural(analysis["samples"], "sample", ",")
    title = f"{plural(len(analysis['members']), 'member')} on {samples}"
    part = "regression" if "outputs" in analysis else "analysis"
    parts = {part: {**analysis}}
    if "uncertainty" in analysis:
        parts["uncertainty"] = parts[part].pop("uncertainty")
    results = {"format": FORMAT, "version": VERSION, "title": title, **parts}
    return write_page(results, page)


def _show(console: Console, document: dict[str, Any]) -> None:
    members, ensembles = document["members"], document["ensembles"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Model", overflow="fold")
    for heading, _, _ in _COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    scored = [*members, *ensembles, *([document["chosen"]] if document["chosen"] else [])]
    least = {name: min(row[name] for row in scored) for name in _COLUMNS}

    def add(title: str, row: dict[str, Any], *, end: bool) -> None:
        cells = [
            Text(
                f"{row[name] * scale:.{digits}f}", style="bold" if row[name] == least[name] else ""
            )
            for name, (_, scale, digits) in _COLUMNS.items()
        ]
        table.add_row(outside(title), *cells, end_section=end)

    for i, row in enumerate(members):
        add(row["name"], row, end=i == len(members) - 1)
    for i, row in enumerate(ensembles):
        add(f"Mean of the last {row['last']}", row, end=i == len(ensembles) - 1)
    if document["chosen"]:
        add(_title(document["choice"]), document["chosen"], end=True)
    console.print(f"{plural(document['samples'], 'sample')}, {plural(len(members), 'member')}.")
    console.print(table)
    for sentence in _sentences(document):
        console.print(outside(sentence))
    show_uncertainty(console, document["uncertainty"])


def _title(choice: dict[str, Any]) -> str:
    used = [member for member in choice["members"] if member["weight"] > 0]
    names = {
        "last": f"the last {len(used)}",
        "greedy": f"greedily, {len(used)} of {len(choice['members'])}",
        "weights": f"weights, {len(used)} of {len(choice['members'])}",
    }
    title = f"Chosen: {names[choice['select']]}"
    return title if choice["temperature"] == 1 else f"{title}, T {choice['temperature']:.3g}"


def _sentences(document: dict[str, Any]) -> list[str]:
    from ..ensemble.score.metrics import TITLES

    sentences: list[str] = []
    choice = document["choice"]
    if choice:
        used = [member for member in choice["members"] if member["weight"] > 0]
        what = ", ".join(f"{member['name']} {member['weight']:.3f}" for member in used)
        sentences.append(
            f"Chosen by {TITLES[choice['metric']]} on {plural(choice['samples'], 'other sample')}: "
            f"{what}."
        )
    elif document["ensembles"]:
        sentences.append(
            "Nothing was chosen: that takes --validation-predictions and --validation-labels."
        )
    if document["comparisons"]:
        subject = "The choice" if choice else "The mean of all"
        sentences.append(f"{subject} less the last member, with the 95 % interval:")
    for row in document["comparisons"]:
        heading, scale, digits = _COLUMNS[row["metric"]]
        difference, low, high = (
            f"{scale * value:+.{digits}f}" for value in (row["difference"], *row["interval"])
        )
        sentences.append(
            f"  {heading:9}{difference:>8}   {low:>8} to {high:>7}   p = {row['p_value']:.2g}"
        )
    return sentences
