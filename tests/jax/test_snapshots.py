"""Recording params of JAX, and predicting with what was recorded."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, cyclic_cosine_schedule
from cosanneal.ensemble.predict.pooling import Pooling
from cosanneal.snapshots import SnapshotStore

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def small_net(seed: int = 0) -> dict[str, dict[str, jax.Array]]:
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "hidden": {"kernel": jax.random.normal(first, (4, 8)), "bias": jnp.zeros(8)},
        "out": {"kernel": jax.random.normal(second, (8, 3)), "bias": jnp.zeros(3)},
    }


@jax.jit
def apply(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def data(samples: int = 48) -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(samples, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


TX = optax.sgd(cyclic_cosine_schedule(SCHEDULE), momentum=0.9)


def _update(params: Any, opt_state: Any, key: Any) -> Any:
    key, draw = jax.random.split(key)
    x, y = map(jnp.asarray, data())
    rows = jax.random.randint(draw, (16,), 0, len(x))

    def loss(params: Any) -> Any:
        logits = apply(params, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    updates, opt_state = TX.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state, key


# The buffers of one update are written over by the next.
update = jax.jit(_update, donate_argnums=(0, 1, 2))


class Training:
    """A run with everything that a checkpoint must carry."""

    def __init__(self, folder: Path, resume_from: int | None = None) -> None:
        params = small_net()
        self.state = (params, TX.init(params), jax.random.key_data(jax.random.key(5)))
        self.recorder = SnapshotRecorder(folder, SCHEDULE, resume_from=resume_from)

    def update(self) -> None:
        *_, key = self.state
        params, opt_state, key = update(*self.state[:2], jax.random.wrap_key_data(key))
        self.state = params, opt_state, jax.random.key_data(key)
        self.recorder.step(params, {"seen": self.recorder.updates})

    def save(self, path: Path) -> None:
        self.recorder.wait()
        path.write_bytes(pickle.dumps((jax.device_get(self.state), self.recorder.updates)))

    @classmethod
    def load(cls, path: Path, folder: Path) -> Training:
        state, updates = pickle.loads(path.read_bytes())  # noqa: S301 - our own
        run = cls(folder, resume_from=updates)
        run.state = jax.tree.map(jnp.asarray, state)
        return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("saved", "killed"), [(3, 4), (8, 13), (10, 10), (9, 20), (0, 2)])
def test_a_killed_run_resumed_from_a_checkpoint_is_the_run_that_was_not(
    tmp_path: Path, saved: int, killed: int
) -> None:
    whole = Training(tmp_path / "whole")
    for _ in range(20):
        whole.update()

    broken = Training(tmp_path / "broken")
    for step in range(killed):
        if step == saved:
            broken.save(tmp_path / "checkpoint")
        broken.update()
    if saved == killed:
        broken.save(tmp_path / "checkpoint")
    broken.recorder.close()

    resumed = Training.load(tmp_path / "checkpoint", tmp_path / "broken")
    for _ in range(20 - saved):
        resumed.update()
    for run in (whole, resumed):
        run.recorder.close()

    for left, right in zip(*map(jax.tree.leaves, (whole.state, resumed.state)), strict=True):
        assert np.array_equal(left, right)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


def test_snapshots_are_the_params_after_each_cycles_last_update(tmp_path: Path) -> None:
    run = Training(tmp_path)
    expected = {}
    for step in range(20):
        run.update()
        if SCHEDULE.is_cycle_end(step):
            expected[step + 1] = jax.tree.map(lambda leaf: np.array(leaf), run.state[0])
    run.recorder.wait()
    snapshots = run.recorder.store.list()
    assert [(snapshot.cycle, snapshot.step) for snapshot in snapshots] == [
        (0, 5),
        (1, 10),
        (2, 15),
        (3, 20),
    ]
    for snapshot in snapshots:
        # Donated buffers have been written over since.
        loaded, params = snapshot.load(), expected[snapshot.step]
        assert {*loaded} == {"hidden.kernel", "hidden.bias", "out.kernel", "out.bias"}
        assert np.array_equal(loaded["hidden.kernel"], params["hidden"]["kernel"])
        assert np.array_equal(loaded["out.bias"], params["out"]["bias"])
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
        assert snapshot.metadata["metrics"] == {"seen": snapshot.step - 1}
        assert snapshot.metadata["framework"] == "jax"
        assert snapshot.metadata["versions"]["jax"] == jax.__version__
        assert snapshot.schedule == SCHEDULE
    assert not np.array_equal(
        expected[15]["hidden"]["kernel"], snapshots[-1].load()["hidden.kernel"]
    )


def test_params_are_copied_before_step_returns(tmp_path: Path) -> None:
    params = jnp.arange(5.0)
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        overwrite = jax.jit(lambda values: values * 0 - 1, donate_argnums=0)
        recorder.step({"w": params})
        overwrite(params)
        assert params.is_deleted()
        with pytest.raises(ca.SnapshotError, match=r"that the update returned.*'w'.*donated"):
            recorder.step({"w": params})
    assert recorder.store.list()[0].load()["w"].tolist() == [0, 1, 2, 3, 4]


def test_params_are_not_looked_at_where_no_cycle_ends(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {}

    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        for _ in range(4):
            assert recorder.step(object(), measure) is False
        assert recorder.step({"w": jnp.ones(2)}, measure) is True
    assert len(calls) == 1


class Pair(NamedTuple):
    left: Any
    right: Any


@partial(
    jax.tree_util.register_dataclass, data_fields=("weight", "parts"), meta_fields=()
)  # which older releases of JAX do not find out themselves
@dataclass
class Block:
    weight: Any
    parts: Any


def every_kind() -> Any:
    values = jnp.array([-1.5, 0.0, 3.14159, 7e-3])
    block = Block(
        weight=values.astype(jnp.bfloat16),
        parts=[values.astype(jnp.float8_e4m3fn), values.astype(jnp.float8_e5m2), None],
    )
    return {
        "block": block,
        "pair": Pair(left=values.astype(jnp.float16), right=(jnp.arange(3), jnp.array([True]))),
        3: {"complex": values.astype(jnp.complex64), "empty": jnp.zeros((0, 3))},
        **{7: np.array([1.0, np.pi]), 9: jnp.array(2.5)},
        10: jax.random.key(3),
        11: 0.5,
        12: np.arange(6).reshape(2, 3).T,
    }


def first(tree: Any) -> Any:
    """With string keys only, for jax sorts keys."""
    return {str(key): value for key, value in tree.items()}


def bits(leaf: Any) -> bytes:
    if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)).tobytes()


def recorded(folder: Path, params: Any) -> SnapshotStore:
    with SnapshotRecorder(folder, EVERY_STEP, resume_from=0) as recorder:
        recorder.step(params)
    return recorder.store


def test_arrays_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    params = first(every_kind())
    (snapshot,) = recorded(tmp_path, params).list()
    names = set(snapshot.load())
    assert {"block.weight", "block.parts.0", "pair.left", "pair.right.1", "3.empty", "9"} <= names
    ensemble = SnapshotEnsemble(apply, tmp_path, like=params)
    back = ensemble.params(snapshot)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert isinstance(back["block"], Block)
    assert isinstance(back["pair"], Pair)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        assert bits(old) == bits(new)
        if hasattr(old, "dtype"):
            assert (old.dtype, old.shape, type(old)) == (new.dtype, new.shape, type(new))
    assert snapshot.layout()["block.parts.0"] == ((4,), "float8_e4m3fn")


def test_like_may_be_the_shapes_of_keys(tmp_path: Path) -> None:
    params = {"key": jax.random.key(3, impl="rbg"), "keys": jax.random.split(jax.random.key(1), 2)}
    (snapshot,) = recorded(tmp_path, params).list()
    like = jax.eval_shape(lambda: params)
    back = SnapshotEnsemble(apply, tmp_path, like=like).params(snapshot)
    for name, key in params.items():
        assert back[name].dtype == key.dtype
        assert bits(back[name]) == bits(key)


def test_like_may_be_shapes_alone_or_donated(tmp_path: Path) -> None:
    params = small_net()
    recorded(tmp_path, params)
    x, _ = data(5)
    expected = jax.nn.softmax(apply(params, x))
    for like in (jax.eval_shape(small_net), params):
        ensemble = SnapshotEnsemble(apply, tmp_path, like=like)
        if like is params:
            jax.tree.map(lambda leaf: leaf.delete(), params)
        np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-6)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.BatchNorm(use_running_average=True)(linen.Dense(8)(x))
        return linen.Dense(3)(x)


def test_flax_linen_variables(tmp_path: Path) -> None:
    x, _ = data(6)
    variables = Linen().init(jax.random.key(0), x)
    (snapshot,) = recorded(tmp_path, variables).list()
    assert "batch_stats.BatchNorm_0.mean" in snapshot.load()
    ensemble = SnapshotEnsemble(jax.jit(Linen().apply), tmp_path, like=variables)
    expected = jax.nn.softmax(Linen().apply(variables, x))
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5)


def test_flax_nnx_state(tmp_path: Path) -> None:
    x, _ = data(6)
    model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    graph, state = nnx.split(model)
    recorded(tmp_path, state)

    def predict(state: Any, x: Any) -> Any:
        merged = nnx.merge(graph, state)
        merged.eval()
        return merged(x)

    ensemble = SnapshotEnsemble(predict, tmp_path, like=state)
    np.testing.assert_allclose(ensemble.predict(x), jax.nn.softmax(predict(state, x)), rtol=1e-6)


class Classifier(equinox.Module):
    layers: list[Any]
    activation: Callable[[Any], Any]

    def __init__(self, key: Any) -> None:
        first, second = jax.random.split(key)
        self.layers = [equinox.nn.Linear(4, 8, key=first), equinox.nn.Linear(8, 3, key=second)]
        self.activation = jax.nn.relu

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.activation(self.layers[0](x)))


def test_equinox_modules(tmp_path: Path) -> None:
    x, _ = data(6)
    model = Classifier(jax.random.key(0))
    with pytest.raises(ca.SnapshotError, match=r"'activation', .*equinox\.filter"):
        recorded(tmp_path, model)
    params, static = equinox.partition(model, equinox.is_array)
    (snapshot,) = recorded(tmp_path, params).list()
    assert snapshot.load()["layers.0.weight"].shape == (8, 4)

    @jax.jit
    def predict(params: Any, x: Any) -> Any:
        return jax.vmap(equinox.combine(params, static))(x)

    like = equinox.filter(Classifier(jax.random.key(1)), equinox.is_array)
    ensemble = SnapshotEnsemble(predict, tmp_path, like=like)
    assert isinstance(ensemble.params(snapshot), Classifier)
    np.testing.assert_allclose(ensemble.predict(x), jax.nn.softmax(jax.vmap(model)(x)), rtol=1e-6)


def test_an_nnx_state_that_changes_its_batch_statistics(tmp_path: Path) -> None:
    """Each snapshot has the statistics of its own update."""
    model = nnx.BatchNorm(4, momentum=0.5, rngs=nnx.Rngs(0))
    x, _ = data(6)
    means = []
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for _ in range(3):
            model(x)
            state = nnx.state(model)
            recorder.step(state)
            means.append(np.asarray(model.mean[...]))
    loaded = [snapshot.load() for snapshot in recorder.store.list()]
    (name,) = (name for name in loaded[0] if "mean" in name)
    assert [np.array_equal(each[name], mean) for each, mean in zip(loaded, means, strict=True)] == [
        True
    ] * 3
    assert not np.array_equal(means[0], means[2])


def test_params_whose_structure_changed_are_refused(tmp_path: Path) -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones((2, 3))}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"a": params["a"]}, r"its tensor 'b' is not in the model"),
        ({**params, "c": jnp.ones(1)}, r"the model's tensor 'c' is not in it"),
        ({**params, "b": jnp.ones((3, 2))}, r"'b' is float32 of shape \(2, 3\), .* \(3, 2\)"),
        ({**params, "a": jnp.ones(2, jnp.bfloat16)}, r"'a' is float32 .* bfloat16 of shape"),
    ]
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(params)
        for changed, message in changes:
            with pytest.raises(ca.SnapshotError, match="must keep its structure.*" + message):
                recorder.step(changed)
        recorder.step(params)
    # A run resumed with another model is one too.
    with (
        SnapshotRecorder(tmp_path, EVERY_STEP, resume_from=6) as recorder,
        pytest.raises(ca.SnapshotError, match=r"must keep its structure.*'b' is not in the model"),
    ):
        recorder.step({"a": params["a"]})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: {"f": jnp.sin}, r"must consist of arrays\. Received: 'f', a .*equinox.filter"),
        (lambda: {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}, r"two whose path reads 'a\.b'"),
        (lambda: {"four": jnp.ones(2, jnp.int4)}, r"'four' must have a dtype that .*int4"),
        (lambda: {"__metadata__": jnp.ones(2)}, r"must not be named '__metadata__'"),
        (dict, r"at least one array\. Received: \{\}"),
    ],
)
def test_params_that_cannot_be_held_are_refused_by_name(
    tmp_path: Path, build: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        recorded(tmp_path, build())
    assert list(tmp_path.iterdir()) == []


def test_a_recorder_inside_jit_is_refused(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, EVERY_STEP)
    with pytest.raises(ca.SnapshotError, match=r"outside of jit\. Received: 'w' as a tracer"):
        jax.jit(lambda w: recorder.step({"w": w}))(jnp.ones(2))
    recorder.close()
    with pytest.raises(ca.SnapshotError, match="closed"):
        recorder.step({})
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        SnapshotRecorder(tmp_path, 3)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("outputs", ["probabilities", "values"])
def test_other_outputs_are_averaged_as_they_are(tmp_path: Path, outputs: Any) -> None:
    params = trained(tmp_path)
    x, _ = data(9)
    ensemble = SnapshotEnsemble(apply, tmp_path, params, last=2, outputs=outputs)
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
    with pytest.raises(ca.EnsembleError, match=r"must return one array\. Received: tuple"):
        SnapshotEnsemble(lambda _, x: (x,), tmp_path, params).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"at least two classes.*outputs='values'"):
        SnapshotEnsemble(lambda _, x: x[:, :1], tmp_path, params).predict(x)


def test_a_damaged_member_is_not_predicted_with(tmp_path: Path) -> None:
    params = small_net()
    (snapshot,) = recorded(tmp_path, params).list()
    content = bytearray(snapshot.path.read_bytes())
    content[-1] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"is damaged.*does not match its digest"):
        SnapshotEnsemble(apply, tmp_path, params).predict(data(2)[0])
