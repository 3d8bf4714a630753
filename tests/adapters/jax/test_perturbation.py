"""Shrinking and perturbing params at a restart, and forgetting the momentum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import (
    SnapshotEnsemble,
    SnapshotRecorder,
    cyclic_cosine_schedule,
    reset_momentum,
    shrink_and_perturb,
)
from cosanneal.core.errors import ScheduleError

SCHEDULE = ca.CyclicCosine(0.2, total_steps=9, num_cycles=3)
RESTARTS = {cycle.start: cycle.index for cycle in SCHEDULE.cycles()[1:]}
KEY = jax.random.key(0)


def init(key: jax.Array) -> dict[str, Any]:
    one, other = jax.random.split(key)
    return {"w": jax.random.normal(one, (3, 2)), "b": jax.random.normal(other, (2,))}


def same(one: Any, other: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(lambda a, b: jnp.array_equal(a, b), one, other)))


@pytest.mark.parametrize(("shrink", "perturb"), [(0.5, 0.5), (0.8, 0.1), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("within", [lambda function: function, jax.jit])
def test_floats_are_mixed_and_all_else_stays(shrink: float, perturb: float, within: Any) -> None:
    params = init(KEY) | {"half": jnp.ones(2, jnp.bfloat16), "count": jnp.array(3), "key": KEY}
    new = jax.random.key(1)
    fresh = init(new) | {"half": jnp.zeros(2, jnp.float32), "count": jnp.array(7), "key": new}
    mixed = within(lambda a, b: shrink_and_perturb(a, b, shrink=shrink, perturb=perturb))(
        params, fresh
    )
    for name in ("w", "b"):
        expected = shrink * np.float64(params[name]) + perturb * np.float64(fresh[name])
        np.testing.assert_allclose(mixed[name], expected, rtol=1e-6, atol=1e-7)
    assert mixed["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(mixed["half"], jnp.full(2, shrink, jnp.bfloat16))
    assert mixed["count"] == 3
    assert same(jax.random.key_data(mixed["key"]), jax.random.key_data(KEY))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shrink": -0.1}, r"`shrink` must be a number from 0 to 1\. Received: shrink=-0\.1"),
        ({"perturb": True}, r"`perturb` must be a number from 0 to 1\. Received: perturb=True"),
        ({"fresh": {"w": 1.0}}, r"`fresh` must be a pytree of the params' structure"),
        (
            {"fresh": {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}},
            r"for params\['b'\] of shape \(2,\) one of shape \(3,\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        shrink_and_perturb(**({"params": init(KEY), "fresh": init(KEY)} | change))


def run(
    params: Any, opt_state: Any, start: int, stop: int, recorder: SnapshotRecorder
) -> tuple[Any, Any, dict[int, Any]]:
    """Updates of a run with restarts, the params and the state after them, and those before."""
    before = {}
    for step in range(start, stop):
        x = jax.random.normal(jax.random.fold_in(KEY, 100 + step), (4, 3))
        slopes = jax.grad(lambda p, x=x: jnp.mean((x @ p["w"] + p["b"]) ** 2))(params)
        updates, opt_state = TX.update(slopes, opt_state, params)
        params = optax.apply_updates(params, updates)
        recorder.step(params)
        before[step + 1] = params
        if step + 1 in RESTARTS:
            fresh = init(jax.random.fold_in(KEY, RESTARTS[step + 1]))
            params = shrink_and_perturb(params, fresh)
            opt_state = reset_momentum(TX, opt_state, params)
    return params, opt_state, before


TX = optax.sgd(cyclic_cosine_schedule(SCHEDULE), momentum=0.9)


@pytest.mark.parametrize("saved", [3, 5])
def test_snapshots_are_of_params_before_they_shrink_and_a_resumed_run_is_the_same(
    tmp_path: Path, saved: int
) -> None:
    params = init(KEY)
    with SnapshotRecorder(tmp_path / "whole", SCHEDULE) as recorder:
        whole, state, before = run(params, TX.init(params), 0, 9, recorder)
    assert int(state[1].count) == 9
    members = SnapshotEnsemble(lambda p, x: x @ p["w"] + p["b"], tmp_path / "whole", like=params)
    x = np.eye(3, dtype=np.float32)
    outputs = members.member_predictions(x, batch_size=3)
    for found, step in zip(outputs, (3, 6, 9), strict=True):
        logits = x @ np.asarray(before[step]["w"]) + np.asarray(before[step]["b"])
        expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    with SnapshotRecorder(tmp_path / "broken", SCHEDULE) as recorder:
        half, half_state, _ = run(params, TX.init(params), 0, saved, recorder)
        resumed, *_ = run(half, half_state, saved, 9, recorder)
    assert same(whole, resumed)
    assert same(whole, before[9])


def one_update(tx: Any, state: Any, slope: float, params: Any) -> tuple[Any, Any]:
    slopes = jax.tree.map(lambda w: jnp.full_like(w, slope), params)
    updates, state = tx.update(slopes, state, params)
    return updates, state


def rate(step: Any) -> Any:
    return 0.1 / (1 + step)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adamw": lambda rate: optax.adamw(rate),
    "rmsprop": lambda rate: optax.rmsprop(rate, momentum=0.5),
    "adagrad": lambda rate: optax.adagrad(rate),
    "lion": lambda rate: optax.lion(rate),
    "chain": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
    "masked": lambda rate: optax.masked(optax.adam(rate), {"w": True, "b": False}),
    "parts": lambda rate: optax.multi_transform(
        {"a": optax.adam(rate), "s": optax.sgd(rate, momentum=0.5)}, {"w": "a", "b": "s"}
    ),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "finite": lambda rate: optax.apply_if_finite(optax.sgd(rate, momentum=0.9), 3),
}


@pytest.mark.parametrize(
    ("name", "single"), [*((name, False) for name in OPTIMIZERS), ("adamw", True), ("sgd", True)]
)
def test_the_next_update_is_a_new_ones_at_the_rate_of_the_old(name: str, single: bool) -> None:
    params: Any = jnp.ones(2) if single else {"w": jnp.ones(2), "b": jnp.zeros(1)}
    make = OPTIMIZERS[name]
    tx = make(rate)
    state = tx.init(params)
    for slope in (1.0, -2.0, 0.5):
        _, state = one_update(tx, state, slope, params)
    new_tx = make(lambda step: rate(step + 3))  # of a new count, the old one's rates
    new = new_tx.init(params)

    def reset(state: Any) -> Any:
        return reset_momentum(tx, state, params)

    forgotten, gone_on = jax.jit(reset)(state) if single else reset(state), state
    differs = False
    for slope in (0.3, 0.7):
        found, forgotten = one_update(tx, forgotten, slope, params)
        expected, new = one_update(new_tx, new, slope, params)
        kept, gone_on = one_update(tx, gone_on, slope, params)
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        differs = differs or not all(
            np.allclose(a, b, rtol=1e-4)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(kept), strict=True)
        )
    assert differs or name == "lion"  # of whose updates only the signs count
    counts = jax.tree.leaves(forgotten)
    assert any(int(each) == 5 for each in counts if jnp.ndim(each) == 0)


def test_gradients_that_wait_for_their_update_are_kept() -> None:
    params = {"w": jnp.ones(2)}
    tx = optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2)
    state = tx.init(params)
    for slope in (1.0, 1.0, 4.0):
        _, state = one_update(tx, state, slope, params)
    reset = reset_momentum(tx, state, params)
    assert int(reset.gradient_step) == int(reset.mini_step) == 1
    updates, _ = one_update(tx, reset, 2.0, params)
    np.testing.assert_allclose(updates["w"], -0.1 * 3.0, rtol=1e-6)
    updates, _ = one_update(tx, state, 2.0, params)
    np.testing.assert_allclose(updates["w"], -0.1 * (3.0 + 0.9), rtol=1e-6)


def test_what_counts_updates_that_were_refused_counts_on() -> None:
    params = jnp.ones(2)
    tx = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 3)
    state = tx.init(params)
    for slope in (1.0, np.nan):
        _, state = one_update(tx, state, slope, params)
    state = reset_momentum(tx, state, params)
    assert int(state.total_notfinite) == 1
    updates, _ = one_update(tx, state, 2.0, params)
    np.testing.assert_allclose(updates, -0.2, rtol=1e-6)


def test_another_optimizers_state_is_refused() -> None:
    params = {"w": jnp.ones(2)}
    with pytest.raises(ScheduleError, match="`opt_state` must be a state of the optimizer"):
        reset_momentum(optax.adam(0.1), optax.sgd(0.1).init(params), params)
