"""Selective prediction, beside loops over every order of what ties."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal.ensemble import (
    RiskCoverage,
    augrc,
    aurc,
    coverage_at_risk,
    error_rate,
    risk_at_coverage,
    risk_coverage,
)


def expected_risks(losses: list[int], doubts: list[int]) -> list[Fraction]:
    """The mean over all orders that sort the doubts, in fractions."""
    n = len(losses)
    orders = [
        order
        for order in itertools.permutations(range(n))
        if all(doubts[a] <= doubts[b] for a, b in itertools.pairwise(order))
    ]
    return [
        Fraction(sum(losses[i] for order in orders for i in order[:k]), k * len(orders))
        for k in range(1, n + 1)
    ]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=6))
def test_risks_are_the_mean_over_all_orders_of_what_ties(pairs: list[tuple[int, int]]) -> None:
    losses, doubts = [list(each) for each in zip(*pairs, strict=True)]
    found = RiskCoverage.of(losses, doubts)
    expected = expected_risks(losses, doubts)
    # Each is one division of whole numbers, and so the nearest float.
    assert found.risk.tolist() == [float(risk) for risk in expected]
    n = len(pairs)
    assert found.coverage.tolist() == [k / n for k in range(1, n + 1)]
    if n > 1:
        pieces = [(a + b) / 2 for a, b in itertools.pairwise(expected)]
        assert found.aurc == pytest.approx(float(sum(pieces) / (n - 1)), abs=1e-15)
        general = [k * risk / n for k, risk in enumerate(expected, start=1)]
        pieces = [(a + b) / 2 for a, b in itertools.pairwise(general)]
        assert found.augrc == pytest.approx(float(sum(pieces) / (n - 1)), abs=1e-15)
    else:
        assert found.aurc == found.augrc == losses[0]
    for wanted in (0.0, 0.2, 0.25, 0.5, 1.0):
        reached = [k for k, risk in enumerate(expected, start=1) if risk <= Fraction(str(wanted))]
        assert found.coverage_at_risk(wanted) == (max(reached) / n if reached else 0.0)


def drawn(samples: int = 300) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), size=samples)
    return p, np.where(
        random.random(samples) < p.max(1), p.argmax(1), random.integers(4, size=samples)
    )


def test_the_surest_come_first() -> None:
    p, y = drawn()
    found = risk_coverage(p, y)
    order = np.argsort(-p.max(1))
    errors = (p.argmax(1) != y)[order]
    np.testing.assert_allclose(found.risk, np.cumsum(errors) / np.arange(1, 301), rtol=1e-15)
    assert found.risk[-1] == error_rate(p, y)
    assert aurc(p, y) == found.aurc
    assert augrc(p, y) == found.augrc
    assert coverage_at_risk(p, y, 0.3) == found.coverage_at_risk(0.3)
    assert risk_at_coverage(p, y, 0.8) == found.risk_at_coverage(0.8) == found.risk[239]
    # The order matters, not by how much; and another doubt gives another order.
    assert aurc(p, y, uncertainty=np.exp(-7 * p.max(1))) == aurc(p, y)
    assert aurc(p, y, uncertainty=p.max(1)) > aurc(p, y)
    assert aurc(p, y, uncertainty=np.zeros(300)) == pytest.approx(error_rate(p, y), rel=1e-12)


def test_a_coverage_is_the_decimal_that_it_is_written_as() -> None:
    found = RiskCoverage.of(np.arange(100.0), np.arange(100.0))
    for percent in range(1, 101):
        assert found.risk_at_coverage(percent / 100) == (percent - 1) / 2
    assert math.ceil(0.55 * 100) == 56  # as floats would have it
    assert found.risk_at_coverage(1) == 49.5


def test_dense_outputs_and_outcomes_are_taken_label_by_label() -> None:
    p, y = drawn()
    dense = np.moveaxis(p.reshape(30, 10, 4), -1, 1)
    assert aurc(dense, y.reshape(30, 10), class_axis=1) == aurc(p, y)
    doubt = -p.max(1).reshape(30, 10)
    assert aurc(dense, y.reshape(30, 10), uncertainty=doubt, class_axis=1) == aurc(p, y)
    q, happened = p[:, 0], (y == 0).astype(int)
    both = np.stack([1 - q, q], 1)
    for probabilities in (q, q.reshape(100, 3)):
        labels = happened.reshape(probabilities.shape)
        assert aurc(probabilities, labels, class_axis=None) == aurc(both, happened)


def test_what_cannot_be_is_refused() -> None:
    p, y = drawn()
    with pytest.raises(ca.EnsembleError, match=r"a number for each label. Received: shape \(3,\)"):
        risk_coverage(p, y, uncertainty=[1, 2, 3])
    with pytest.raises(ca.EnsembleError, match=r"`uncertainty` must be finite. Received"):
        risk_coverage(p, y, uncertainty=np.full(300, np.nan))
    with pytest.raises(ca.EnsembleError, match="`losses` must be finite and at least 0"):
        RiskCoverage.of([-1.0], [0.0])
    for losses, doubts in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ca.EnsembleError, match="must have one shape, with at least one"):
            RiskCoverage.of(losses, doubts)
    found = risk_coverage(p, y)
    refused: Any
    for refused in (-0.1, math.nan, math.inf, True, "0.1"):
        with pytest.raises(ca.EnsembleError, match="`risk` must be a finite number of at least 0"):
            found.coverage_at_risk(refused)
    for refused in (0, 1.01, math.nan, True, None):
        with pytest.raises(ca.EnsembleError, match="`coverage` must be a number above 0"):
            found.risk_at_coverage(refused)
