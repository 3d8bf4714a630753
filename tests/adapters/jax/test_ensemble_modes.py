"""Running an ensemble in JAX streaming, resident and stacked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from tests.shared.classes import check_budget, check_classes
from tests.shared.modes import (
    MODES,
    check_choice,
    check_labels,
    check_loaders,
    check_memory,
    check_modes,
    check_uncertainty,
)

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def drawn(seed: int) -> dict[str, Any]:
    first, second, key = jax.random.split(jax.random.key(seed), 3)
    return {
        "hidden": {"kernel": jax.random.normal(first, (4, 8)), "steps": jnp.asarray(seed)},
        "out": jax.random.normal(second, (8, 3)),
        "key": key,  # members may differ in keys, too
    }


def apply(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"]) + params["hidden"]["steps"] / 10
    noise = jax.random.normal(params["key"], (3,))
    return hidden @ params["out"] + noise


def recorded(folder: Path) -> Any:
    with SnapshotRecorder(folder, EVERY_STEP) as recorder:
        for seed in range(4):
            recorder.step(drawn(seed))
    return drawn(9)


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(40, 4)).astype(np.float32)
    return x, np.arange(40) % 3


@pytest.fixture(params=["jitted", "plain"])
def ensemble(tmp_path: Path, request: pytest.FixtureRequest) -> SnapshotEnsemble:
    function = jax.jit(apply) if request.param == "jitted" else apply
    return SnapshotEnsemble(function, tmp_path, recorded(tmp_path))


def test_every_mode_gives_the_same(ensemble: SnapshotEnsemble) -> None:
    check_modes(ensemble, data()[0])
    check_modes(ensemble, jnp.asarray(data()[0]))


def test_loaders_give_what_arrays_give(ensemble: SnapshotEnsemble) -> None:
    check_loaders(ensemble, *data())


def test_a_choice_is_applied_in_every_mode(ensemble: SnapshotEnsemble) -> None:
    check_choice(ensemble, *data())


def test_its_uncertainty_is_that_of_the_members(ensemble: SnapshotEnsemble) -> None:
    check_uncertainty(ensemble, *data())


def test_classes_are_those_of_predict(ensemble: SnapshotEnsemble) -> None:
    check_classes(ensemble, *data())


def test_classes_keep_a_budget(ensemble: SnapshotEnsemble) -> None:
    check_budget(ensemble, *data(), sizes=True)


def test_few_sizes_of_batches_are_compiled(tmp_path: Path) -> None:
    sizes: list[int] = []

    @jax.jit
    def sure(params: Any, x: Any) -> Any:
        sizes.append(len(x))  # when it is traced
        return params["factor"] * x

    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for factor in (8.0, 9.0, 10.0, 11.0, -9.0):
            recorder.step({"factor": jnp.full(1, factor)})
    ensemble = SnapshotEnsemble(sure, tmp_path, {"factor": jnp.zeros(1)})
    random = np.random.default_rng(0)
    for undecided in (0, 1, 3, 7, 9, 12, 20, 31, 40):
        x = random.normal(size=(64, 3)).astype(np.float32) / 9
        x[undecided:] *= 100
        for given in (x, jnp.asarray(x)):
            found = ensemble.predict_classes(given, mode="resident")
            np.testing.assert_array_equal(found, ensemble.predict(given).argmax(-1))
            assert found.dtype == jnp.int32
    assert sorted(sizes) == [8, 16, 32, 64]


def test_labels_count_as_they_are_said_to(ensemble: SnapshotEnsemble) -> None:
    check_labels(ensemble, *data())


def test_auto_streams_where_the_members_do_not_fit(
    ensemble: SnapshotEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_memory(ensemble, data()[0], monkeypatch)


def test_several_arguments_and_values(tmp_path: Path) -> None:
    def two(params: Any, a: Any, b: Any) -> Any:
        return a @ params["out"].T[:, :4].T + b

    ensemble = SnapshotEnsemble(two, tmp_path, recorded(tmp_path), outputs="values")
    a, b = data()[0], np.ones((40, 3), np.float32)
    members = np.stack(list(ensemble.member_predictions((a, b)))).astype(np.float64)
    for mode in MODES:
        mean, variance = ensemble.predict_with_variance((a, b), mode=mode, batch_size=16)
        np.testing.assert_allclose(mean, members.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(variance, members.var(0), rtol=1e-4, atol=1e-5)


def test_params_of_numpy_have_a_place_too(tmp_path: Path) -> None:
    params = {"w": np.eye(3, dtype=np.float32)}
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for factor in range(1, 4):
            recorder.step({"w": params["w"] * factor})
    ensemble = SnapshotEnsemble(lambda params, x: x @ params["w"], tmp_path, params)
    x = -np.eye(3, dtype=np.float32)
    for mode in MODES:
        np.testing.assert_allclose(ensemble.predict(x, mode=mode), ensemble.predict(x), rtol=1e-6)


def test_a_function_that_cannot_be_stacked_is_resident(tmp_path: Path) -> None:
    def branching(params: Any, x: Any) -> Any:
        return x @ (params["out"][:4] if float(params["out"].sum()) > 0 else -params["out"][:4])

    ensemble = SnapshotEnsemble(branching, tmp_path, recorded(tmp_path))
    x = data()[0]
    with pytest.raises(ca.EnsembleError, match=r"vectorized map.*give mode='resident'"):
        ensemble.predict(x, mode="stacked")
    np.testing.assert_allclose(ensemble.predict(x, mode="auto"), ensemble.predict(x), rtol=1e-6)
    assert ensemble.measured["stacked"] == np.inf


@pytest.mark.parametrize("classes", [2, 4])
def test_input_that_lies_on_several_devices(tmp_path: Path, classes: int) -> None:
    """As many classes as devices or fewer, where the members' axis must not count."""
    flags = "--xla_force_host_platform_device_count=4"
    command = [sys.executable, "-W", "error", "-m", "tests.shared.sharded", str(tmp_path)]
    subprocess.run(
        [*command, str(classes)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
    )
