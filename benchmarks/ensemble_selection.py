"""What choosing an ensemble costs: ours beside the plain way to the same answer.

    python -m benchmarks.ensemble_selection [--quick]

Members' predictions are drawn at random: 50 of 100,000 samples and 10 classes
(10 of 10,000 with --quick). In the processor's
time of all threads; OMP_NUM_THREADS=1 leaves out what they cost each other. The
plain greedy search forms every mean and scores all of its rows; it is timed for ten
members, and the rest counted. The plain weights are those of scipy's SLSQP on the
same likelihoods, to a tolerance of 1e-13; run alone, the log-loss that each reached
is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.harness import Figure, alone, in_turn
from cosanneal.ensemble import (
    HeldOut,
    fit_temperature,
    select_greedy,
    select_last,
    select_weights,
)
from cosanneal.ensemble.score.metrics import METRICS, Metric, row_scores

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


def plain_greedy(held_out: HeldOut, members: int, metric: Metric) -> Callable[[], float]:
    """Milliseconds of a search that scores every mean anew, from those of at most ten members."""
    rows = [held_out.rows(i) for i in range(min(members, 10))]
    total = sum(rows[1:], start=rows[0])

    def search() -> float:
        start = time.process_time()
        for member in rows:
            row_scores(metric, (total + member) / (len(rows) + 1), held_out.labels).mean()
        # The members alone are scored for the start.
        return (time.process_time() - start) * members / len(rows) * (PICKS + 1) * 1e3

    return search


def plain_weights(held_out: HeldOut, members: int) -> Any:
    """What scipy's SLSQP finds."""
    likelihoods = held_out.likelihoods
    return minimize(
        lambda w: -np.log(likelihoods @ w).mean(),
        np.full(members, 1 / members),
        jac=lambda w: -(likelihoods / (likelihoods @ w)[:, None]).mean(axis=0),
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-13, "maxiter": 1000},
    )


def measure(members: int = 50, samples: int = 100_000, classes: int = 10) -> Iterator[Figure]:
    """Each way to choose, and what comes before and after."""
    p, y = draw(members, samples, classes)
    held_out = HeldOut(p, y)

    def figure(name: str, ours: Callable[[], object], **peers: Callable[[], object]) -> Figure:
        times = in_turn({"ours": ours, **peers}, repeats=3, per=1e-3, clock=time.process_time)
        return Figure(name=name, unit="ms", ours=times.pop("ours"), peers=times)

    yield figure("read and check the predictions", partial(HeldOut, p, y))
    yield figure("the last m", partial(select_last, held_out))
    for metric in METRICS:
        yield figure(
            f"greedy by {metric}, {PICKS} picks",
            partial(select_greedy, held_out, metric, steps=PICKS, initial=1),
            **{"plain greedy search": plain_greedy(held_out, members, metric)},
        )
    yield figure(
        "weights",
        partial(select_weights, held_out),
        **{"scipy's SLSQP": partial(plain_weights, held_out, members)},
    )
    found, theirs = select_weights(held_out), plain_weights(held_out, members)
    pooled = held_out.pooled(found.weights)
    # Not a number, which `in_turn` would take for a time.
    yield figure("temperature", lambda: [fit_temperature(pooled, y)])
    print(f"{members} members, {samples:,} samples, {classes} classes")
    print(f"log-loss of the last m {select_last(held_out).score:.8f}")
    print(f"of our weights {found.score:.10f} (gap {found.gap:.0e}), SLSQP's {theirs.fun:.10f}")
    print(f"temperature {fit_temperature(pooled, y):.4f}")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer members and samples")
    quick = parser.parse_args().quick
    return alone(measure(10, 10_000) if quick else measure())


if __name__ == "__main__":
    sys.exit(main())
