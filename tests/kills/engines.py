"""The engines by name: where each is, so that only its own framework is imported."""

from __future__ import annotations

import importlib

from tests.kills.driver import Engine

# By module of tests.kills: each has a dict `ENGINES`.
MODULES: dict[str, tuple[str, ...]] = {
    "faulty_engines": ("sound", "loses", "changes", "hangs", "leaves", "refuses"),
    "deepspeed_engines": ("zero-1", "zero-2", "zero-3"),
    "lightning_engines": ("lightning-ddp", "lightning-model-parallel"),
    "trainer_engines": ("transformers", "accelerate"),
    "torch_engines": (
        *("ddp", "fsdp2", "fsdp2-sharded", "hsdp"),
        *("tensor", "tensor-sharded", "tensor-fsdp2"),
    ),
    "store_engines": ("store", "store-whole", "store-ddp"),
    "jax_engines": ("jax", "jax-sharded", "jax-devices", "jax-devices-sharded"),
    "keras_engines": (
        *("keras-copies", "keras-parts", "keras-over", "keras-mirrored"),
        "keras-tensorflow-epochs",
        "keras-tensorflow-batches",
        "keras-tensorflow-best",
        "keras-tensorflow-best-function",
        "keras-tensorflow-take",
        "keras-jax-epochs",
        "keras-jax-batches",
        "keras-jax-best",
        "keras-jax-best-function",
        "keras-jax-take",
        "keras-torch-epochs",
        "keras-torch-batches",
        "keras-torch-best",
        "keras-torch-best-function",
        "keras-torch-take",
    ),
}


def engine_of(name: str) -> Engine:
    """The engine of a name.

    Raises:
        KeyError: there is none.
    """
    for module, names in MODULES.items():
        if name in names:
            engines: dict[str, Engine] = importlib.import_module(f"tests.kills.{module}").ENGINES
            return engines[name]
    raise KeyError(name)


def names() -> list[str]:
    """Of all engines, and of the modules, which mean all of theirs."""
    return [*MODULES, *(name for names in MODULES.values() for name in names)]
