"""What choosing an ensemble costs: ours beside the plain way to the same answer, in one run.

    python benchmarks/ensemble_selection.py [--quick]

Members' predictions are drawn at random: 50 of 100,000 samples and 10 classes
(10 of 10,000 with --quick). Each line is the median processor time of three
repeats; give OMP_NUM_THREADS=1. The plain greedy search forms every mean and
scores all of its rows; it is timed for ten members, and the rest counted. The
plain weights are those of scipy's SLSQP on the same likelihoods, to a tolerance
of 1e-13; the last column has the log-loss that each reached.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cosanneal.ensemble import (
    HeldOut,
    fit_temperature,
    select_greedy,
    select_last,
    select_weights,
)
from cosanneal.ensemble.metrics import METRICS, row_scores

PICKS = 50


def draw(members: int, samples: int, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions of members that err together and apart, in float32, and labels."""
    random = np.random.default_rng(0)
    y = random.integers(classes, size=samples)
    common = 1.5 * np.eye(classes)[y] + random.normal(size=(samples, classes))
    p = np.empty((members, samples, classes), np.float32)
    for member in p:
        z = common * random.uniform(0.5, 1.5) + random.normal(size=(samples, classes))
        powers = np.exp(z)
        member[:] = powers / powers.sum(1, keepdims=True)
    return p, y


def median_of(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The median processor time of a call, in seconds, and what it returned."""
    times, found = [], None
    for _ in range(repeats):
        start = time.process_time()
        found = action()
        times.append(time.process_time() - start)
    return statistics.median(times), found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer members and samples")
    quick = parser.parse_args().quick
    members, samples, classes = (10, 10_000, 10) if quick else (50, 100_000, 10)
    p, y = draw(members, samples, classes)
    line = "{:<40} {:>9} {:>9} {:>8}  {}"
    print(f"{members} members, {samples:,} samples, {classes} classes")
    print(line.format("", "ours, s", "plain, s", "ratio", "log-loss, ours and plain"))
    cost, held_out = median_of(lambda: HeldOut(p, y), 3)
    print(line.format("read and check the predictions", f"{cost:.3f}", "", "", ""), flush=True)
    cost, found = median_of(lambda: select_last(held_out), 3)
    print(line.format("the last m", f"{cost:.3f}", "", "", f"{found.score:.8f}"), flush=True)

    rows = [held_out.rows(i) for i in range(min(members, 10))]
    total = sum(rows[1:], start=rows[0])
    for metric in METRICS:

        def score_each(metric: Any = metric) -> None:
            for member in rows:
                row_scores(metric, (total + member) / (len(rows) + 1), held_out.labels).mean()

        # The members alone are scored for the start.
        plain = median_of(score_each, 3)[0] * members / len(rows) * (PICKS + 1)
        cost, found = median_of(
            lambda m=metric: select_greedy(held_out, m, steps=PICKS, initial=1),  # type: ignore[misc]
            3,
        )
        title = f"greedy by {metric}, {PICKS} picks"
        ratio = f"{cost / plain:.3f}"
        print(line.format(title, f"{cost:.3f}", f"{plain:.3f}", ratio, ""), flush=True)

    likelihoods = held_out.likelihoods

    def slsqp() -> Any:
        return minimize(
            lambda w: -np.log(likelihoods @ w).mean(),
            np.full(members, 1 / members),
            jac=lambda w: -(likelihoods / (likelihoods @ w)[:, None]).mean(axis=0),
            method="SLSQP",
            bounds=[(0, 1)] * members,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-13, "maxiter": 1000},
        )

    cost, found = median_of(lambda: select_weights(held_out), 3)
    plain, theirs = median_of(slsqp, 3)
    reached = f"{found.score:.10f} (gap {found.gap:.0e}), {theirs.fun:.10f}"
    print(
        line.format("weights", f"{cost:.3f}", f"{plain:.3f}", f"{cost / plain:.3f}", reached),
        flush=True,
    )
    pooled = held_out.pooled(found.weights)
    cost, temperature = median_of(lambda: fit_temperature(pooled, y), 3)
    print(line.format("temperature", f"{cost:.3f}", "", "", f"T = {temperature:.4f}"))


if __name__ == "__main__":
    main()
