"""The demonstration's model and training function in JAX and Optax."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..adapters.jax import SnapshotEnsemble, SnapshotRecorder, cyclic_cosine_schedule
from ..core.schedule import Schedule
from .digits import CLASSES, Part, Split
from .experiment import Config, Progress, Trained

# After cosanneal's adapter, which says how to install them where they are missing.
import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
import optax  # isort: skip
from jax import lax  # isort: skip

# `weights`, which are trained, and `averages`, which BatchNorm predicts with.
Params: TypeAlias = dict[str, Any]

_CHANNELS = (1, 8, 16)
_SMALL = 1e-5  # added to a variance


def build_params(seed: int) -> Params:
    """A small convolutional network with BatchNorm, its weights drawn from the seed."""
    *convolutions, dense = jax.random.split(jax.random.key(seed), len(_CHANNELS))
    weights: dict[str, Any] = {}
    averages: dict[str, Any] = {}
    for i, key in enumerate(convolutions):
        inputs, outputs = _CHANNELS[i : i + 2]
        weights[f"block{i}"] = {
            "kernel": _drawn(key, (3, 3, inputs, outputs), 9 * inputs),
            "scale": jnp.ones(outputs),
            "shift": jnp.zeros(outputs),
        }
        averages[f"block{i}"] = {"mean": jnp.zeros(outputs), "variance": jnp.ones(outputs)}
    inputs = 2 * 2 * _CHANNELS[-1]
    weights["dense"] = {
        "kernel": _drawn(dense, (inputs, CLASSES), inputs),
        "bias": jnp.zeros(CLASSES),
    }
    return {"weights": weights, "averages": averages}


def train(
    split: Split,
    order: NDArray[np.intp],
    *,
    seed: int,
    config: Config,
    schedule: Schedule,
    folder: Path,
    progress: Progress,
) -> Trained:
    """Train the model once; arguments as in `torch_backend.train`."""
    updates = len(order)
    tx, rate, update = _compiled(schedule, config.momentum, config.weight_decay)
    x, y = _inputs(split.train), jnp.asarray(split.train.y.astype(np.int32))
    params = build_params(seed)
    state = tx.init(params["weights"])
    losses: list[jax.Array] = []
    with SnapshotRecorder(folder, schedule, resume_from=0) as recorder:
        for rows in jnp.asarray(order.astype(np.int32)):
            params, state, loss = update(params, state, x[rows], y[rows])
            recorder.step(params)
            losses.append(loss)
            progress()
    return Trained(
        rates=np.asarray(jax.vmap(rate)(jnp.arange(updates))).tolist(),
        losses=np.asarray(losses).tolist(),
        ensemble=lambda folder: SnapshotEnsemble(
            _logits, folder, like=params, statistics_fn=_moved
        ),
        inputs=_inputs,
        predict=lambda params, part: jax.nn.softmax(_logits(params, _inputs(part))),
    )


@functools.lru_cache
def _compiled(schedule: Schedule, momentum: float, weight_decay: float) -> tuple[Any, Any, Any]:
    """The optimizer, its rate and one update, which all seeds have in common."""
    rate = cyclic_cosine_schedule(schedule)
    tx = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum))

    @jax.jit
    def update(
        params: Params, state: Any, x: jax.Array, y: jax.Array
    ) -> tuple[Params, Any, jax.Array]:
        def loss(weights: Any) -> Any:
            logits, averages = _forward(weights, params["averages"], x, training=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), averages

        weights = params["weights"]
        (value, averages), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        changes, state = tx.update(gradients, state, weights)
        weights = optax.apply_updates(weights, changes)
        return {"weights": weights, "averages": averages}, state, value

    return tx, rate, update


@jax.jit
def _logits(params: Params, x: jax.Array) -> jax.Array:
    return _forward(params["weights"], params["averages"], x, training=False)[0]


@jax.jit
def _moved(params: Params, x: jax.Array) -> Params:
    """The params with the averages that a batch leaves."""
    _, averages = _forward(params["weights"], params["averages"], x, training=True)
    return {**params, "averages": averages}


def _forward(
    weights: Any, averages: Any, x: jax.Array, *, training: bool
) -> tuple[jax.Array, dict[str, Any]]:
    """The logits, and the averages, which training moves by a tenth."""
    moved: dict[str, Any] = {}
    for name, before in averages.items():
        block = weights[name]
        x = lax.conv_general_dilated(
            x, block["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        now = {"mean": x.mean((0, 1, 2)), "variance": x.var((0, 1, 2))} if training else before
        moved[name] = now
        if training:
            count = x.size // x.shape[-1]
            unbiased = {**now, "variance": now["variance"] * count / (count - 1)}
            moved[name] = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, unbiased)
        x = (x - now["mean"]) * lax.rsqrt(now["variance"] + _SMALL) * block["scale"]
        x = jax.nn.relu(x + block["shift"])
        samples, height, width, channels = x.shape
        x = x.reshape(samples, height // 2, 2, width // 2, 2, channels).max((2, 4))
    x = x.reshape(len(x), -1)
    return x @ weights["dense"]["kernel"] + weights["dense"]["bias"], moved


def _drawn(key: jax.Array, shape: tuple[int, ...], inputs: int) -> jax.Array:
    """Uniform, as torch draws them."""
    bound = inputs**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _inputs(part: Part) -> jax.Array:
    return jnp.asarray(part.x)[..., None]
