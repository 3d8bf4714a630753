"""`cosanneal evaluate`: what predictions of any origin are worth, alone and together."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..core.errors import CosannealError, EnsembleError, shown
from ..core.paths import local_path
from . import labels as label_files
from .arrays import load_array, matching
from .console import needs_package, output_console, print_note
from .options import (
    AsJson,
    Baseline,
    Chosen,
    ClassAxis,
    Labels,
    Logits,
    MetricToUse,
    Outcomes,
    PassesBudget,
    Predictions,
    Quantiles,
    Regression,
    Report,
    Save,
    Seed,
    Select,
    SelectBy,
    Temperature,
    ValidationBaseline,
    ValidationLabels,
    ValidationPredictions,
)
from .regression import check_regression, evaluate_regression, show_regression
from .report import check_page, document_of, write_page
from .scores import show_scores
from .uncertainty import Alpha, Elsewhere, Risk, check_elsewhere

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..ensemble import Choice
    from ..ensemble.predict.outputs import Auto

# A pattern that the shell has matched leaves arguments over, to be refused with what to do.
CONTEXT = {"allow_extra_args": True}


def evaluate(
    context: typer.Context,
    predictions: Predictions,
    labels: Labels,
    validation_predictions: ValidationPredictions = None,
    validation_labels: ValidationLabels = None,
    baseline: Baseline = None,
    validation_baseline: ValidationBaseline = None,
    logits: Logits = False,
    class_axis: ClassAxis = None,
    outcomes: Outcomes = False,
    regression: Regression = False,
    quantiles: Quantiles = None,
    ignore_index: label_files.IgnoreIndex = None,
    mask: label_files.Mask = None,
    sample_weight: label_files.SampleWeight = None,
    classes: label_files.Classes = None,
    validation_mask: label_files.ValidationMask = None,
    validation_sample_weight: label_files.ValidationSampleWeight = None,
    select: SelectBy = Select.LAST,
    metric: MetricToUse = None,
    temperature: Temperature = True,
    budget: PassesBudget = None,
    seed: Seed = 0,
    chosen: Chosen = None,
    ood: Elsewhere = None,
    risk: Risk = 0.05,
    alpha: Alpha = 0.1,
    save: Save = None,
    report: Report = None,
    as_json: AsJson = False,
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
    held_out = (validation_baseline, validation_mask, validation_sample_weight)
    _check_together(validation_predictions, validation_labels, chosen, save, held_out)
    counted = label_files.Counted(ignore_index, classes, (mask, sample_weight), held_out[1:])
    of_classes = logits or outcomes or class_axis is not None or counted.given
    check_regression(regression, quantiles, of_classes)
    _check_budget(budget, regression, validation_labels)
    # What is wrong with it is said before anything is computed.
    check_page(report)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            inputs = (
                matching(predictions, "--predictions"),
                labels,
                matching(validation_predictions or [], "--validation-predictions"),
                validation_labels,
                chosen,
                (baseline, validation_baseline),
            )
            options: dict[str, Any] = {"select": select.value, "seed": seed}
            if regression:
                options |= {"metric": metric, "variance": temperature}
                document, choice = evaluate_regression(*inputs, quantiles, options=options)
            else:
                options |= {"metric": metric or "log_loss", "temperature": temperature}
                options["budget"] = budget
                document, choice = _evaluate(
                    *inputs,
                    matching(ood or [], "--ood"),
                    logits=logits,
                    class_axis=None if outcomes else "auto" if class_axis is None else class_axis,
                    wanted={"risk": risk, "alpha": alpha},
                    options=options,
                    counted=counted,
                )
        except EnsembleError as error:
            raise CosannealError(_in_options(str(error))) from error
        with needs_package("Evaluating predictions"):
            from ..ensemble.cautions import warn_of_known_data
        warn_of_known_data(choice, document)
    if choice is not None and save is not None:
        choice.save(save)
    wrote = None if report is None else write_page(document_of(document), report)
    for warning in caught:
        print_note(f"Note: {_in_options(str(warning.message))}.")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        (show_regression if regression else show_scores)(output_console(), document)
    if wrote is not None:
        print_note(wrote)


def _check_budget(budget: float | None, regression: bool, validation_labels: Path | None) -> None:
    if budget is not None and (regression or validation_labels is None):
        received = "--regression" if regression else "no validation data"
        raise CosannealError(
            "Option --budget must be given for classes, with --validation-predictions and "
            f"--validation-labels, on which it is kept. Received: it with {received}"
        )


def _check_together(
    validation_predictions: list[str] | None,
    validation_labels: Path | None,
    chosen: Path | None,
    save: Path | None,
    others: tuple[Path | None, Path | None, Path | None],
) -> None:
    """Refuse options that do not go with each other."""
    if (validation_predictions is None) != (validation_labels is None):
        given = "labels" if validation_predictions is None else "predictions"
        raise CosannealError(
            "Options --validation-predictions and --validation-labels must be given together. "
            f"Received: --validation-{given} alone"
        )
    for name, file in zip(("baseline", "mask", "sample-weight"), others, strict=True):
        if file is not None and validation_labels is None:
            raise CosannealError(
                f"Option --validation-{name} must be given with --validation-predictions and "
                "--validation-labels. Received: neither of them"
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
    if save is not None:
        local_path(save)


def _evaluate(
    files: Sequence[Path],
    labels_file: Path,
    validation_files: Sequence[Path],
    validation_labels: Path | None,
    chosen: Path | None,
    baselines: tuple[Path | None, Path | None],
    ood: Sequence[Path],
    *,
    logits: bool,
    class_axis: int | Auto | None,
    wanted: dict[str, Any],
    options: dict[str, Any],
    counted: label_files.Counted,
) -> tuple[dict[str, Any], Choice | None]:
    # Imported here, so that other commands need no numpy.
    with needs_package("Evaluating predictions"):
        from ..ensemble import Choice, analyze, analyze_uncertainty, fit
    if class_axis == "auto" and chosen is not None:
        class_axis = Choice.load(chosen).class_axis
    elif class_axis == "auto":
        class_axis = _last_axis(files[0], logits=logits)
    members, labels, given = _read(
        files, labels_file, counted.files, logits=logits, class_axis=class_axis, counted=counted
    )
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    strange = None
    if ood:
        strange = _read(ood, None, (), logits=logits, class_axis=class_axis, counted=counted)[0]
    if strange is not None:
        check_elsewhere(members, strange, class_axis)
    held_out: tuple[Any, Any, Any] | None = None
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
        held_out = truth, known, theirs = _read(
            *(validation_files, validation_labels, counted.validation_files),
            logits=logits,
            class_axis=class_axis,
            counted=counted,
        )
        other = _other(baselines[1], truth, "--validation-baseline", logits, class_axis, counted)
        choice = fit(
            truth, known, names=names, class_axis=class_axis, baseline=other, **options, **theirs
        )
    seed = options["seed"]
    other = _other(baselines[0], members, "--baseline", logits, class_axis, counted)
    document = analyze(
        *(members, labels),
        names=names,
        choice=choice,
        class_axis=class_axis,
        seed=seed,
        baseline=other,
        **given,
    )
    for row, file in zip(document["members"], files, strict=True):
        row["file"] = str(file)
    document["uncertainty"] = analyze_uncertainty(
        members,
        labels,
        choice=choice,
        class_axis=class_axis,
        held_out=held_out,
        ood=strange,
        seed=seed,
        **wanted,
        **given,
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


def _other(
    file: Path | None,
    members: Sequence[NDArray[Any]],
    option: str,
    logits: bool,
    class_axis: int | None,
    counted: label_files.Counted,
) -> NDArray[Any] | None:
    """Another model's probabilities, of the members' shape."""
    if file is None:
        return None
    (found,), _, _ = _read([file], None, (), logits=logits, class_axis=class_axis, counted=counted)
    if found.shape != members[0].shape:
        raise CosannealError(
            f"Option {option} must be one model's predictions for the same samples, of the shape "
            f"of a member's, {members[0].shape}. Received: {found.shape} in {file}"
        )
    return found


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
    files: Sequence[Path],
    labels_file: Path | None,
    counting: Sequence[Path | None],
    *,
    logits: bool,
    class_axis: int | None,
    counted: label_files.Counted,
) -> tuple[list[NDArray[Any]], Any, dict[str, Any]]:
    """The members' probabilities, the labels and which count, checked; an error names the file."""
    from ..ensemble import pool
    from ..ensemble.arrays import as_rows, check_class_axis
    from ..ensemble.labels import as_labels
    from ..ensemble.predict.found import FoundOutputs

    found = FoundOutputs("logits", class_axis, "probabilities", None)
    labels = None if labels_file is None else load_array(labels_file)
    options = {} if labels is None else counted.options(load_array, counting, labels)
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
        except EnsembleError as error:
            raise EnsembleError(f"{file}: {error}") from error
        members.append(member)
    try:
        kept = None
        if labels is not None:
            kept = as_labels(labels, members[0].shape, class_axis, **options).kept
    except EnsembleError as error:
        raise EnsembleError(f"{labels_file}, for {files[0]}: {error}") from error
    for file, member in zip(files, members, strict=True):
        try:
            as_rows(member, class_axis, kept)
        except EnsembleError as error:
            raise EnsembleError(f"{file}: {error}") from error
    return members, labels, options


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
    "look at ignore_index=, mask= and sample_weight=": "look at --ignore-index, --mask and "
    "--sample-weight",
    "by ignore_index=": "by --ignore-index=",
    "by classes=[...], in": "by --classes, in",
    "by classes=[...]": "by --classes",
    "among `classes`": "among those of --classes",
    "Argument `metric`": "Option --metric",
    ", or a function metric(probabilities, labels)": "",
    "Argument `mask`": "Option --mask",
    "Argument `sample_weight`": "Option --sample-weight",
    "Argument `budget`": "Option --budget",
    "budget=": "--budget=",
    "Argument `classes`": "Option --classes",
    "Argument `ignore_index`": "Option --ignore-index",
    "; give mask=": "; give --mask",
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
