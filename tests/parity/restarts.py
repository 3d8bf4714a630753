"""One framework's shrunk weights, and an update: `python -m tests.parity.restarts NAME OUT`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARES: dict[str, Any] = {"shrink": 0.7, "perturb": 0.25}
RATE, MOMENTUM, SLOPES = 0.1, 0.9, (1.0, -3.0, 0.5)
Array = NDArray[np.float32]


def weights() -> tuple[Array, Array]:
    """Old weights and fresh ones."""
    random = np.random.default_rng(5)
    old, fresh = random.normal(size=(2, 4, 3)).astype(np.float32)
    return old, fresh


def _torch(old: Array, fresh: Array) -> tuple[Any, Any]:
    import torch

    from cosanneal.adapters.torch import reset_momentum, shrink_and_perturb

    def model(values: Array) -> torch.nn.Linear:
        made = torch.nn.Linear(4, 3, bias=False)
        made.weight.data = torch.tensor(values.T.copy())
        return made

    ours = model(old)
    optimizer = torch.optim.SGD(ours.parameters(), lr=RATE, momentum=MOMENTUM)

    def update(slope: float) -> None:
        ours.weight.grad = torch.full_like(ours.weight, slope)
        optimizer.step()

    for slope in SLOPES[:2]:
        update(slope)
    shrink_and_perturb(ours, model(fresh), **SHARES)
    reset_momentum(optimizer)
    shrunk = ours.weight.detach().numpy().T.copy()
    update(SLOPES[2])
    return shrunk, ours.weight.detach().numpy().T


def _jax(old: Array, fresh: Array) -> tuple[Any, Any]:
    import jax.numpy as jnp
    import optax

    from cosanneal.adapters.jax import reset_momentum, shrink_and_perturb

    tx = optax.sgd(RATE, momentum=MOMENTUM)
    params: Any = jnp.asarray(old)
    state = tx.init(params)
    for slope in SLOPES[:2]:
        updates, state = tx.update(jnp.full_like(params, slope), state, params)
        params = optax.apply_updates(params, updates)
    shrunk = shrink_and_perturb(params, jnp.asarray(fresh), **SHARES)
    state = reset_momentum(tx, state, shrunk)
    updates, _ = tx.update(jnp.full_like(params, SLOPES[2]), state, shrunk)
    return shrunk, optax.apply_updates(shrunk, updates)


def _keras(old: Array, fresh: Array) -> tuple[Any, Any]:
    import keras

    from cosanneal.adapters.keras import reset_momentum, shrink_and_perturb

    # What Keras itself does on PyTorch, and numpy deprecates.
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")

    def model(values: Array) -> Any:
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
        made.set_weights([values])
        return made

    ours, optimizer = model(old), keras.optimizers.SGD(RATE, momentum=MOMENTUM)

    def update(slope: float) -> None:
        kernel = ours.trainable_variables[0]
        optimizer.apply([keras.ops.full(kernel.shape, slope)], [kernel])

    for slope in SLOPES[:2]:
        update(slope)
    shrink_and_perturb(ours, model(fresh), **SHARES)
    reset_momentum(optimizer)
    shrunk = ours.get_weights()[0].copy()
    update(SLOPES[2])
    return shrunk, ours.get_weights()[0]


RESTARTS: dict[str, Callable[[Array, Array], tuple[Any, Any]]] = {
    "torch": _torch,
    "jax": _jax,
    "Keras on tensorflow": _keras,
    "Keras on jax": _keras,
    "Keras on torch": _keras,
}


if __name__ == "__main__":
    found = [np.asarray(each).tolist() for each in RESTARTS[sys.argv[1]](*weights())]
    Path(sys.argv[2]).write_text(json.dumps(found))
