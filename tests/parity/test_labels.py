"""Labels of every framework, in its own arrays."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import tensorflow as tf
import torch

from cosanneal.ensemble import log_loss

RANDOM = np.random.default_rng(0)
P, Y = RANDOM.dirichlet(np.ones(4), size=20), RANDOM.integers(4, size=20)


def test_class_numbers_of_every_framework_are_the_same() -> None:
    expected = log_loss(P, Y)
    for labels in (
        *(torch.tensor(Y), torch.tensor(Y, dtype=torch.bfloat16)),
        *(jnp.asarray(Y), jnp.asarray(Y, dtype="bfloat16")),
        tf.constant(Y),
    ):
        assert log_loss(P, labels) == expected


def test_names_of_tensorflow_are_texts() -> None:
    names = tf.constant(["wxyz"[i] for i in Y])
    assert log_loss(P, names, classes=list("wxyz")) == log_loss(P, Y)
