"""A choice among an ensemble's members, by what they give for validation data."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Unpack

from .choose.choice import Choice, FitOptions
from .choose.regression import fit_outputs
from .members import Members
from .predict.kept import kept_predictions
from .predict.taken import Taken
from .predict.validation import Validation


def fit_members(
    members: Members,
    data: Validation,
    taken: Taken,
    keep: str | os.PathLike[str] | None,
    **options: Unpack[FitOptions],
) -> Choice:
    """The choice among members, each of which is run once.

    Args:
        members: the members.
        data: the validation data.
        taken: the one output by which to choose.
        keep: the file to keep predictions in, if any.
        options: as `fit` or `fit_regression` has them.

    Raises:
        EnsembleError: the outputs are not pooled by the mean; or as these.
    """
    # Members that are no files have none, and a choice among some is one of arrays.
    digests = [each.metadata["digest"] for each in members if "digest" in each.metadata]
    outputs = (data.outputs(members.load(each), each) for each in members)
    with kept_predictions(outputs, members.names, lambda: data.spec, keep) as predictions:
        taken.found.check_mean()  # now that it is known what outputs are
        choice = fit_outputs(
            data.spec.outputs,
            predictions,
            data.labels,
            names=members.names,
            class_axis=data.spec.class_axis,
            digests=digests if len(digests) == len(members) else None,
            counts=data.counts,
            **options,
        )
    return replace(choice, class_axis=taken.found.spec.class_axis, output=taken.name)
