"""The best ensemble of a regression that held-out data can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Unpack, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..score.evidence import mean_and_error
from ..score.normal import normal_quantile
from ..score.quantiles import check_quantiles
from ..score.regression import REGRESSION_TITLES, RegressionMetric
from .baseline import Baseline
from .choice import Candidate, Choice, FitOptions, fit, names_of, warn_of_few
from .diagnosis import Evidence, findings_of
from .moments import Fitted, HeldOutRegression, Regression, Scorer, name_of
from .record import Select
from .search import greedy, least_log_loss, least_quadratic
from .selection import last_weights

Floats = NDArray[np.float64]

# What select="weights" finds the least of.
_CONVEX: Final = {("values", "mse"), ("gaussian", "mse"), ("gaussian", "gaussian_nll")}


def fit_regression(
    predictions: Sequence[Any] | Any,
    targets: Any,
    *,
    outputs: Regression = "values",
    select: Select = "last",
    metric: RegressionMetric | Scorer | None = None,
    variance: bool = True,
    quantiles: Sequence[float] | None = None,
    sample_weight: Any = None,
    mask: Any = None,
    counts: Any = None,
    names: Sequence[str] | None = None,
    steps: int = 50,
    bags: int = 0,
    seed: int = 0,
    digests: Sequence[str] | None = None,
    baseline: Any = None,
) -> Choice:
    """Choose members, weights and a variance for a regression on validation data.

    Nothing else goes into the choice: report it on data that were not given here.

    Args:
        predictions: the members' outputs for the validation data, oldest member first: a
            sequence, or one array with the members along its first axis. With
            outputs="values", of each an array of the targets' shape. With "gaussian", of
            each a tuple (or a list, or an array) of means and variances, or a dict with
            "mean" and "variance".
        targets: the truth, of shape (samples,), or of several targets (samples, ...).
        outputs: "values", or "gaussian" for pairs of means and variances.
        select: "last" takes the mean of the last m members, with the best m; "greedy" picks
            one after the other, with replacement; "weights" takes the best weights: by
            metric="mse" a quadratic program, exactly; by "gaussian_nll" of pairs those of the
            least negative log-likelihood of the mixture `sum(w N(m, v))`, which is convex (that
            of the normal with its mean and variance, by which candidates are scored, is not).
        metric: by which score to choose: "mse" (by default for values), "mae",
            "gaussian_nll" (by default for pairs), "crps", or "pinball" (by default for
            quantiles, and for those alone); or for "last" and "greedy" a function
            `metric(prediction, targets) -> float`, lower is better, of arrays of numpy's: the
            values, or a tuple of means and variances.
        variance: also fit what the pooled variance needs: of pairs a scale, as
            `fit_variance_scale`; of values a scale and the noise that they leave out, as
            `fit_spread`, which "gaussian_nll" and "crps" of values need.
        quantiles: where the values along the last axis are quantiles, which they are.
        sample_weight: how much each target counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts; the others may be NaN.
        counts: where the first axis has the targets of all samples one after the other, how
            many each sample has: the interval is by samples.
        names: of the members; by default "0", "1", ...
        steps: picks of select="greedy".
        bags: of select="greedy", as in `select_greedy`.
        seed: of the bags and the interval.
        digests: of the members, to know them again by.
        baseline: another model's outputs for the same data, as a member's are; as in `fit`. Its
            variance is fitted as that of the choice is.

    Returns:
        The choice; its `variance_scale` and `noise` are what was fitted. Its `apply` gives the
        pooled prediction, `predict_with_variance` of an ensemble the predictive variance.

    Raises:
        EnsembleError: arguments that cannot be, or arrays that do not fit.

    Warns:
        UserWarning: fewer than 1000 validation samples.

    Example:
        >>> random = np.random.default_rng(0)
        >>> y = random.normal(size=2000)
        >>> members = y + random.normal(size=(3, 2000))
        >>> choice = fit_regression(members, y, select="weights")
        >>> [round(weight, 1) for weight in choice.weights]
        [0.3, 0.3, 0.3]
        >>> choice.apply(members).shape, round(choice.noise[0], 1)
        ((2000,), 0.3)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.3, for the last m; Caruana
    et al. (2004); Breiman, "Stacked Regressions" (1996), for the weights of least MSE.
    """
    if metric is None:
        plain: RegressionMetric = "mse" if outputs == "values" else "gaussian_nll"
        metric = plain if quantiles is None else "pinball"
    levels = None if quantiles is None else check_quantiles(quantiles)
    _check(outputs, select, metric, levels, variance, sample_weight, mask)
    held_out = HeldOutRegression(
        predictions,
        targets,
        outputs=outputs,
        metric=metric,
        variance=variance,
        quantiles=levels,
        sample_weight=sample_weight,
        mask=mask,
        counts=counts,
    )
    names = names_of(members := len(held_out), names)
    other = None if baseline is None else held_out.of_other(baseline)
    lasts = list(held_out.last_moments())
    tried = [(last_weights(members, m), f"last {m}", each) for m, each in enumerate(lasts, start=1)]
    candidates: list[Candidate] = []
    raw = outputs == "gaussian" and variance  # what has no scale is a candidate too
    if raw or select != "last":
        for _, name, each in tried:
            candidates.append(_candidate(name, held_out.fitted(*each, fit=not raw)))
    gap = None
    if select != "last":
        weights, gap = _searched(held_out, select, steps=steps, bags=bags, seed=seed)
        tried = [(weights, select, held_out.moments(weights))]
        if raw:
            candidates.append(_candidate(select, held_out.fitted(*tried[0][2], fit=False)))
    fits = [held_out.fitted(*each) for _, _, each in tried]
    scores = [each.scores[held_out.metric] for each in fits]
    best = scores.index(min(scores))
    others = [i for i in range(len(tried)) if i != best]
    candidates += [_candidate(tried[i][1], fits[i]) for i in (*others, best)]
    noise = fits[best].noise
    than = held_out.fitted(*lasts[-1], fit=outputs == "values")
    interval = held_out.differences(fits[best], than, seed)
    evidence = regression_evidence(
        held_out, names, "validation sample", interval, fits[best], len(candidates)
    )
    choice = Choice(
        members=tuple(names),
        weights=tried[best][0],
        temperature=1.0,
        class_axis=None,
        select=select,
        metric=held_out.metric,
        candidates=tuple(candidates),
        samples=held_out.targets.counted,
        interval=interval,
        seed=seed,
        gap=gap,
        digests=None if digests is None else tuple(digests),
        outputs=outputs,
        variance_scale=fits[best].scale,
        noise=None if noise is None else tuple(noise.tolist()),
        quantiles=levels,
        findings=findings_of(evidence),
    )
    if other is not None:
        stands = _beside(held_out, fits[best], other, seed)
        title = REGRESSION_TITLES.get(held_out.metric, held_out.metric)
        more = stands.finding(held_out.metric, title, choice.samples)
        choice = replace(choice, baseline=stands, findings=(*choice.findings, *more))
    if raw:
        alone = held_out.fitted(*held_out.moments(last_weights(members, 1)))
        choice = replace(choice, last_alone=_beside(held_out, fits[best], alone, seed))
    warn_of_few(choice, REGRESSION_TITLES.get(held_out.metric, held_out.metric))
    return choice


def _beside(held_out: HeldOutRegression, chosen: Fitted, other: Fitted, seed: int) -> Baseline:
    """How the choice stands beside another model."""
    metric, interval = held_out.metric, held_out.differences(chosen, other, seed)
    difference = chosen.scores[metric] - other.scores[metric]
    error = (interval[1] - interval[0]) / (2 * normal_quantile(0.975))
    if held_out.scorer is None:
        both = [held_out.rows(metric, each.prediction) for each in (chosen, other)]
        error = mean_and_error(held_out.targets.per_sample(both[0] - both[1]))[1]
    return Baseline(
        score=other.scores[metric],
        difference=difference,
        error=error,
        interval=interval,
        variance_scale=other.scale if other.noise is None else 1.0,
    )


def regression_evidence(
    held_out: HeldOutRegression,
    names: Sequence[str],
    data: str,
    interval: tuple[float, float] | None = None,
    chosen: Fitted | None = None,
    candidates: int = 1,
) -> Evidence:
    """The scores of a regression's members, for `findings_of`.

    Args:
        held_out: their outputs and the targets, with the metric of the choice.
        names: of the members.
        data: what the samples are called.
        interval: of the choice's score less that of the plain mean.
        chosen: the choice's prediction; None where there is none, or it is of other data.
        candidates: how many were compared.
    """
    by = held_out.metric
    if held_out.scorer is not None:  # which is known of all samples together alone
        by = "mse" if held_out.outputs == "values" else "gaussian_nll"
        by = by if held_out.quantiles is None else "pinball"
    convex = "mse" if held_out.quantiles is None else "pinball"

    def scores(prediction: tuple[Floats, ...], name: str = by) -> Floats:
        return held_out.targets.per_sample(held_out.rows(name, prediction))

    alone, squares, lasts = [], [], list(held_out.last_moments())
    for one in np.eye(len(held_out)):
        moments = held_out.moments(one)
        alone.append(scores(held_out.fitted(*moments).prediction))
        squares.append(scores(moments[:1], convex))
    own = by == held_out.metric and held_out.scorer is None
    return Evidence(
        names=names,
        data=data,
        metric=by,
        title=REGRESSION_TITLES[by],
        alone=alone,
        lasts=[scores(held_out.fitted(*moments).prediction) for moments in lasts],
        convex_title=REGRESSION_TITLES[convex],
        convex=(np.mean(squares, axis=0), scores(lasts[-1][:1], convex)),
        chosen=(scores(chosen.prediction), alone[-1]) if chosen is not None and own else None,
        candidates=candidates,
        interval=interval,
        judged=(held_out.metric, REGRESSION_TITLES.get(held_out.metric, held_out.metric)),
    )


def fit_outputs(
    outputs: str,
    predictions: Sequence[Any] | Any,
    truth: Any,
    *,
    class_axis: int | None,
    names: Sequence[str],
    digests: Sequence[str] | None,
    **options: Unpack[FitOptions],
) -> Choice:
    """What `fit` or `fit_regression` chooses, by what the outputs are.

    Raises:
        EnsembleError: an option of the other one; or as they.
    """
    values = outputs in get_args(Regression)
    given: dict[str, Any] = {"names": names, "digests": digests, **options}
    others = (
        ("temperature", "budget", "ignore_index", "classes")
        if values
        else ("variance", "quantiles")
    )
    for name in options:
        if name in others:
            raise EnsembleError(
                f"Argument `{name}` must be left out for "
                + ("a regression, whose variance is fitted" if values else "classes")
                + f". Received: {name}={shown(given[name])}"
            )
    if values:
        return fit_regression(predictions, truth, outputs=cast(Regression, outputs), **given)
    return fit(predictions, truth, class_axis=class_axis, **given)


def _candidate(name: str, found: Fitted) -> Candidate:
    if found.scale != 1 and found.noise is None:
        name += f", variance scale {found.scale:.4g}"
    if found.noise is not None:
        name += f", noise {', '.join(f'{each:.4g}' for each in found.noise)}"
    return Candidate(name=name, scores=found.scores)


def _searched(
    held_out: HeldOutRegression, select: str, *, steps: int, bags: int, seed: int
) -> tuple[tuple[float, ...], float | None]:
    """The weights that a search finds, and its gap if it has one."""
    everyone = np.arange(len(held_out))
    if select == "greedy":
        weights, _ = greedy(
            held_out.objective,
            len(held_out),
            steps=steps,
            initial=None,
            bags=bags,
            bag_fraction=0.5,
            seed=seed,
        )
        return tuple(weights.tolist()), None
    if held_out.metric == "mse":
        found = least_quadratic(held_out.products(everyone))
    else:
        found = least_log_loss(held_out.likelihoods()[0], held_out.targets.weights)
    return tuple(found.weights.tolist()), found.gap


def _check(
    outputs: object,
    select: object,
    metric: RegressionMetric | Scorer,
    quantiles: tuple[float, ...] | None,
    variance: bool,
    sample_weight: Any,
    mask: Any,
) -> None:
    """Refuse arguments that cannot be, or cannot be together."""
    if outputs not in get_args(Regression):
        raise EnsembleError(
            f"Argument `outputs` must be 'values' or 'gaussian'. Received: outputs={shown(outputs)}"
        )
    if select == "auto" or select not in get_args(Select):
        raise EnsembleError(
            "Argument `select` must be 'last', 'greedy' or 'weights'. "
            f"Received: select={shown(select)}"
        )
    name = name_of(metric)
    if quantiles is not None and outputs == "gaussian":
        raise EnsembleError(
            "Argument `quantiles` must be left out for outputs='gaussian'. "
            f"Received: quantiles={shown(quantiles)}"
        )
    if callable(metric):
        if sample_weight is not None or mask is not None:
            raise EnsembleError(
                "Arguments `sample_weight` and `mask` must be left out for a metric that is a "
                "function, which gets all samples. Received: one of them; leave samples out before"
            )
    elif (name == "pinball") != (quantiles is not None):
        raise EnsembleError(
            "Argument `metric` must be 'pinball' for quantiles, and `quantiles` must be given for "
            f"it. Received: metric={name!r}, quantiles={shown(quantiles)}"
        )
    elif name in ("gaussian_nll", "crps") and outputs == "values" and not variance:
        raise EnsembleError(
            f"Argument `variance` must be True for metric={name!r} of values, which need the noise "
            "for it. Received: variance=False"
        )
    if select == "weights" and (outputs, name) not in _CONVEX:
        also = " or 'gaussian_nll'" if outputs == "gaussian" else ""
        raise EnsembleError(
            f"Argument `metric` must be 'mse'{also} for select='weights', of which the least is "
            f"found exactly. Received: metric={name!r}; give select='greedy' for it"
        )
