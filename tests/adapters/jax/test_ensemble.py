"""Predicting with what was recorded of params."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble.predict.pooling import Pooling
from cosanneal.snapshots import SnapshotStore
from tests.shared.jax_runs import EVERY_STEP, Training, apply, data, recorded, small_net
from tests.shared.pickled import check_pickled


def trained(folder: Path) -> Any:
    run = Training(folder)
    for _ in range(20):
        run.update()
    run.recorder.close()
    return run.state[0]


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_prediction_is_the_mean_of_the_members_softmax(tmp_path: Path) -> None:
    params = trained(tmp_path)
    x, _ = data(30)
    ensemble = SnapshotEnsemble(apply, tmp_path, like=params, last=3)
    # The oracle is numpy's, in float64.
    expected = np.zeros((30, 3))
    for snapshot in SnapshotStore(tmp_path).list()[-3:]:
        w = {name: value.astype(float) for name, value in snapshot.load().items()}
        hidden = np.maximum(x.astype(float) @ w["hidden.kernel"] + w["hidden.bias"], 0)
        expected += softmax(hidden @ w["out.kernel"] + w["out.bias"]) / 3
    probabilities = ensemble.predict(x)
    assert isinstance(probabilities, jax.Array)
    assert probabilities.dtype == jnp.float32
    np.testing.assert_allclose(probabilities, expected, rtol=2e-5, atol=1e-7)
    for batch_size in (1, 7, 30, 100):
        again = ensemble.predict(jnp.asarray(x), batch_size=batch_size)
        np.testing.assert_allclose(again, probabilities, rtol=5e-6, atol=1e-7)
    assert len(ensemble) == 3
    # Of its logits the probabilities are exact: rounded once, after the mean.
    own = SnapshotEnsemble(apply, tmp_path, like=params, last=3, outputs="values")
    logits = [np.asarray(member, np.float64) for member in own.member_predictions(x)]
    mean = np.mean([softmax(each) for each in logits], axis=0).astype(np.float32)
    np.testing.assert_array_max_ulp(np.asarray(probabilities), mean, 1)
    members = np.stack([np.asarray(each) for each in ensemble.member_predictions(x)])
    np.testing.assert_allclose(members.mean(0), mean, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
def test_a_choice_is_kept_beside_snapshots_at_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url, (x, y) = "memory://test-jax-choice/run", data()
    params, both = small_net(), []
    try:
        with SnapshotRecorder(url, EVERY_STEP) as recorder:
            for seed in range(3):
                recorder.step(small_net(seed))
        for _ in range(2):
            both.append(SnapshotEnsemble(apply, url, like=params, outputs="logits"))
        first, other = both
        choice = first.fit(x, y, select="weights")
        first.save()
        assert other.load() == choice
        assert np.array_equal(other.predict(x), first.predict(x))
    finally:
        fsspec.filesystem("memory").store.clear()


def test_values_are_averaged_as_they_are(tmp_path: Path) -> None:
    params = trained(tmp_path)
    x, _ = data(9)
    ensemble = SnapshotEnsemble(apply, tmp_path, params, last=2, outputs="values")
    members = np.stack([np.asarray(each) for each in ensemble.member_predictions(x)])
    assert (members < 0).any()  # no softmax
    np.testing.assert_allclose(ensemble.predict(x), members.mean(0), rtol=1e-6)


def test_outputs_in_half_precision_are_summed_in_double(tmp_path: Path) -> None:
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for value in (256.0, 1.0, 1.0):
            recorder.step({"w": jnp.array([value], jnp.bfloat16)})
    ensemble = SnapshotEnsemble(
        lambda params, x: x * params["w"],
        tmp_path,
        {"w": jnp.ones(1, jnp.bfloat16)},
        outputs="values",
    )
    prediction = ensemble.predict(jnp.ones((2, 1), jnp.bfloat16))
    assert prediction.dtype == jnp.bfloat16
    assert prediction.tolist() == [[86.0], [86.0]]  # 258 / 3


@pytest.mark.parametrize("class_axis", [-1, None])
@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
def test_the_members_are_pooled_as_asked(
    tmp_path: Path, pooling: Pooling, class_axis: int | None
) -> None:
    random = np.random.default_rng(0)
    kernels = [jnp.asarray(random.normal(size=(3, 4)), jnp.float32) for _ in range(3)]
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for kernel in kernels:
            recorder.step({"kernel": kernel})
    x = random.normal(size=(6, 3)).astype(np.float32)
    logits = np.stack([x.astype(np.float64) @ np.asarray(kernel) for kernel in kernels])

    def shares(z: Any) -> Any:
        if class_axis is None:
            return 1 / (1 + np.exp(-z))
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    mean = shares(logits).mean(0)
    votes = logits > 0 if class_axis is None else logits == logits.max(-1, keepdims=True)
    expected = {
        "probabilities": mean,
        "logits": shares(logits.mean(0)),
        "log-probabilities": np.log(mean),
        "vote": votes.mean(0),
    }[pooling]
    ensemble = SnapshotEnsemble(
        lambda params, x: x @ params["kernel"],
        tmp_path,
        {"kernel": kernels[0]},
        class_axis=class_axis,
        pooling=pooling,
    )
    found = ensemble.predict(x)
    assert isinstance(found, jax.Array)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    for z, member in zip(logits, ensemble.member_predictions(x), strict=True):
        np.testing.assert_allclose(member, shares(z), rtol=0, atol=1e-6)


def test_the_class_axis_several_inputs_and_none(tmp_path: Path) -> None:
    params = {"w": jnp.arange(12.0).reshape(3, 4)}
    recorded(tmp_path, params)

    def two(params: Any, a: Any, b: Any) -> Any:
        return jnp.swapaxes((a + b)[:, :, None] * params["w"], 1, 2)

    ensemble = SnapshotEnsemble(two, tmp_path, params, class_axis=1)
    a, b = jnp.ones((7, 3)), jnp.ones((7, 3))
    np.testing.assert_allclose(ensemble.predict((a, b), batch_size=3).sum(1), 1, rtol=1e-6)
    assert ensemble.predict((a[:0], b[:0])).shape == (0, 4, 3)
    with pytest.raises(ca.EnsembleError, match=r"same number of samples.*\[7, 6\]"):
        ensemble.predict((a, b[:6]))
    with pytest.raises(ca.EnsembleError, match=r"`x` must be an array.*list"):
        ensemble.predict([a, b])


def test_ensembles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    params = small_net()
    missing = re.escape(str(tmp_path / "none"))
    with pytest.raises(ca.EnsembleError, match=rf"{missing} must hold at least one snapshot"):
        SnapshotEnsemble(apply, tmp_path / "none", params)
    recorded(tmp_path, params)
    with pytest.raises(ca.EnsembleError, match=r"`like` must be params .* Received: None; snap"):
        SnapshotEnsemble(apply, tmp_path)
    x, _ = data(3)
    with pytest.raises(ca.EnsembleError, match=r"the 3 snapshots asked for\. Received: 1"):
        SnapshotEnsemble(apply, tmp_path, params, last=3)
    with pytest.raises(ca.EnsembleError, match=r"`apply_fn` must be a function.*dict"):
        SnapshotEnsemble(params, tmp_path, params)  # type: ignore[arg-type]
    wider = {**params, "out": {**params["out"], "bias": jnp.zeros(4)}}
    with pytest.raises(ca.EnsembleError, match=r"its tensor 'out.bias' is float32 of shape \(3,\)"):
        SnapshotEnsemble(apply, tmp_path, wider).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"its tensor 'out.bias' is not in the model"):
        SnapshotEnsemble(apply, tmp_path, {"hidden": params["hidden"]}).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor 'more' is not in it"):
        SnapshotEnsemble(apply, tmp_path, {**params, "more": jnp.ones(1)}).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"must return one array.* a dict with 'a' and 'b'"):
        SnapshotEnsemble(lambda _, x: {"a": x, "b": x}, tmp_path, params).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"shape .* could be several things.*values"):
        SnapshotEnsemble(lambda _, x: x[:, :1], tmp_path, params).predict(x)


def test_an_ensemble_inside_jit_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path, small_net())
    ensemble = SnapshotEnsemble(apply, tmp_path, like=small_net())
    with pytest.raises(
        ca.EnsembleError, match=r"outside of jit\. Received: x as a tracer; jit the"
    ):
        jax.jit(ensemble.predict)(data(5)[0])


def test_a_damaged_member_is_not_predicted_with(tmp_path: Path) -> None:
    params = small_net()
    (snapshot,) = recorded(tmp_path, params).list()
    content = bytearray(snapshot.path.read_bytes())
    content[-1] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"is damaged.*does not match its digest"):
        SnapshotEnsemble(apply, tmp_path, params).predict(data(2)[0])


class Scaled(nnx.Module):
    """A model of nnx, with a state that is no parameter."""

    def __init__(self, rngs: Any) -> None:
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(self.dense(x))


STRUCTURE = nnx.graphdef(Scaled(nnx.Rngs(0)))


def apply_nnx(state: Any, x: Any) -> Any:
    return nnx.merge(STRUCTURE, state)(x)


def apply_keyed(params: Any, x: Any) -> Any:
    return apply(params, x) * params["scale"] + jax.random.key_data(params["key"]).sum() * 0


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
@pytest.mark.parametrize("kind", ["nnx", "keyed"])
def test_an_ensemble_goes_to_another_process(tmp_path: Path, kind: str) -> None:
    params: Any = small_net() | {"scale": np.ones(3, np.float32), "key": jax.random.key(3)}
    run: Any = apply_keyed
    if kind == "nnx":
        params, run = nnx.state(Scaled(nnx.Rngs(0))), apply_nnx
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for i in range(3):
            recorder.step(
                jax.tree.map(
                    lambda a, i=i: (
                        a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a + 0.1 * i
                    ),
                    params,
                )
            )
    x, y = data(30)
    ensemble = SnapshotEnsemble(run, tmp_path, like=params, members=lambda one: one.step > 1)
    assert len(ensemble) == 2
    assert len(check_pickled(ensemble, x, y)) < 20_000  # no weights
