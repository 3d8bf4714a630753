"""What one run predicts, and what that is worth: chosen on validation data, told on test data."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import StudyError, plural
from ..ensemble import error_rate, fit, log_loss, pool
from ..ensemble.arrays import as_numpy
from ..ensemble.choose.record import Select

# Filters of warnings are of all threads together, in which runs may be.
_FILTERS: Final = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a run's members predict for data that they were not trained on.

    Args:
        validation: the members' predictions and the true classes of the data by
            which members and temperature are chosen. Predictions are
            probabilities, a sequence (or an iterator, such as
            `ensemble.member_predictions(x)`) with one member for each cycle,
            oldest first, each of shape (samples, classes); the classes are
            integers of shape (samples,), or as `cosanneal.ensemble.labels` says.
        test: the same for the data that are reported. They must be others.
        class_axis: the axis of the classes in one member's array; None for
            outcomes (binary, multi-label), of shape (samples,) or (samples, outcomes).

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> others = [[[0.8, 0.2]], [[0.5, 0.5]]]
        >>> run = Run(validation=(members, [0, 1]), test=(others, [0]))
        >>> run.scores(select="last")["mean"]["passes"]
        2
    """

    validation: tuple[Any, Any]
    test: tuple[Any, Any]
    class_axis: int | None = -1

    @classmethod
    def of(
        cls,
        ensemble: Any,
        *,
        validation: tuple[Any, Any],
        test: tuple[Any, Any],
        class_axis: int | None = -1,
    ) -> Run:
        """What the members of an ensemble predict, of any framework.

        Args:
            ensemble: a `SnapshotEnsemble`.
            validation: the model's input and the true classes, to choose by.
            test: the same, to report.
            class_axis: of the predictions, as in `Run`.
        """
        (x, y), (x_test, y_test) = validation, test
        return cls(
            (ensemble.member_predictions(x), y),
            (ensemble.member_predictions(x_test), y_test),
            class_axis,
        )

    def scores(self, *, select: Select) -> dict[str, Any]:
        """The scores of the last member, of the plain mean and of the fitted ensemble.

        Args:
            select: how the ensemble is chosen, as in `cosanneal.ensemble.fit`.

        Returns:
            Plain data: `members`; `samples` of `validation` and `test`; the
            fitted ensemble's `validation_nll`; and for `last` (with a temperature
            of its own), `mean` (of all, without one) and `fitted` each `error`,
            `log_loss`, and `passes`: how many members it runs for a prediction.

        Raises:
            EnsembleError: shapes that do not fit, or no probabilities.
            StudyError: validation and test data that are the same.
        """
        (validation, y), (test, y_test) = (
            (_members(predictions), as_numpy(labels))
            for predictions, labels in (self.validation, self.test)
        )
        if len(validation) != len(test):
            raise StudyError(
                "The validation and the test predictions must be of the same members. Received: "
                f"{plural(len(validation), 'member')} and {plural(len(test), 'member')}"
            )
        if _same(y, y_test) and all(map(_same, validation, test)):
            raise StudyError(
                "The validation data must not be the test data, or the choice would be reported "
                f"on the data that it was made on. Received: {plural(len(y), 'sample')} as both"
            )
        with _FILTERS, warnings.catch_warnings():
            # The seeds' spread shows how noisy a choice is.
            warnings.filterwarnings("ignore", "The ensemble was chosen on", UserWarning)
            choice = fit(validation, y, select=select, class_axis=self.class_axis)
            last = fit(validation[-1:], y, class_axis=self.class_axis)

        def score(prediction: Any, passes: int) -> dict[str, Any]:
            return {
                "error": error_rate(prediction, y_test, class_axis=self.class_axis),
                "log_loss": log_loss(prediction, y_test, class_axis=self.class_axis),
                "passes": passes,
            }

        return {
            "members": len(test),
            "samples": {"validation": len(y), "test": len(y_test)},
            "validation_nll": choice.candidates[-1].scores["log_loss"],
            "last": score(last.apply(test[-1:]), 1),
            "mean": score(pool(test, class_axis=self.class_axis), len(test)),
            "fitted": score(choice.apply(test), sum(weight > 0 for weight in choice.weights)),
        }


def _members(predictions: Any) -> list[NDArray[Any]]:
    """The members' arrays; `fit` looks at their shapes and numbers."""
    return [as_numpy(member) for member in predictions]


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return np.array_equal(first, second)
