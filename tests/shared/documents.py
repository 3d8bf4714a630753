"""Results documents: of synthetic members of varying quality, with every part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import Choice, analyze, analyze_uncertainty, fit
from cosanneal.ensemble.results import FORMAT, VERSION
from tests.shared.recording import ArrayRecorder


def members_of(
    count: int, samples: int, *, classes: int = 4, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities of members of which the later ones know more, and the labels."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    shared = random.normal(size=(samples, classes))
    noise = np.linspace(1.6, 0.9, count)[:, None, None]
    own = random.normal(size=(count, samples, classes))
    z = 2.2 * np.eye(classes)[y] + noise * (0.6 * shared + 0.8 * own)
    p = np.exp(2.4 * z)
    return p / p.sum(-1, keepdims=True), y


def analysis_of(count: int = 5, *, names: list[str] | None = None, **options: Any) -> Any:
    """Members chosen on some samples and analyzed on 1000 others."""
    p, y = members_of(count, 2200)
    choice = fit(p[:, :1200], y[:1200], names=names, **options)
    return analyze(p[:, 1200:], y[1200:], choice=choice)


def uncertainty_of(count: int = 5, *, choice: Choice | None = None, outside: bool = True) -> Any:
    """How sure the members of `analysis_of` are, with data from elsewhere or without."""
    p, y = members_of(count, 2200)
    strange = np.roll(members_of(count, 300, seed=7)[0], np.arange(count), axis=-1)
    return analyze_uncertainty(
        p[:, 1200:],
        y[1200:],
        choice=choice,
        held_out=(p[:, :1200], y[:1200]),
        ood=(strange**0.3 / (strange**0.3).sum(-1, keepdims=True)) if outside else None,
    )


def bare(**parts: Any) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "title": "Five snapshots", **parts}


def spread(mean: float, std: float | None = 0.002) -> dict[str, Any]:
    return {"mean": mean, "std": std}


def score(error: float) -> dict[str, float]:
    return {"error": error, "log_loss": 3 * error, "brier": 1.5 * error, "ece": error / 3}


def whole(count: int = 5, *, names: list[str] | None = None, **options: Any) -> dict[str, Any]:
    """A document with every part."""
    schedule = ca.CyclicCosine(0.1, total_steps=200 * count, num_cycles=count)
    rates = schedule.rates()
    random = np.random.default_rng(1)
    losses = [
        2 * float(np.exp(-i / 300)) + 3 * rate + 0.2 * float(random.random())
        for i, rate in enumerate(rates)
    ]
    analysis = analysis_of(count, names=names, **options)
    names = [row["name"] for row in analysis["members"]]
    shares = [i / 10 for i in range(11)]
    paths = []
    for i, first in enumerate(names[:-1]):
        losses_along = [0.4 + 4 * (1 + i) * s * (1 - s) for s in shares]
        paths.append(
            {
                "first": first,
                "second": names[-1],
                "shares": shares,
                "losses": losses_along,
                "errors": [loss / 5 for loss in losses_along],
                "barrier": max(losses_along) - 0.4,
            }
        )
    return bare(
        run={"rate": rates, "loss": losses, "cycle_ends": schedule.cycle_ends()},
        analysis=analysis,
        uncertainty=uncertainty_of(count, choice=Choice.from_dict(analysis["choice"])),
        interpolations=paths,
        average={
            "members": names[-3:],
            "refused": None,
            "ensemble": score(0.05),
            "barrier": 0.02,
            **score(0.06),
        },
        comparison={
            "seeds": 5,
            "title": "Digits, 300 scans",
            "rows": [
                {"model": name, "test_error": spread(error), "test_nll": spread(3 * error, 0.01)}
                for name, error in (("Single", 0.022), ("One cosine", 0.021), ("Chosen", 0.019))
            ],
        },
        study={
            "updates": 4000,
            "seeds": 3,
            "rows": [
                {
                    "cycles": m,
                    **{
                        each: {"test_error": spread(e), "test_nll": spread(3 * e, 0.01)}
                        for each, e in (
                            ("last", 0.02 + 0.0004 * m),
                            ("all", 0.02 + 0.0001 * m),
                            ("best", 0.02 - 0.0001 * m),
                        )
                    },
                }
                for m in (1, 2, 4, 8)
            ],
        },
    )


def record_folder(folder: Path, *, cycles: int = 4) -> None:
    """Snapshots of a run, with the user's metrics."""
    schedule = ca.CyclicCosine(0.1, total_steps=10 * cycles, num_cycles=cycles)
    with ArrayRecorder(folder, schedule) as recorder:
        for i in range(10 * cycles):
            weights = {"w": np.full(3, i, np.float32)}
            loss = float("nan") if i < 10 else 1 / (1 + i)
            recorder.step(weights, {"val_loss": loss, "note": "<b>&", "epoch": i // 10})
