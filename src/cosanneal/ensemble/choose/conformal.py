"""Sets of classes that hold the true one with a probability that is wanted: split conformal."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.atomic import replacing
from ...core.documents import read_document
from ...core.errors import EnsembleError, shown
from ...core.records import Reader
from ..arrays import as_numpy, as_rows, check_count, check_share
from ..labels import as_labels
from ..score.metrics import checked_rows

Method: TypeAlias = Literal["lac", "aps", "raps"]
Floats = NDArray[np.float64]

FORMAT: Final = "cosanneal.conformal"
VERSION: Final = 1

# More than any framework's arrays have.
_MOST_AXES: Final = 64

# The penalties of RAPS that are tried (the paper's), and on which share of the samples.
PENALTIES: Final = (0.001, 0.01, 0.1, 0.2, 0.5)
_TUNED_ON: Final = Fraction(1, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalPredictor:
    """Sets of classes, of which the share `1 - alpha` holds the true class: plain data.

    With the scores `s_i` of the n calibration labels, and `k = ceil((n + 1) (1 - alpha))`:

    `threshold = the k-th smallest of s_1, ..., s_n;  set(x) = {y : s(x, y) <= threshold}`

    Where a new sample and the calibration's are exchangeable, its set holds its
    class with a probability of at least `1 - alpha`, whatever the model, and of
    at most `1 - alpha + 1 / (n + 1)` where no scores tie. That is over all draws of the
    calibration data; given one, the share is Beta(k, n + 1 - k) distributed. Calibrate on
    data that had no part in training or in `SnapshotEnsemble.fit`. The labels of
    one sample (pixels, tokens) are not independent: of dense outputs the
    guarantee is one for samples that are many.

    With the classes sorted by probability, `p_(1) >= p_(2) >= ...`, the score of
    the r-th is

    - "lac": `1 - p_(r)`: of probabilities that are right, the smallest sets on average;
    - "aps": `p_(1) + ... + p_(r) - U p_(r)` with U uniform on [0, 1): sets that
      grow with what is hard;
    - "raps": the same `+ penalty * max(r - rank, 0)`: fewer improbable classes.

    Args:
        method: the score.
        alpha: the share of sets that may miss.
        threshold: the quantile of the scores.
        labels: how many of them there were, n.
        classes: the number of classes.
        class_axis: the axis of the classes; None for outcomes.
        randomized: of "aps" and "raps": False has no U in the sets, and the class at
            which the sum crosses the threshold in each: none is empty, and more
            hold the true class than need be. True draws a U for each label: as many
            as wanted do, and some may be empty.
        penalty: of "raps"; 0 otherwise.
        rank: of "raps"; 0 otherwise.
        seed: of all draws; the same for the same place in an array.

    Source: Sadinle et al., "Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels" (2019) for LAC; Romano et al., "Classification with Valid and
    Adaptive Coverage" (2020), Eq. 5 to 8, for APS; Angelopoulos et al.,
    "Uncertainty Sets for Image Classifiers using Conformal Prediction" (2021),
    algorithms 2 and 3, for RAPS; Vovk (2012) for the Beta law. MAPIE's
    SplitConformalClassifier with conformity_score="lac", "aps" and "raps", and
    include_last_label=True or "randomized".
    """

    method: Method
    alpha: float
    threshold: float
    labels: int
    classes: int
    class_axis: int | None
    randomized: bool
    penalty: float
    rank: int
    seed: int

    @classmethod
    def fit(
        cls,
        probabilities: Any,
        labels: Any,
        alpha: float = 0.1,
        *,
        method: Method = "lac",
        randomized: bool = False,
        penalty: float | None = None,
        rank: int | None = None,
        class_axis: int | None = -1,
        seed: int = 0,
    ) -> ConformalPredictor:
        """Calibrate on data that had no part in training, and none in a choice.

        Args:
            probabilities: the pooled prediction for them, of shape (samples, classes), or as
                `cosanneal.ensemble.metrics` says.
            labels: the true classes, integers of shape (samples,).
            alpha: the share of sets that may miss, between 0 and 1. (A float means
                the decimal that it is written as.)
            method: "lac", "aps" or "raps".
            randomized: of "aps" and "raps", as the class says.
            penalty: of "raps". By default the one of 0.001, 0.01, 0.1, 0.2 and 0.5 whose
                sets are the smallest on a fifth of the samples, drawn at random;
                the others calibrate.
            rank: of "raps": so many classes have no penalty. By default the
                rank that the share `1 - alpha` of that fifth's true classes has at most.
            class_axis: the axis of the classes; None for outcomes.
            seed: of all draws.

        Raises:
            EnsembleError: arguments that cannot be, shapes that do not fit, or too few
                labels for the alpha, whose sets would have to hold every class.

        Example:
            >>> p = [[0.1 * i, 1 - 0.1 * i] for i in range(1, 10)]
            >>> found = ConformalPredictor.fit(p, [1, 1, 1, 0, 1, 0, 0, 0, 0], alpha=0.2)
            >>> round(found.threshold, 3)
            0.5
            >>> found.predict([[0.9, 0.1], [0.5, 0.5]]).tolist()
            [[True, False], [True, True]]
        """
        alpha = check_share("alpha", alpha)
        _check_options(method, randomized, penalty, rank)
        random = np.random.default_rng(check_count("seed", seed, minimum=0))
        rows, y = checked_rows(probabilities, labels, class_axis)
        made = cls(
            method=method,
            alpha=alpha,
            threshold=1.0,
            labels=len(rows),
            classes=rows.shape[1],
            class_axis=class_axis,
            randomized=randomized,
            penalty=float(penalty or 0),
            rank=int(rank or 0),
            seed=int(seed),
        )
        of_sample = np.repeat(np.arange(y.samples), len(rows) // y.samples)
        if method == "raps" and (penalty is None or rank is None):
            drawn = random.permutation(y.samples)[: math.floor(_TUNED_ON * y.samples)]
            tuned = np.isin(of_sample, drawn)
            made = _tuned(made, rows[tuned], y.classes[tuned], random, penalty, rank)
            rows, classes = rows[~tuned], y.classes[~tuned]
        else:
            classes = y.classes
        return _calibrated(made, rows, classes, random)

    def predict(self, probabilities: Any) -> NDArray[np.bool_]:
        """The set of each label: which classes are in it.

        Args:
            probabilities: as those of `fit`, with any number of samples.

        Returns:
            Of their shape. For outcomes, an axis is appended: whether that it does not
            happen is in the set, and whether that it does.

        Raises:
            EnsembleError: another number of classes, or numbers that are no probabilities.
        """
        p = as_numpy(probabilities)
        rows = as_rows(p, self.class_axis)
        if rows.shape[1] != self.classes:
            raise EnsembleError(
                f"Argument `probabilities` must be of the {self.classes} classes that were "
                f"calibrated. Received: {rows.shape[1]}"
            )
        # Draws of their own: those of the calibration must not come again.
        random = np.random.default_rng([self.seed, 1])
        sets = self.sets(rows, random.random(len(rows)) if self.randomized else None)
        if self.class_axis is None or p.ndim == 1:
            return np.asarray(sets.reshape(*p.shape, 2))
        sites = [size for i, size in enumerate(p.shape) if i != self.class_axis % p.ndim]
        return np.asarray(np.moveaxis(sets.reshape(*sites, self.classes), -1, self.class_axis))

    def scores(self, rows: Floats, draws: Floats | None) -> Floats:
        """The score of each class of rows of probabilities.

        Args:
            rows: shape (labels, classes).
            draws: U, one for each row. Without them, of "aps" and "raps" that which is
                at the threshold at most where the classes before sum up to it at most.
        """
        if self.method == "lac":
            return np.asarray(1 - rows)
        order = np.argsort(-rows, axis=1, kind="stable")
        sorted_p = np.maximum(np.take_along_axis(rows, order, axis=1), 0)
        own = sorted_p if draws is None else draws[:, None] * sorted_p
        ranks = np.arange(1, rows.shape[1] + 1) - (draws is None)
        sums = np.cumsum(sorted_p, axis=1) - own + self.penalty * np.maximum(ranks - self.rank, 0)
        found: Floats = np.empty_like(sums)
        np.put_along_axis(found, order, sums, axis=1)
        return found

    def sets(self, rows: Floats, draws: Floats | None) -> NDArray[np.bool_]:
        """Which classes of rows of probabilities are in their sets; arguments as `scores`."""
        return np.asarray(self.scores(rows, draws) <= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """The predictor as plain data for JSON."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: object) -> ConformalPredictor:
        """The predictor that `to_dict` described, from its `data`.

        Raises:
            EnsembleError: not such a description, one of an unknown version, or
                one with a bad field, whose path is named.
        """
        return _read(
            Reader.of(
                data,
                FORMAT,
                VERSION,
                what="The description of a conformal predictor",
                source="ConformalPredictor.to_dict() gives it",
                error=EnsembleError,
            )
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to `path` as JSON, so that the file is all there or as it was.

        Raises:
            EnsembleError: the file cannot be written.
        """
        with replacing(path, error=EnsembleError) as file:
            file.write(json.dumps(self.to_dict(), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConformalPredictor:
        """Read a predictor that was saved to `path`.

        Raises:
            EnsembleError: the file cannot be read, or holds none.
        """
        data = read_document(path, error=EnsembleError, advice="; fit it and save it first")
        try:
            return cls.from_dict(data)
        except EnsembleError as error:
            raise EnsembleError(f"{path}: {error}") from error


def set_coverage(sets: Any, labels: Any, *, class_axis: int | None = -1) -> float:
    """The share of sets that hold the true class.

    Args:
        sets: which classes are in each, as `ConformalPredictor.predict` gives them.
        labels: the true classes, integers of the sets' shape without the class axis.
        class_axis: the axis of the classes; None for outcomes, whose sets have them last.

    Raises:
        EnsembleError: shapes that do not fit, sets that are none, labels that are no classes.

    Example:
        >>> set_coverage([[True, False], [True, True]], [1, 1])
        0.5

    Source: MAPIE's classification_coverage_score.
    """
    rows = _rows_of(sets, class_axis)
    axis = -1 if class_axis is None else class_axis
    y = as_labels(labels, as_numpy(sets).shape, axis).classes
    return float(rows[np.arange(len(rows)), y].mean())


def set_size(sets: Any, *, class_axis: int | None = -1) -> float:
    """The mean number of classes in a set.

    Args:
        sets: as for `set_coverage`.
        class_axis: as for `set_coverage`.

    Raises:
        EnsembleError: sets that are none.

    Example:
        >>> set_size([[True, False], [True, True]])
        1.5

    Source: MAPIE's classification_mean_width_score.
    """
    return float(_rows_of(sets, class_axis).sum(axis=1).mean())


def _rows_of(sets: Any, class_axis: int | None) -> NDArray[np.bool_]:
    found = as_numpy(sets)
    axis = -1 if class_axis is None else class_axis
    if found.dtype != bool or found.ndim < 2 or not -found.ndim <= axis < found.ndim:
        raise EnsembleError(
            f"Argument `sets` must be true or false for each class along axis {axis}. "
            f"Received: dtype {found.dtype}, shape {found.shape}"
        )
    moved = np.moveaxis(found, axis, -1)
    return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])


def labels_needed(alpha: float, method: Method = "lac") -> int:
    """How many labels calibrate sets of which the share `alpha` may miss: `ceil(1 / alpha) - 1`.

    With fewer, every set would have to hold every class. RAPS, without a penalty and
    a rank, tunes them on a fifth, and needs five times as many.

    Args:
        alpha: the share that may miss, between 0 and 1.
        method: the score, as `ConformalPredictor` has it.

    Raises:
        EnsembleError: an `alpha` that is none.

    Example:
        >>> labels_needed(0.1), labels_needed(0.1, "raps")
        (9, 45)
    """
    share = _TUNED_ON if method == "raps" else 1
    return math.ceil((1 / Fraction(repr(check_share("alpha", alpha))) - 1) / share)


def _check_options(method: object, randomized: object, penalty: object, rank: object) -> None:
    if method not in get_args(Method):
        raise EnsembleError(
            f"Argument `method` must be 'lac', 'aps' or 'raps'. Received: method={shown(method)}"
        )
    if not isinstance(randomized, bool) or (randomized and method == "lac"):
        what = "False for method='lac'" if method == "lac" else "True or False"
        raise EnsembleError(
            f"Argument `randomized` must be {what}. Received: randomized={shown(randomized)}"
        )
    for name, value in (("penalty", penalty), ("rank", rank)):
        if value is not None and method != "raps":
            raise EnsembleError(
                f"Argument `{name}` must be left out for method={method!r}; it is one of 'raps'. "
                f"Received: {name}={shown(value)}"
            )
    if rank is not None:
        check_count("rank", rank, minimum=0)
    number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
    if penalty is not None and not (number and 0 <= cast(float, penalty) < math.inf):
        raise EnsembleError(
            "Argument `penalty` must be a finite number of at least 0. "
            f"Received: penalty={shown(penalty)}"
        )


def _position(labels: int, alpha: float, *, share: Fraction = Fraction(1)) -> int:
    """Which of so many sorted scores is the threshold: the `ceil((n + 1) (1 - alpha))`-th.

    Args:
        labels: how many.
        alpha: as it is written, so that 20 scores at 0.95 give the 20th, and not by
            rounding the 21st.
        share: of all labels, for the message.

    Raises:
        EnsembleError: there are too few.
    """
    wanted = Fraction(repr(float(alpha)))
    k = math.ceil((labels + 1) * (1 - wanted))
    if k > labels:
        least = labels_needed(alpha, "lac" if share == 1 else "raps")
        tuned = "" if share == 1 else f" ({labels} of them to tune on), or give penalty and rank"
        raise EnsembleError(
            f"There must be at least {least} labels for alpha={alpha:g}; with fewer, every set "
            f"would have to hold every class. Received: {math.floor(labels / share)}{tuned}"
        )
    return k


def _of_labels(made: ConformalPredictor, rows: Floats, classes: Any, draws: Floats) -> Floats:
    return cast(Floats, made.scores(rows, draws)[np.arange(len(rows)), classes])


def _calibrated(
    made: ConformalPredictor, rows: Floats, classes: Any, random: np.random.Generator
) -> ConformalPredictor:
    """With the threshold that some labels give."""
    k = _position(len(rows), made.alpha)
    scores = _of_labels(made, rows, classes, random.random(len(rows)))
    threshold = float(np.partition(scores, k - 1)[k - 1])
    return replace(made, threshold=threshold, labels=len(rows))


def _tuned(
    made: ConformalPredictor,
    rows: Floats,
    classes: Any,
    random: np.random.Generator,
    penalty: float | None,
    rank: int | None,
) -> ConformalPredictor:
    """With the rank, and the penalty of the smallest sets, for which none is given."""
    k = _position(len(rows), made.alpha, share=_TUNED_ON)
    if rank is None:
        order = np.argsort(-rows, axis=1, kind="stable")
        ranks = (order == classes[:, None]).argmax(axis=1) + 1
        rank = int(np.partition(ranks, k - 1)[k - 1])
    draws = random.random(len(rows))
    sizes: dict[float, float] = {}
    for each in PENALTIES if penalty is None else (float(penalty),):
        tried = replace(made, penalty=each, rank=rank)
        scores = _of_labels(tried, rows, classes, draws)
        tried = replace(tried, threshold=float(np.partition(scores, k - 1)[k - 1]))
        sizes[each] = float(tried.sets(rows, draws if made.randomized else None).sum())
    return replace(made, penalty=min(sizes, key=lambda each: sizes[each]), rank=rank)


def _read(reader: Reader) -> ConformalPredictor:
    names = [field.name for field in fields(ConformalPredictor)]
    reader.only("format", "version", *names)
    method = reader.text("method")
    if method not in get_args(Method):
        raise reader.error("method", f"one of {', '.join(map(repr, get_args(Method)))}")
    alpha, threshold, penalty = map(reader.number, ("alpha", "threshold", "penalty"))
    if not 0 < alpha < 1:
        raise reader.error("alpha", "a number between 0 and 1")
    for name, value in (("threshold", threshold), ("penalty", penalty)):
        if not 0 <= value < math.inf:
            raise reader.error(name, "a finite number of at least 0")
    counts = {}
    for name, least in (("labels", 1), ("classes", 2), ("rank", 0), ("seed", 0)):
        count = reader.count(name)
        if count is None or count < least:
            raise reader.error(name, f"an integer of at least {least}")
        counts[name] = count
    class_axis = reader.count("class_axis")
    if class_axis is not None and not -_MOST_AXES <= class_axis < _MOST_AXES:
        raise reader.error("class_axis", f"null or an axis, at most {_MOST_AXES - 1}")
    randomized = reader.flag("randomized")
    if randomized and method == "lac":
        raise reader.error("randomized", "false for the method 'lac'")
    if method != "raps" and (penalty or counts["rank"]):
        raise reader.error("penalty" if penalty else "rank", "0 for another method than 'raps'")
    return ConformalPredictor(
        method=cast(Method, method),
        alpha=alpha,
        threshold=threshold,
        class_axis=class_axis,
        randomized=randomized,
        penalty=penalty,
        **counts,
    )
