"""The pages' code in JAX runs as it is printed."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.shared.pages import pages_of, run_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_page_gives_an_ensemble_that_is_better_than_chance() -> None:
    names = run_page("start/jax.md")
    assert len(names["ensemble"]) == 4
    assert (names["probabilities"].argmax(1) == names["y"][names["test"]]).mean() > 0.75


def test_the_index() -> None:
    def loss(params: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(x @ params, y).mean()

    x = jax.random.normal(jax.random.key(0), (40, 4))
    given = {
        "optax": optax,
        "params": jnp.zeros((4, 3)),
        "apply_fn": lambda params, x: x @ params,
        "gradient": jax.jit(jax.grad(loss)),
        "batches": [(x[i : i + 10], jnp.arange(10) % 3) for i in range(0, 40, 10)],
        "epochs": 5,
        "x_test": x[:7],
    }
    names = run_page("index.md", given, under="JAX")
    assert names["probabilities"].shape == (7, 3)
    assert jnp.allclose(names["probabilities"].sum(1), 1)


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("jax")} == {"index.md", "start/jax.md"}
