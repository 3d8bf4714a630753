"""The demonstration's model and training function in JAX and Optax."""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import numpy as np

from ..adapters.jax import SnapshotEnsemble, SnapshotRecorder, cyclic_cosine_schedule
from ..core.schedule import Schedule
from .digits import CLASSES, Part
from .training import SLOPE, Trained, Training

# After cosanneal's adapter, which says how to install them where they are missing.
import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
import optax  # isort: skip
from jax import lax  # isort: skip

# `weights`, which are trained, and `averages`, which BatchNorm predicts with.
Params: TypeAlias = dict[str, Any]

# The shapes of the layers that are normalized, and of the last one.
_CONVOLUTIONS = {"convolution0": (3, 3, 1, 8), "convolution1": (3, 3, 8, 16)}
_HIDDEN = {"hidden": (2 * 2 * 16, 32)}
_LAST = (32, CLASSES)
_SMALL = 1e-5  # added to a variance


def build_params(seed: int) -> Params:
    """A small convolutional network with BatchNorm, its weights drawn from the seed."""
    weights: dict[str, Any] = {}
    averages: dict[str, Any] = {}
    normalized = {**_CONVOLUTIONS, **_HIDDEN}
    *keys, last = jax.random.split(jax.random.key(seed), len(normalized) + 1)
    for (name, shape), key in zip(normalized.items(), keys, strict=True):
        outputs = shape[-1]
        weights[name] = {
            "kernel": _drawn(key, shape),
            "scale": jnp.ones(outputs),
            "shift": jnp.zeros(outputs),
        }
        averages[name] = {"mean": jnp.zeros(outputs), "variance": jnp.ones(outputs)}
    weights["last"] = {"kernel": _drawn(last, _LAST), "bias": jnp.zeros(CLASSES)}
    return {"weights": weights, "averages": averages}


def train(task: Training) -> Trained:
    """Train the model once."""
    tx, rate, update = _compiled(task.schedule, task.momentum, task.weight_decay)
    part = task.split.train
    x, y = _inputs(part), jnp.asarray(part.y.astype(np.int32))
    params = build_params(task.seed)
    state = tx.init(params["weights"])
    losses: list[jax.Array] = []
    with SnapshotRecorder(task.folder, task.schedule, overwrite=True) as recorder:
        for rows in jnp.asarray(task.order.astype(np.int32)):
            params, state, loss = update(params, state, x[rows], y[rows])
            recorder.step(params)
            losses.append(loss)
            task.progress()
    return Trained(
        rates=np.asarray(jax.vmap(rate)(jnp.arange(len(task.order)))).tolist(),
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
    tx = optax.chain(
        optax.add_decayed_weights(
            weight_decay, mask=lambda weights: jax.tree.map(lambda weight: weight.ndim > 1, weights)
        ),
        optax.sgd(rate, momentum),
    )

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

    def activated(name: str, x: jax.Array) -> jax.Array:
        block, before = weights[name], averages[name]
        axes = tuple(range(x.ndim - 1))
        now = {"mean": x.mean(axes), "variance": x.var(axes)} if training else before
        moved[name] = now
        if training:
            count = x.size // x.shape[-1]
            unbiased = {**now, "variance": now["variance"] * count / (count - 1)}
            moved[name] = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, unbiased)
        x = (x - now["mean"]) * lax.rsqrt(now["variance"] + _SMALL) * block["scale"]
        return jax.nn.leaky_relu(x + block["shift"], SLOPE)

    for name in _CONVOLUTIONS:
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = weights[name]["kernel"]
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = activated(name, x)
        samples, height, width, channels = x.shape
        x = x.reshape(samples, height // 2, 2, width // 2, 2, channels).max((2, 4))
    x = x.reshape(len(x), -1)
    for name in _HIDDEN:
        x = activated(name, x @ weights[name]["kernel"])
    return x @ weights["last"]["kernel"] + weights["last"]["bias"], moved


def _drawn(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform, as torch draws them."""
    bound = math.prod(shape[:-1]) ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _inputs(part: Part) -> jax.Array:
    return jnp.asarray(part.x)[..., None]
