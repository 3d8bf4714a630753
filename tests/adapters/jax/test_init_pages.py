"""The pages' code in JAX runs as it is printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from safetensors.flax import load_file, save_file

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, cyclic_cosine_schedule
from tests.shared.pages import blocks, pages_of, run_page
from tests.shared.processes import ROOT


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


def train(kill_at: int = 0) -> None:
    """The page on preemption, with its own code: killed just after a checkpoint, if it is."""
    (block,) = blocks("preemption.md", under="In JAX")
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=5)
    tx = optax.sgd(cyclic_cosine_schedule(schedule), momentum=0.9)
    params = {"kernel": jnp.zeros((4, 3), jnp.bfloat16), "bias": jnp.zeros(3)}

    def train_step(params: Any, opt_state: Any, x: jax.Array) -> tuple[Any, Any]:
        gradient = jax.tree.map(lambda leaf: (x.mean() - leaf).astype(leaf.dtype), params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    names = {
        **{"os": os, "Path": Path, "jax": jax, "jnp": jnp, "params": params},
        **{"load_file": load_file, "save_file": save_file, "SnapshotRecorder": SnapshotRecorder},
        **{"schedule": schedule, "save_every": 4, "opt_state": tx.init(params)},
        **{"train_step": train_step},
        "batch": lambda step: jax.random.normal(jax.random.key(step), (5,)),
    }
    if kill_at:
        sync, replace = os.fsync, os.replace

        def slow(descriptor: int) -> None:
            time.sleep(0.3)
            sync(descriptor)

        def then_killed(source: Any, target: Any) -> None:
            replace(source, target)
            if Path(target).name == "checkpoint.safetensors" and names["step"] + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync, os.replace = slow, then_killed  # type: ignore[assignment]
    block.run(names)


def test_the_page_on_preemption_loses_nothing_to_a_kill(tmp_path: Path) -> None:
    """Killed where a checkpoint and a snapshot are both due, and writing is slow."""

    def snapshots() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path("runs/digits").glob("*.safetensors")}

    train()
    whole = snapshots()
    assert len(whole) == 5
    (tmp_path / "runs").rename(tmp_path / "whole")
    code = f"from {__name__} import train; train(kill_at=8)"
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    killed = subprocess.run(
        [sys.executable, "-c", code], timeout=120, check=False, env=os.environ | path
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(snapshots()) == 2
    train()
    assert snapshots() == whole


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("jax")} == {"index.md", "start/jax.md"}
