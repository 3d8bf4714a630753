"""Snapshots of params that are taken between the cycles' ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder
from cosanneal.core.errors import SnapshotError

pytestmark = pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")

SCHEDULE = ca.CyclicCosine(0.1, total_steps=6, num_cycles=2)


def params(value: float) -> dict[str, Any]:
    return {"kernel": jnp.full((2, 3), value)}


def test_one_is_taken_at_any_update_with_the_rate_that_is_known(tmp_path: Path) -> None:
    tx = optax.chain(
        optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.5, 0.1, 4))
    )
    weights: Any = params(1.0)
    state = tx.init(weights)
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        for update in range(1, 6):
            moves, state = tx.update(params(1.0), state, weights)
            weights = optax.apply_updates(weights, moves)
            taken = recorder.step(weights)
            assert taken == (update == 3)
            if update == 1:
                assert recorder.take(weights)
            if update == 2:
                assert recorder.take(weights, {"val_error": 0.5}, opt_state=state)
            if update == 3:
                assert not recorder.take(weights)
                assert recorder.take(weights, {"val_error": 0.4}, rate=0.3)
            if update == 4:
                assert recorder.take(weights, rate=jnp.float32(0.25))
    found = recorder.store.list()
    assert [(each.cycle, each.step) for each in found] == [(0, 1), (0, 2), (0, 3), (1, 4)]
    rates = [each.metadata["rate"] for each in found]
    # Optax's own at its second update: a quarter of the way from 0.5 to 0.1.
    assert rates == [SCHEDULE.rate(0), pytest.approx(0.4, rel=1e-6), 0.3, 0.25]
    assert [each.metadata["metrics"] for each in found[1:3]] == [
        {"val_error": 0.5},
        {"val_error": 0.4},
    ]
    # By 0.5, and 0.4: what the first two updates took off.
    np.testing.assert_allclose(found[1].load()["kernel"], 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"rate": -0.1}, "`rate` must be .* Received: rate=-0.1"),
        ({"rate": "0.1"}, "`rate` must be .* Received: rate='0.1'"),
        ({"rate": 0.1, "opt_state": ()}, "both; give one"),
        ({"opt_state": optax.sgd(0.1).init(params(1.0))}, "must hold one rate.*none; give rate="),
        (
            {
                "opt_state": [
                    optax.inject_hyperparams(optax.sgd)(each).init(params(1.0))
                    for each in (0.25, 0.5)
                ]
            },
            r"rates of \[0.25, 0.5\]; give rate=",
        ),
    ],
)
def test_rates_that_cannot_be_are_refused(
    tmp_path: Path, given: dict[str, Any], error: str
) -> None:
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        with pytest.raises(SnapshotError, match="none so far"):
            recorder.take(params(1.0))
        recorder.step(params(1.0))
        with pytest.raises(SnapshotError, match=error):
            recorder.take(params(1.0), **given)
    assert recorder.store.list() == []
