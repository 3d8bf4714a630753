"""A choice among an ensemble's members, and what they are worth, by what they give for data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar, Unpack, cast

from ..core.errors import EnsembleError, shown
from ..snapshots.store import Snapshot
from .cautions import warn_of_known_data
from .choose.budget import check_budget
from .choose.choice import Choice, FitOptions
from .choose.moments import Regression, check_other
from .choose.regression import fit_outputs
from .findings import EvaluateOptions, analyze
from .members import Members
from .predict.kept import kept_predictions
from .predict.outputs import REGRESSIONS
from .predict.taken import Taken
from .predict.validation import Validation
from .regression import analyze_regression

FoundT = TypeVar("FoundT")


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

    ranks = data.ranks
    if keep is not None and not members.ranks.alone:
        raise EnsembleError(
            "Argument `keep` must be left out where the model is sharded. Received: "
            f"{shown(str(keep))}, which every process would write; fit without it"
        )
    if keep is not None:
        data.shared.refuse("keep", "fit without it")

    def choose(predictions: Any) -> Choice:
        # Of all samples, which takes every process; then one chooses for all.
        labels, given = data.labels, cast(FitOptions, data.label_options(options))

        def found() -> Choice:
            return fit_outputs(
                data.spec.outputs,
                predictions,
                labels,
                names=members.names,
                class_axis=data.spec.class_axis,
                digests=digests if len(digests) == len(members) else None,
                **given,
            )

        if ranks.alone:
            return found()
        return Choice.from_dict(ranks.shared(lambda: found().to_dict()))

    choice = _of_all(members, data, taken, keep, choose, options.get("baseline"))
    return replace(choice, class_axis=taken.found.spec.class_axis, output=taken.name)


def check_early(budget: object, members: int, taken: Taken) -> None:
    """Refuse a budget that cannot be kept, before any member is run.

    Args:
        budget: the mean number of members for each sample, or None.
        members: how many there are.
        taken: all of the ensemble's outputs.

    Raises:
        EnsembleError: see `check_budget`; or there are several outputs.
    """
    if budget is None:
        return
    check_budget(budget, members)
    if len(taken.leaves) > 1:
        raise EnsembleError(
            "Argument `budget` must be left out for several outputs, of which one alone is judged. "
            f"Received: budget={shown(budget)}, for {len(taken.leaves)} outputs; make an ensemble "
            "of that output"
        )


def load_choice(
    members: Members, taken: Taken, path: str | os.PathLike[str] | None
) -> tuple[Choice, tuple[Snapshot, ...]]:
    """A choice that was saved, and the snapshots among which it was made.

    Args:
        members: the members.
        taken: what the ensemble's outputs are.
        path: the file; None for the usual one.

    Raises:
        EnsembleError: as `SnapshotEnsemble.load`.
    """
    if not taken.several:
        taken.found.check_mean()
    file = members.beside(path)
    with file.reading(EnsembleError) as local:
        choice = Choice.load(local)
    if choice.budget is not None and len(taken.leaves) > 1:
        raise EnsembleError(
            f"The choice in {file} must have no budget for several outputs. Received: a budget of "
            f"{choice.budget.asked:g}, for {len(taken.leaves)} outputs; fit the ensemble again"
        )
    found = taken.only(choice.output).found
    found.check_mean()
    snapshots = members.among(choice, file)
    found.expect_outputs(choice.outputs, f"The choice in {file}")
    found.expect_class_axis(choice.class_axis, f"The choice in {file}")
    return choice, snapshots


def evaluate_members(
    members: Members,
    data: Validation,
    taken: Taken,
    choice: Choice | None,
    **options: Unpack[EvaluateOptions],
) -> dict[str, Any]:
    """What members are worth, alone, together and as they were chosen; each is run once.

    Args and errors as of `fit_members`; options as `analyze` or `analyze_regression` has them.
    """

    def judge(predictions: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "names": members.names,
            **cast(EvaluateOptions, data.label_options(options)),
        }
        spec = data.spec
        if spec.outputs in REGRESSIONS:
            outputs = cast(Regression, spec.outputs)
            return analyze_regression(
                predictions, data.labels, outputs=outputs, choice=choice, **given
            )
        chosen = None if choice is None else replace(choice, class_axis=spec.class_axis)
        return analyze(predictions, data.labels, choice=chosen, class_axis=spec.class_axis, **given)

    found = _of_all(members, data, taken, None, judge, options.get("baseline"))
    warn_of_known_data(choice, found)
    return found


def _of_all(
    members: Members,
    data: Validation,
    taken: Taken,
    keep: str | os.PathLike[str] | None,
    use: Callable[[Any], FoundT],
    baseline: Any,
) -> FoundT:
    """What is made of all members' predictions, which are kept as long as that takes."""
    taken.found.check_mean()

    def outputs() -> Iterator[Any]:
        for i, each in enumerate(members):
            output = data.outputs(members.load(each), each)
            if i == 0 and baseline is not None:  # before the others are run
                check_other(baseline, output)
            yield output

    with kept_predictions(outputs(), members.names, lambda: data.spec, keep) as predictions:
        taken.found.check_mean()  # now that it is known what outputs are
        return use(predictions)
