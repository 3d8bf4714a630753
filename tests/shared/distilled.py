"""The loss of a distillation in another way, in float64 by scipy, and what is given to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, rel_entr, softmax

# The arrays and the options of a call.
Call = tuple[tuple[NDArray[Any], ...], dict[str, Any]]


def case(
    *, shape: tuple[int, ...] = (6, 7), zeros: bool = False, seed: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Logits, probabilities and labels of some samples; one axis is put before a lone one."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=shape)
    q = rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
    if zeros:
        q[..., rng.integers(shape[-1])] = 0
        q /= q.sum(axis=-1, keepdims=True)
    return logits, q, rng.integers(shape[-1], size=shape[:-1])


def exact(
    logits: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike | None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
) -> float:
    """Powers and relative entropies, where the library's has logarithms."""
    z, q = np.asarray(logits, np.float64), np.asarray(probabilities, np.float64)
    power = q ** (1 / temperature)
    power /= power.sum(axis=-1, keepdims=True)
    divergence = rel_entr(power, softmax(z / temperature, axis=-1)).sum(axis=-1)
    first = temperature**2 * float(np.mean(divergence))
    if labels is None:
        return first
    hot = np.eye(z.shape[-1])[np.asarray(labels)]
    second = float(np.mean(logsumexp(z, axis=-1) - (hot * z).sum(axis=-1)))
    return alpha * first + (1 - alpha) * second


def slopes(
    logits: ArrayLike, probabilities: ArrayLike, labels: ArrayLike | None, **options: float
) -> NDArray[np.float64]:
    """The derivatives of `exact` by the logits, by central differences."""
    z = np.asarray(logits, np.float64)
    found = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = z.copy()
            moved[place] += step
            ends.append(exact(moved, probabilities, labels, **options))
        found[place] = (ends[0] - ends[1]) / 2e-5
    return found


def refused() -> dict[tuple[str, str], Call]:
    """By a name and what the error says, calls that cannot be."""
    logits, q, labels = case()
    two = (logits, q)
    return {
        ("no axis", "`logits` must have the shape"): ((logits[0, 0], q[0, 0]), {}),
        ("one class", "and 2 classes"): ((logits[:, :1], q[:, :1]), {}),
        ("no sample", r"Received: logits of the shape \(0, 7\)"): ((logits[:0], q[:0]), {}),
        ("whole numbers", "must be of a floating dtype"): (
            (labels[:, None] + two[0].astype(int), q),
            {},
        ),
        ("other classes", r"Received: probabilities of the shape \(6, 6\)"): (
            (logits, q[:, :6]),
            {},
        ),
        ("one row", r"must have the shape of the logits, \(6, 7\)"): ((logits, q[:1]), {}),
        ("columns", r"Received: labels of the shape \(6, 1\)"): ((*two, labels[:, None]), {}),
        ("one-hot", r"the shape of the logits without the classes, \(6,\)"): ((*two, q), {}),
        ("fractions", "must be of an integer dtype"): ((*two, labels.astype(np.float32)), {}),
        ("truths", "must be of an integer dtype"): ((*two, labels > 3), {}),
        **{
            (f"temperature {value}", "from 0.001 to 1000. Received: temperature="): (
                two,
                {"temperature": value},
            )
            for value in (0, -1.0, 1e-4, 1001, float("nan"), float("inf"), "2", None, True)
        },
        **{
            (f"alpha {value}", "`alpha` must be a number from 0"): (two, {"alpha": value})
            for value in (-0.1, 1.1, float("nan"), "1", None, True)
        },
    }
