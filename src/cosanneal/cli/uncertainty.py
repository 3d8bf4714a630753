"""What `cosanneal evaluate` takes and shows of the members' uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..core.errors import CosannealError

Elsewhere = Annotated[
    list[str] | None,
    typer.Option(
        "--ood",
        help="The same members' predictions for data of another kind, in the same order: to see "
        "how well their uncertainty tells them apart.",
        metavar="PATTERN",
        show_default=False,
        rich_help_panel="Data",
    ),
]
Risk = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Tell how many of the surest predictions have an error rate of at most this.",
        metavar="SHARE",
        rich_help_panel="Output",
    ),
]
Alpha = Annotated[
    float,
    typer.Option(
        help="Of sets of classes, calibrated on the validation data, so many may miss the true "
        "one.",
        metavar="SHARE",
        rich_help_panel="Output",
    ),
]


def check_elsewhere(
    members: Sequence[Any], elsewhere: Sequence[Any], class_axis: int | None
) -> None:
    """Refuse the predictions of --ood that are not of the same members, or of other classes."""
    if len(elsewhere) != len(members):
        raise CosannealError(
            "Options --predictions and --ood must match the same members. "
            f"Received: {len(members)} files and {len(elsewhere)}"
        )
    shapes = [each[0].shape for each in (members, elsewhere)]
    classes = [
        0 if class_axis is None or len(shape) == 1 else shape[class_axis] for shape in shapes
    ]
    if len(shapes[0]) != len(shapes[1]) or classes[0] != classes[1]:
        raise CosannealError(
            "Options --predictions and --ood must be of the same classes. "
            f"Received: shapes {shapes[0]} and {shapes[1]}"
        )


def show_uncertainty(console: Console, part: Mapping[str, Any]) -> None:
    """Print the part `uncertainty` of a results document, in at most 80 columns."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Uncertainty")
    rows = part["selective"]["rows"]
    for title in ("Prediction", "Last member")[: len(rows)]:
        table.add_column(title, justify="right", no_wrap=True)
    for cells in _selective(part):
        table.add_row(*cells)
    console.print(table)
    console.print("The AURC is the mean error rate over all shares of the surest; 0 is best.")
    if part["members"] > 1:
        console.print(
            "Nats are the unit of an entropy by natural logarithms; mutual information is the part "
            "of it that is there because the members differ."
        )
    if conformal := part.get("conformal"):
        alpha = conformal[0]["alpha"]
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("Sets of classes")
        for title in ("Promised, %", "Holding the true class, %", "Mean size"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in conformal:
            share = f"{100 * row['coverage']:.2f}"
            cells = (row["method"].upper(), f"{100 - 100 * alpha:g}", share, f"{row['size']:.2f}")
            table.add_row(*cells)
        console.print(table)
        console.print("Calibrated on the validation data, by which the ensemble was chosen too.")
        console.print(
            "Of the three, LAC has the fewest classes on average, APS has more where a sample is "
            "hard, and RAPS is APS with a penalty on many classes."
        )
    if ood := part.get("ood"):
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column(f"Told from {ood['samples']} others by")
        for title in ("AUROC, %", "AUPR, %", "FPR at 95 % TPR, %"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in ood["rows"]:
            shares = (f"{100 * row[name]:.2f}" for name in ("auroc", "aupr", "fpr95"))
            table.add_row(row["score"].replace("_", " "), *shares)
        console.print(table)


def _selective(part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of the first table."""
    selective = part["selective"]
    rows = selective["rows"]
    if part["members"] > 1:
        yield "Entropy, nats", f"{part['entropy']:.4f}"
        yield "  of it, mutual information", f"{part['mutual_information']:.4f}"
        yield "Variation ratio, %", f"{100 * part['variation_ratio']:.2f}"
    yield "AURC, %", *(f"{100 * row['aurc']:.3f}" for row in rows)
    risk, coverage = 100 * selective["risk"], 100 * selective["coverage"]
    shares = (f"{100 * row['coverage_at_risk']:.2f}" for row in rows)
    yield f"Coverage at {risk:.3g} % error, %", *shares
    shares = (f"{100 * row['risk_at_coverage']:.2f}" for row in rows)
    yield f"Error at {coverage:.3g} % coverage, %", *shares
