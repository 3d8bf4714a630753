"""Functions of params that return several arrays; and batches of several lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from tests.shared.jax_runs import EVERY_STEP
from tests.shared.modes import MODES
from tests.shared.several import (
    MEMBERS,
    Build,
    check_fitted_by_one,
    check_pairs,
    check_ragged,
    check_ragged_judged,
    check_several,
    close,
    inputs,
    kernels,
    means,
)


def recorded(folder: Path) -> dict[str, Any]:
    """The members of the tests of several outputs."""
    with SnapshotRecorder(folder, EVERY_STEP) as recorder:
        for seed in range(MEMBERS):
            kernel, bias = map(jnp.asarray, kernels(seed))
            recorder.step({"kernel": kernel, "bias": bias})
    return {"kernel": kernel, "bias": bias}


def several(params: Any, x: Any) -> Any:
    z = x @ params["kernel"] + params["bias"]
    box = z[..., 3:]
    return {"class": z[..., :3], "box": box, "aux": z[:, :1], "pair": (box, box * box + 1)}


@pytest.fixture(params=[several, jax.jit(several)], ids=["plain", "jitted"])
def build(request: Any, tmp_path: Path) -> Build:
    params = recorded(tmp_path)
    return lambda **options: SnapshotEnsemble(request.param, tmp_path, params, **options)


@pytest.mark.parametrize("mode", MODES)
def test_several_outputs(build: Build, mode: Any) -> None:
    check_several(build, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_and_its_variance_are_one_output(build: Build, mode: Any, tmp_path: Path) -> None:
    check_pairs(build, mode, tmp_path)


def test_a_choice_by_one_of_several(build: Build, tmp_path: Path) -> None:
    check_fitted_by_one(build, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_several_lengths(build: Build, mode: Any) -> None:
    check_ragged(build, mode)


def test_a_choice_by_batches_of_several_lengths(build: Build, tmp_path: Path) -> None:
    check_ragged_judged(build, tmp_path)


class Named(NamedTuple):
    hidden: Any
    logits: Any


@partial(jax.tree_util.register_dataclass, data_fields=["hidden", "logits"], meta_fields=[])
@dataclasses.dataclass
class Answer:
    hidden: Any
    logits: Any


RETURNED: dict[str, Callable[[Any], Any]] = {
    "with state": lambda z: (z, {"mean": z.mean()}),
    "list": lambda z: [z, z],
    "dict": lambda z: {"aux": z[:, :1], "logits": z},
    "named tuple": lambda z: Named(z[:, :1], z),
    "dataclass": lambda z: Answer(z[:, :1], z),
    "numpy": lambda z: z if isinstance(z, jax.core.Tracer) else (np.asarray(z), 1),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RETURNED)
def test_the_logits_of_what_is_returned_are_taken(tmp_path: Path, name: str, mode: Any) -> None:
    params = recorded(tmp_path)

    def apply(params: Any, x: Any) -> Any:
        return RETURNED[name]((x @ params["kernel"] + params["bias"])[..., :3])

    x, _ = inputs(6, 4)
    found = SnapshotEnsemble(apply, tmp_path, params, class_axis=-1).predict(x, mode=mode)
    assert isinstance(found, jax.Array)
    close(found, means(x)[0])


def test_several_outputs_in_a_named_tuple(tmp_path: Path) -> None:
    params = recorded(tmp_path)

    def apply(params: Any, x: Any) -> Any:
        z = x @ params["kernel"] + params["bias"]
        return Named(z[..., 3:], z[..., :3])

    x, _ = inputs(6, 4)
    p, values = means(x)
    form = Named("values", "logits")
    for mode in MODES:
        found = SnapshotEnsemble(apply, tmp_path, params, outputs=form, class_axis=-1).predict(
            x, mode=mode
        )
        assert isinstance(found, Named)
        close(found.logits, p)
        close(found.hidden, values)
    by_name = SnapshotEnsemble(apply, tmp_path, params, output="hidden", outputs="values")
    close(by_name.predict(x), values)


@pytest.mark.parametrize("mode", ["stream", "stacked"])
@pytest.mark.parametrize("returned", [None, "x", {}], ids=repr)
def test_what_holds_no_array_is_refused(tmp_path: Path, returned: Any, mode: Any) -> None:
    ensemble = SnapshotEnsemble(lambda *_: returned, tmp_path, recorded(tmp_path))
    with pytest.raises(ca.EnsembleError, match=r"must return one array.*Received: "):
        ensemble.predict(np.ones((2, 4), np.float32), mode=mode)
