"""A recorder that is stepped more than once an update, and what only looks like it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=8, num_cycles=2)
SAID = "was given the arrays of the step before"


def test_a_second_step_of_an_update_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = {"frozen": jnp.ones(2), "trained": jnp.ones(3), "number": 0.5}
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        for _ in range(4):
            params = params | {"trained": params["trained"] + 1}
            recorder.step(params)
            recorder.step({**params})  # as a function of a model's state gives them
    (record,) = [each for each in caplog.records if SAID in each.message]
    assert record.levelno == logging.WARNING
    assert record.message.startswith("Step 2 was given")
    assert "more than once an update" in record.message


def steps_of(transform: Any, *, jit: bool) -> Any:
    def step(params: Any, state: Any, gradient: Any) -> Any:
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step) if jit else step


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("kind", ["accumulated", "skipped", "frozen", "donated"])
def test_updates_that_change_little_or_nothing_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, jit: bool
) -> None:
    transform: Any = optax.sgd(0.1)
    if kind == "accumulated":
        transform = optax.MultiSteps(transform, 4)
    if kind == "skipped":
        transform = optax.apply_if_finite(transform, 9)
    params: Any = {"a": jnp.ones(2), "b": jnp.ones(3)}
    state, step = transform.init(params), steps_of(transform, jit=jit)
    if kind == "donated" and jit:
        step = jax.jit(steps_of(transform, jit=False), donate_argnums=0)
    frozen = params["a"]
    gradient = {"a": jnp.full(2, jnp.nan), "b": jnp.ones(3)} if kind == "skipped" else params
    gradient = jax.tree.map(jnp.copy, gradient)
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        for _ in range(8):
            params, state = step(params, state, gradient)
            if kind == "frozen":
                params = params | {"a": frozen}
            recorder.step(params)
    assert SAID not in caplog.text


def test_arrays_that_may_be_written_to_say_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = {"a": np.ones(2, np.float32), "b": jnp.ones(3)}
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        for _ in range(8):
            params["a"] -= 0.125
            recorder.step(params)
    assert SAID not in caplog.text
