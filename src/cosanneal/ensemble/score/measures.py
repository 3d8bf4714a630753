"""What an ensemble is chosen by: a score by its name, or a user's own; the lower the better."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..labels import Labels
from .by_class import BY_CLASS, Resampled, by_class, resampled_by_class
from .evidence import bootstrap_interval
from .metrics import METRICS, is_mean, row_scores

Floats: TypeAlias = NDArray[np.float64]

# "log_loss", "brier", "error", "top5_error" (any number), "balanced_error", "macro_f1_error",
# "auroc_error" and "mean_iou_error"; or metric(probabilities, labels).
AnyMetric: TypeAlias = str | Callable[..., float]

# What a user's own metric is called in a record, before its name.
CUSTOM: Final = "custom:"

_TITLES: Final = {
    "log_loss": "log-loss",
    "brier": "Brier score",
    "error": "error rate",
    "balanced_error": "balanced error rate",
    "macro_f1_error": "macro F1 error (1 less F1)",
    "auroc_error": "AUROC error (1 less the area)",
    "mean_iou_error": "mean IoU error (1 less IoU)",
}

# How often an interval resamples, and for a user's own metric, of which each is a call.
_RESAMPLES: Final = 2000
_CALLS: Final = 200

# Numbers that an interval looks at, at most, before it resamples less often.
_NUMBERS: Final = 2 * 10**9


class Measure(Protocol):
    """A score of rows of probabilities."""

    @property
    def name(self) -> str:
        """Its name in a record."""

    def value(self, rows: Floats, y: Labels) -> float:
        """The score."""

    def interval(self, first: Floats, second: Floats, y: Labels, seed: int) -> tuple[float, float]:
        """The 95 % bootstrap interval of the first's score less the second's, over samples."""


def is_metric(name: object) -> bool:
    """Whether a record's metric has a name of one."""
    return isinstance(name, str) and (
        is_mean(name) or name in BY_CLASS or (name.startswith(CUSTOM) and name != CUSTOM)
    )


def title_of(name: str) -> str:
    """What a sentence calls a metric."""
    if name.startswith(CUSTOM):
        return f"metric {name.removeprefix(CUSTOM)}"
    return _TITLES.get(name) or f"top-{name.removeprefix('top').removesuffix('_error')} error"


def measure_of(metric: object) -> Measure:
    """The measure by its name, or of a user's own.

    Raises:
        EnsembleError: neither a name that is known nor a function.
    """
    if isinstance(metric, str) and is_mean(metric):
        return _Mean(metric)
    if isinstance(metric, str) and metric in BY_CLASS:
        return _ByClass(metric)
    if callable(metric):
        return _Custom(metric)
    names = ", ".join(map(repr, (*METRICS, *BY_CLASS)))
    raise EnsembleError(
        f"Argument `metric` must be one of {names}, 'top5_error' with any number, or a function "
        f"metric(probabilities, labels). Received: metric={shown(metric)}"
    )


@dataclass(frozen=True, slots=True)
class _Mean:
    """A mean over labels."""

    name: str

    def value(self, rows: Floats, y: Labels) -> float:
        return y.mean(row_scores(self.name, rows, y))

    def interval(self, first: Floats, second: Floats, y: Labels, seed: int) -> tuple[float, float]:
        differences = row_scores(self.name, first, y) - row_scores(self.name, second, y)
        return bootstrap_interval(y.per_sample(differences), weights=y.sample_weights(), seed=seed)


@dataclass(frozen=True, slots=True)
class _ByClass:
    """A score of the classes, each of which counts the same."""

    name: str

    def value(self, rows: Floats, y: Labels) -> float:
        return by_class(self.name, rows, y)

    def interval(self, first: Floats, second: Floats, y: Labels, seed: int) -> tuple[float, float]:
        both = [resampled_by_class(self.name, rows, y) for rows in (first, second)]
        curves = first.shape[1] if self.name == "auroc_error" else 1
        resamples = min(max(_NUMBERS // (len(y) * curves), _CALLS), _RESAMPLES)
        return _interval(both, y.samples, resamples, seed)


@dataclass(frozen=True, slots=True)
class _Custom:
    """A user's own: `metric(probabilities, labels) -> float`."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        found = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{CUSTOM}{found}"

    def value(self, rows: Floats, y: Labels) -> float:
        given: dict[str, Any] = {}
        if y.weights is not None:
            given["sample_weight"] = y.weights
            self._check_weights()
        found = self.function(_prediction(rows, y), _truth(y), **given)
        try:
            score = float(found)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise EnsembleError(
                "Argument `metric` must return a finite number, the lower the better. "
                f"Received: {shown(found)} from {self.name.removeprefix(CUSTOM)}"
            )
        return score

    def interval(self, first: Floats, second: Floats, y: Labels, seed: int) -> tuple[float, float]:
        def resampled(rows: Floats) -> Resampled:
            def score(drawn: Floats) -> float:
                samples = np.repeat(np.arange(y.samples), drawn.astype(np.intp))
                try:
                    return self.value(rows[y.rows_of(samples)], y.of(samples))
                except (EnsembleError, ValueError):  # such as one class only
                    return math.nan

            return score

        return _interval([resampled(rows) for rows in (first, second)], y.samples, _CALLS, seed)

    def _check_weights(self) -> None:
        try:
            inspect.signature(self.function).bind(None, None, sample_weight=None)
        except ValueError:  # of a function of C that does not say
            return
        except TypeError:
            raise EnsembleError(
                "Argument `metric` must take sample_weight= where labels have weights. Received: "
                f"{self.name.removeprefix(CUSTOM)}, which does not; add it, or leave sample_weight "
                "out"
            ) from None


def _prediction(rows: Floats, y: Labels) -> Floats:
    """Rows of probabilities, as a user's own metric takes them."""
    if y.class_axis is None:
        return rows[:, 1] if y.chosen else rows[:, 1].reshape(-1, *y.shape[1:])
    return rows if y.chosen else _folded(rows, y)


def _truth(y: Labels) -> NDArray[Any]:
    """The labels, as a user's own metric takes them."""
    if y.targets is not None:
        return _prediction(y.targets, y)
    if y.chosen:
        return y.classes
    axis = None if y.class_axis is None else y.class_axis % len(y.shape)
    sites = [size for i, size in enumerate(y.shape) if i not in (0, axis)]
    return y.classes.reshape(-1, *sites)


def _folded(rows: Floats, y: Labels) -> Floats:
    axis = (y.class_axis or 0) % len(y.shape)
    sites = [size for i, size in enumerate(y.shape) if i not in (0, axis)]
    return np.moveaxis(rows.reshape(-1, *sites, rows.shape[1]), -1, axis)


def _interval(
    both: list[Resampled], samples: int, resamples: int, seed: int
) -> tuple[float, float]:
    """The quantiles of the difference of two scores of the same resamples."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = np.bincount(random.integers(samples, size=samples), minlength=samples)
        first, second = (score(drawn.astype(np.float64)) for score in both)
        found.append(first - second)
    # Where it is not defined, as for one class only, it says nothing.
    defined = np.array([value for value in found if math.isfinite(value)])
    if not defined.size:
        first, second = (score(np.ones(samples)) for score in both)
        defined = np.array([first - second])
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
