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
from cosanneal.adapters.jax.export import run_export
from cosanneal.core.errors import EnsembleError
from tests.shared.calling import Command
from tests.shared.cards import predictions_of

call, error_of = Command("export").call, Command("export").error_of

BUILD = """
import jax.numpy as jnp
def build():
    return lambda params, x: x @ params["kernel"], {"kernel": jnp.zeros((4, 3))}
def other():
    return {}
def two():
    return lambda params, a, b: (a - 2 * b) @ params["kernel"], {"kernel": jnp.zeros((4, 3))}
def named():
    apply_fn = lambda params, x: (x["a"] - 2 * x["b"]) @ params["kernel"]
    return apply_fn, {"kernel": jnp.zeros((4, 3))}
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


@pytest.mark.parametrize("model", ["two", "named"])
def test_functions_of_several_inputs_are_written(model: str) -> None:
    drawn = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("f4")
    x = {"b": drawn[1], "a": drawn[0]}
    for name, each in x.items():
        np.save(f"{name}.npy", each)
    files = ["b=b.npy", "a=a.npy"] if model == "named" else ["a.npy", "b.npy"]
    given = ["run", "--model", f"their_jax:{model}", "--format", "stablehlo", "-o", "e"]
    result = call(*given, *(each for file in files for each in ("--input", file)))
    assert result.exit_code == 0, result.stderr
    p = np.exp(np.einsum("nk,mkc->mnc", x["a"] - 2 * x["b"], kernels()))
    p = (p / p.sum(-1, keepdims=True)).mean(0)
    loaded = export.deserialize(bytearray(Path("e").read_bytes()))
    for count in (1, 5):
        part = {name: each[:count] for name, each in x.items()}
        found = loaded.call(part) if model == "named" else loaded.call(part["a"], part["b"])
        np.testing.assert_allclose(found, p[:count], rtol=0, atol=2e-6)
    wrong: Any = (x["a"], x["b"]) if model == "named" else x
    said = "a dict of 'a', 'b'. Received: 2 arrays"
    if model == "two":
        said = "2 arrays. Received: a dict of 'a', 'b'"
    with pytest.raises(EnsembleError, match=f"must be what the file takes: {said}"):
        run_export("e", wrong)
    with pytest.raises(EnsembleError, match="must have the same number of samples"):
        run_export("e", (x["a"], x["b"][:2]))
    message = error_of(*given, "--force", "--shape", "a=4", "--shape", "y=4")
    assert "must have none of the names labels, label, y" in message


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_members_are_held_in_a_dtype(dtype: str) -> None:
    result = call(*arguments(dtype=dtype))
    assert result.exit_code == 0, result.stderr
    rounded = np.asarray(jnp.asarray(kernels(), dtype), "f8")
    x = np.random.default_rng(1).integers(-3, 4, size=(5, 4)).astype("f4")  # which both hold
    p = np.exp(np.einsum("nk,mkc->mnc", x, kernels()))
    p = (p / p.sum(-1, keepdims=True)).mean(0)
    found = np.asarray(export.deserialize(bytearray(Path("e").read_bytes())).call(x))
    assert found.dtype == np.float32
    spacing = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found, p, rtol=0, atol=4 * spacing)
    # The outputs are rounded too, those of the largest to half of a spacing of 32.
    z = np.asarray(jnp.asarray(np.einsum("nk,mkc->mnc", x, rounded), dtype), "f8")
    q = np.exp(z)
    q = (q / q.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found, q, rtol=0, atol=2 * spacing)
    assert abs(found - p).max() > spacing / 50


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
