"""What Keras trains by, on each of its backends; imported in the process that trains alone."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import cosanneal as ca
from tests.kills.driver import Engine

PER_EPOCH, EPOCHS = 5, 12
UPDATES = PER_EPOCH * EPOCHS
# Cycles that end amid epochs, and such as keep_best needs them, which end with epochs.
SCHEDULE = ca.CyclicCosine(0.05, total_steps=UPDATES, num_cycles=15)
BY_EPOCHS = ca.CyclicCosine(0.05, total_steps=UPDATES, num_cycles=EPOCHS)
# Of the steps at which there is a snapshot where one is taken amid each of SCHEDULE's cycles.
TAKEN = ca.CyclicCosine(0.05, total_steps=UPDATES, num_cycles=30)
SCHEDULES = {"best": BY_EPOCHS, "best-function": BY_EPOCHS, "take": TAKEN}


def train(backend: str, kind: str, root: Path, rank: int, attempt: int) -> None:
    os.environ["KERAS_BACKEND"] = backend
    importlib.import_module("tests.kills.keras_runs").train(kind, root, rank, attempt)


def plain(backend: str, kind: str, folder: Path) -> None:
    """The same training on one device, in another process, for this one may have no backend."""
    code = f"from tests.kills.keras_runs import plain; plain({kind!r}, {str(folder)!r})"
    environment = os.environ | {"KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)


def over(name: str, backend: str, kind: str, *, processes: int = 1, apart: bool = True) -> Engine:
    """An engine; `apart` if its sums are of another order than those of one device."""
    return Engine(
        name=name,
        processes=processes,
        schedule=SCHEDULES.get(kind, SCHEDULE),
        train=partial(train, backend, kind),
        plain=None if kind in SCHEDULES else partial(plain, backend, kind),
        tolerance=1e-5 if apart else 0.0,
        forks=False,
    )


ENGINES = {
    each.name: each
    for each in (
        over("keras-copies", "jax", "copies", processes=2),
        over("keras-parts", "jax", "parts", processes=2),
        over("keras-over", "jax", "over", processes=2),
        over("keras-mirrored", "tensorflow", "mirrored"),
        over("keras-tensorflow-epochs", "tensorflow", "epochs", apart=False),
        over("keras-tensorflow-batches", "tensorflow", "batches", apart=False),
        over("keras-tensorflow-best", "tensorflow", "best", apart=False),
        over("keras-tensorflow-best-function", "tensorflow", "best-function", apart=False),
        over("keras-tensorflow-take", "tensorflow", "take", apart=False),
        over("keras-jax-epochs", "jax", "epochs", apart=False),
        over("keras-jax-batches", "jax", "batches", apart=False),
        over("keras-jax-best", "jax", "best", apart=False),
        over("keras-jax-best-function", "jax", "best-function", apart=False),
        over("keras-jax-take", "jax", "take", apart=False),
        over("keras-torch-epochs", "torch", "epochs", apart=False),
        over("keras-torch-batches", "torch", "batches", apart=False),
        over("keras-torch-best", "torch", "best", apart=False),
        over("keras-torch-best-function", "torch", "best-function", apart=False),
        over("keras-torch-take", "torch", "take", apart=False),
    )
}
