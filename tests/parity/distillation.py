"""One framework's loss and gradient: `python -m tests.parity.distillation NAME OUT`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.shared.distilled import case

OPTIONS = [
    {"temperature": 1.0, "alpha": 0.5},
    {"temperature": 0.5, "alpha": 1.0},
    {"temperature": 4.0, "alpha": 0.9},
]
Found = tuple[Any, Any]


def _torch(logits: Any, q: Any, labels: Any, options: dict[str, float]) -> Found:
    import torch

    from cosanneal.adapters.torch import distillation_loss

    z = torch.tensor(logits, requires_grad=True)
    loss = distillation_loss(z, torch.tensor(q), torch.tensor(labels), **options)
    loss.backward()
    return loss.item(), z.grad


def _jax(logits: Any, q: Any, labels: Any, options: dict[str, float]) -> Found:
    import jax

    from cosanneal.adapters.jax import distillation_loss

    loss, slope = jax.value_and_grad(lambda z: distillation_loss(z, q, labels, **options))(logits)
    return loss, slope


def _keras(logits: Any, q: Any, labels: Any, options: dict[str, float]) -> Found:
    import keras

    from cosanneal.adapters.keras import distillation_loss

    # What Keras itself does on PyTorch, and numpy deprecates.
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")
    # A step of SGD at the rate 1 goes down by the gradient, on any backend.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(logits.size, use_bias=False)])
    model.set_weights([logits.reshape(1, -1)])
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda _, z: distillation_loss(keras.ops.reshape(z, logits.shape), q, labels, **options),
    )
    one = np.ones((1, 1), np.float32)
    loss = model.fit(one, one, verbose=0).history["loss"][0]
    return loss, (logits.reshape(1, -1) - model.get_weights()[0]).reshape(logits.shape)


GRADIENTS: dict[str, Callable[..., Found]] = {
    "torch": _torch,
    "jax": _jax,
    "Keras on tensorflow": _keras,
    "Keras on jax": _keras,
    "Keras on torch": _keras,
}


if __name__ == "__main__":
    logits, q, labels = case(zeros=True)
    given = (logits.astype(np.float32), q.astype(np.float32), labels.astype(np.int32))
    found = []
    for options in OPTIONS:
        loss, slope = GRADIENTS[sys.argv[1]](*given, options)
        found.append([float(loss), np.asarray(slope).tolist()])
    Path(sys.argv[2]).write_text(json.dumps(found))
