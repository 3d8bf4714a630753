"""Options of `cosanneal evaluate`: the predictions, what is chosen, and what is written."""

from __future__ import annotations

import functools
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# An option of each panel of the help.
_data, _choice, _output = (
    functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Choice", "Output")
)


class Select(StrEnum):
    """How members are chosen."""

    AUTO = "auto"
    LAST = "last"
    GREEDY = "greedy"
    WEIGHTS = "weights"


Predictions = Annotated[
    list[str],
    _data(
        help="The members' predictions: .npy files by a quoted pattern, such as "
        "'test/*.npy', oldest first by name; numbers in names count as numbers. May be "
        "given several times.",
        metavar="PATTERN",
        show_default=False,
    ),
]
Labels = Annotated[
    Path, _data(help="The true classes (or targets), a .npy file.", show_default=False)
]
ValidationPredictions = Annotated[
    list[str] | None,
    _data(
        help="The same members' predictions for validation data, in the same order: to "
        "choose an ensemble and its temperature by.",
        metavar="PATTERN",
        show_default=False,
    ),
]
ValidationLabels = Annotated[
    Path | None, _data(help="The true classes of the validation data.", show_default=False)
]
Baseline = Annotated[
    Path | None,
    _data(
        help="Another model's predictions for the same data, such as one cosine run's, to compare "
        "with.",
        metavar="FILE",
        show_default=False,
    ),
]
ValidationBaseline = Annotated[
    Path | None,
    _data(
        help="The same model's for the validation data.",
        metavar="FILE",
        show_default=False,
    ),
]
Logits = Annotated[bool, _data("--logits", help="The files hold logits.")]
ClassAxis = Annotated[
    int | None,
    _data(
        help="The axis of the classes; by default the last one. It must be given for logits of "
        "more than two axes.",
        show_default=False,
    ),
]
Outcomes = Annotated[
    bool,
    _data(
        "--outcomes",
        help="Each number stands for an outcome of its own (binary, multi-label), and the "
        "labels are 0 or 1.",
    ),
]
Regression = Annotated[
    bool,
    _data(
        "--regression",
        help="The files hold values of a regression, of the targets' shape, or means and "
        "variances, along a first axis more.",
    ),
]
Quantiles = Annotated[
    str | None,
    _data(
        help="With --regression: which quantiles lie along the last axis, such as 0.1,0.5,0.9.",
        metavar="Q,Q,...",
        show_default=False,
    ),
]
SelectBy = Annotated[
    Select,
    _choice(
        help="How to choose: last, the best last m; greedy, one by one with replacement; "
        "weights, the best ones; or auto, by cross-validation the cheapest that is as good.",
        metavar="HOW",
    ),
]
MetricToUse = Annotated[
    str | None,
    _choice(
        help="By which score to choose: log_loss (by default), brier, error, top5_error (any "
        "number), balanced_error, macro_f1_error, auroc_error or mean_iou_error, the last three 1 "
        "less the score; of a regression mse, mae, gaussian_nll, crps or pinball.",
        metavar="SCORE",
        show_default=False,
    ),
]
Temperature = Annotated[
    bool, _choice(help="Fit one temperature after pooling; of a regression, the variance.")
]
PassesBudget = Annotated[
    float | None,
    _choice(
        "--budget",
        help="Also choose how early a sample may leave, so that so many members are run on one, "
        "on average, where classes alone are predicted; and say what that costs.",
        metavar="MEMBERS",
        show_default=False,
    ),
]
Seed = Annotated[int, _choice(min=0, help="Of the intervals.", metavar="N")]
Chosen = Annotated[
    Path | None,
    _choice(
        "--choice",
        help="In place of validation data: the ensemble that was chosen before among the same "
        "members, as --save or a fitted ensemble's save wrote it.",
        metavar="FILE",
        show_default=False,
    ),
]
Save = Annotated[
    Path | None,
    _output(
        help="Write the choice to this JSON file; --choice reads it, for other data.",
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    _output(
        help="Write all of it as a page to this .html file, with its figures beside it.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, _output("--json", help="Print JSON.")]
