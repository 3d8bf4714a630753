"""What averaged weights predict, in every framework alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cosanneal import ensemble as on_arrays


def scaled(logits: Any, temperature: float) -> Any:
    """The softmax at a temperature, by numpy alone."""
    z = np.asarray(logits, np.float64) / temperature
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def best_temperature(logits: Any, y: Any) -> float:
    """The temperature of the least log-loss, by cutting a bracket in three, again and again."""

    def loss(log_t: float) -> float:
        p = scaled(logits, float(np.exp(log_t)))
        return float(-np.log(p[np.arange(len(p)), y]).mean())

    low, high = -4.0, 4.0
    for _ in range(60):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if loss(first) < loss(second):
            high = second
        else:
            low = first
    return float(np.exp((low + high) / 2))


def check_averaged(
    ensemble: Any, logits: Callable[[Any, Any], Any], x: Any, y: Any, **options: Any
) -> Any:
    """The prediction of averaged weights beside that of a model that has them.

    Args:
        ensemble: an ensemble whose outputs are logits.
        logits: what the framework's own model gives with the weights, for an input.
        x: validation data, of which half is for the temperature.
        y: their labels.
        options: of `average_weights`.
    """
    half = len(x) // 2
    found = ensemble.average_weights(x[:half], y[:half], barrier=1e9, **options)
    alone = np.asarray(logits(found.weights, x[:half]))
    labels = np.asarray(y)
    temperature = best_temperature(alone, labels[:half])
    assert abs(np.log(temperature)) > 0.05
    assert found.temperature == pytest.approx(temperature, rel=1e-4)
    assert f"temperature={found.temperature}" in repr(found)
    expected = scaled(logits(found.weights, x[half:]), found.temperature)
    for batch_size in (None, 7):
        p = found.predict(x[half:], batch_size=batch_size)
        assert type(p) is type(ensemble.predict(x[half:]))
        assert p.dtype == ensemble.predict(x[half:]).dtype
        np.testing.assert_allclose(np.asarray(p), expected, rtol=2e-5, atol=1e-7)
    assert found.calibrated_scores["log_loss"] == pytest.approx(
        on_arrays.log_loss(scaled(alone, temperature), labels[:half]), rel=1e-5
    )
    assert found.scores["log_loss"] == pytest.approx(
        on_arrays.log_loss(scaled(alone, 1.0), labels[:half]), rel=1e-5
    )
    assert found.calibrated_scores["log_loss"] < found.scores["log_loss"]
    plain = ensemble.average_weights(x[:half], y[:half], barrier=1e9, temperature=False, **options)
    assert (plain.temperature, plain.calibrated_scores) == (1.0, None)
    expected = scaled(logits(found.weights, x[half:]), 1.0)
    np.testing.assert_allclose(np.asarray(plain.predict(x[half:])), expected, rtol=2e-5, atol=1e-7)
    return found
