"""A small model in JAX, its training and the snapshots of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, cyclic_cosine_schedule
from cosanneal.snapshots import SnapshotStore

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def small_net(seed: int = 0) -> dict[str, dict[str, jax.Array]]:
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "hidden": {"kernel": jax.random.normal(first, (4, 8)), "bias": jnp.zeros(8)},
        "out": {"kernel": jax.random.normal(second, (8, 3)), "bias": jnp.zeros(3)},
    }


@jax.jit
def apply(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def data(samples: int = 48) -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(samples, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


TX = optax.sgd(cyclic_cosine_schedule(SCHEDULE), momentum=0.9)


def _update(params: Any, opt_state: Any, key: Any) -> Any:
    key, draw = jax.random.split(key)
    x, y = map(jnp.asarray, data())
    rows = jax.random.randint(draw, (16,), 0, len(x))

    def loss(params: Any) -> Any:
        logits = apply(params, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    updates, opt_state = TX.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state, key


# The buffers of one update are written over by the next.
update = jax.jit(_update, donate_argnums=(0, 1, 2))


class Training:
    """A run with everything that a checkpoint must carry."""

    def __init__(self, folder: Path | str, resume_from: int | None = None) -> None:
        params = small_net()
        self.state = (params, TX.init(params), jax.random.key_data(jax.random.key(5)))
        self.recorder = SnapshotRecorder(folder, SCHEDULE, resume_from=resume_from)

    def update(self) -> None:
        *_, key = self.state
        params, opt_state, key = update(*self.state[:2], jax.random.wrap_key_data(key))
        self.state = params, opt_state, jax.random.key_data(key)
        self.recorder.step(params, {"seen": self.recorder.updates})

    def save(self, path: Path) -> None:
        self.recorder.wait()
        path.write_bytes(pickle.dumps((jax.device_get(self.state), self.recorder.updates)))

    @classmethod
    def load(cls, path: Path, folder: Path) -> Training:
        state, updates = pickle.loads(path.read_bytes())  # noqa: S301 - our own
        run = cls(folder, resume_from=updates)
        run.state = jax.tree.map(jnp.asarray, state)
        return run


def first(tree: Any) -> Any:
    """With string keys only, for jax sorts keys."""
    return {str(key): value for key, value in tree.items()}


def recorded(folder: Path, params: Any) -> SnapshotStore:
    with SnapshotRecorder(folder, EVERY_STEP, resume_from=0) as recorder:
        recorder.step(params)
    return recorder.store
