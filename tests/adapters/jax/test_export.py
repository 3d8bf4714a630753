"""`cosanneal export` of JAX's snapshots, called as a user would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder
from tests.shared.calling import Command
from tests.shared.cards import predictions_of

call, error_of = Command("export").call, Command("export").error_of

BUILD = """
import jax.numpy as jnp
def build():
    return lambda params, x: x @ params["kernel"], {"kernel": jnp.zeros((4, 3))}
def other():
    return {}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("their_jax.py").write_text(BUILD)
    with SnapshotRecorder("run", ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for kernel in kernels():
            recorder.step({"kernel": jnp.asarray(kernel, jnp.float32)})
    yield
    sys.modules.pop("their_jax", None)


def kernels() -> Any:
    return 3 * np.random.default_rng(0).normal(size=(3, 4, 3))


def arguments(**given: Any) -> list[Any]:
    options = {"model": "their_jax:build", "format": "stablehlo", "out": "e", "shape": "4"} | given
    return ["run", *(each for name, value in options.items() for each in (f"--{name}", value))]


def test_the_file_gives_what_the_members_give() -> None:
    result = call(*arguments())
    assert result.exit_code == 0, result.stderr
    assert "Wrote e: stablehlo" in result.stdout
    assert "It differs from the ensemble by at most " in result.stdout
    loaded = export.deserialize(bytearray(Path("e").read_bytes()))
    for count in (1, 5):
        x = np.random.default_rng(1).normal(size=(count, 4)).astype("f4")
        p = np.exp(np.einsum("nk,mkc->mnc", x, kernels()))
        p = (p / p.sum(-1, keepdims=True)).mean(0)
        np.testing.assert_allclose(loaded.call(x), p, rtol=0, atol=2e-6)


def test_what_cannot_be_is_refused() -> None:
    said = error_of(*arguments(format="pt2"))
    assert "Option --format must be stablehlo for snapshots of jax. Received: pt2" in said
    said = error_of(*arguments(model="their_jax:other"))
    assert "must return the apply function and params, a tuple of two," in said
    assert not Path("e").exists()


def test_the_code_of_its_card_runs() -> None:
    result = call(*arguments(), "--card")
    assert result.exit_code == 0, result.stderr
    x, predictions = predictions_of(Path("e"))
    p = np.exp(np.einsum("nk,mkc->mnc", x, kernels()))
    p = (p / p.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(predictions, p, rtol=0, atol=2e-6)
