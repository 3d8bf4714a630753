"""The running statistics of Equinox and Haiku, which store them in ways of their own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError

Floats = NDArray[np.float64]

# Releases before 0.12 have no other mode than "ema".
MODES = ["batch", "ema"] if "mode" in inspect.signature(eqx.nn.BatchNorm).parameters else ["ema"]


def data(samples: int = 90) -> tuple[Any, Any]:
    """Rows far from 0, of unlike scales, and sorted: no batch has the mean of all."""
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, 3)) * (3.0, 0.5, 1.0) + np.linspace(-1, 3, samples)[:, None]
    return x.astype(np.float32), (x[:, 0] + x[:, 1] > 1).astype(int)


class Parts:
    """A loader of parts of so many samples."""

    def __init__(self, x: Any, sizes: Sequence[int]) -> None:
        self.parts = np.split(x, np.cumsum(sizes)[:-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)


def recorded(folder: Path, members: Sequence[Any]) -> None:
    with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for member in members:
            recorder.step(member)


def log_loss(logits: Any, y: Any) -> float:
    z = np.asarray(logits, np.float64)
    z = z - z.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]))


class Net(eqx.Module):
    """Linear layers with BatchNorm between them; counts nothing of its own."""

    layers: list[eqx.nn.Linear]
    norms: list[eqx.nn.BatchNorm]
    last: eqx.nn.Linear

    def __init__(self, mode: str, momenta: Sequence[float], key: Any) -> None:
        keys = jax.random.split(key, len(momenta) + 1)
        self.layers = [eqx.nn.Linear(3, 3, key=each) for each in keys[1:]]
        options = {"mode": mode} if len(MODES) > 1 else {}
        self.norms = [eqx.nn.BatchNorm(3, "batch", momentum=m, **options) for m in momenta]
        self.last = eqx.nn.Linear(3, 2, key=keys[0])

    def __call__(self, x: Any, state: Any) -> Any:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x, state = norm(layer(x), state)
            x = jax.nn.leaky_relu(x)
        return self.last(x), state


class Equinox:
    """A net of Equinox, as its documents split it, and its function of statistics."""

    def __init__(self, mode: str, momenta: Sequence[float], *, marked: bool = True) -> None:
        self.mode, self.momenta, self.marked = mode, tuple(momenta), marked
        self.static = eqx.partition(self._made(0)[0], eqx.is_array)[1]

    def _made(self, seed: int) -> Any:
        given = self.mode, self.momenta, jax.random.key(seed)
        if self.marked:
            return eqx.nn.make_with_state(Net)(*given)
        if not hasattr(self, "whole"):  # whose states are known by objects, and not by names
            self.whole = Net(*given)
        return eqx.nn.delete_init_state(self.whole), eqx.nn.State(self.whole)

    def params(self, seed: int) -> Any:
        model, state = self._made(seed)
        return eqx.filter(model, eqx.is_array), state

    def _run(self, params: Any, x: Any, inference: bool) -> Any:
        arrays, state = params
        model = eqx.nn.inference_mode(eqx.combine(arrays, self.static), inference)
        run = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return run(x, state)

    def trained(self, seed: int, x: Any, updates: int) -> Any:
        """After so many batches, of which only the statistics learn."""
        params, move = self.params(seed), jax.jit(self.statistics_fn)
        random = np.random.default_rng(seed)
        for _ in range(updates):
            params = move(params, x[random.integers(len(x), size=16)])
        return params

    def statistics_fn(self, params: Any, x: Any) -> Any:
        return params[0], self._run(params, x, inference=False)[1]

    def apply(self, params: Any, x: Any) -> Any:
        return self._run(params, x, inference=True)[0]


def exact(model: Net, x: Any, sizes: Sequence[int]) -> tuple[list[Floats], list[Floats]]:
    """The moments of what reaches each BatchNorm, in float64, by numpy alone."""
    reached: list[list[Floats]] = [[] for _ in model.norms]
    for part in Parts(np.asarray(x, np.float64), sizes):
        h = part
        for i, (layer, norm) in enumerate(zip(model.layers, model.norms, strict=True)):
            h = h @ np.asarray(layer.weight, np.float64).T + np.asarray(layer.bias, np.float64)
            reached[i].append(h)
            h = (h - h.mean(0)) / np.sqrt(h.var(0) + norm.eps)
            h = h * np.asarray(norm.weight, np.float64) + np.asarray(norm.bias, np.float64)
            h = np.where(h > 0, h, 0.01 * h)
    every = [np.concatenate(each) for each in reached]
    return [e.mean(0) for e in every], [e.var(0) for e in every]


def numpys(model: Net, means: Any, variances: Any, x: Any) -> Floats:
    """The predictions with these statistics, in float64."""
    h = np.asarray(x, np.float64)
    for layer, norm, mean, variance in zip(
        model.layers, model.norms, means, variances, strict=True
    ):
        h = h @ np.asarray(layer.weight, np.float64).T + np.asarray(layer.bias, np.float64)
        h = (h - mean) / np.sqrt(variance + norm.eps)
        h = np.where(h > 0, h, 0.01 * h)
    last = model.last
    return h @ np.asarray(last.weight, np.float64).T + np.asarray(last.bias, np.float64)


@pytest.mark.parametrize(
    ("momenta", "sizes", "marked"),
    [
        ((0.999,), (90,), True),
        ((0.99,), (20, 55, 15), False),
        ((0.99, 0.9), (20, 55, 15), True),
        ((0.9, 0.999, 0.5), (20, 55, 15), False),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_equinox_predicts_with_the_statistics_of_the_data(
    tmp_path: Path, mode: str, sizes: Sequence[int], momenta: Sequence[float], marked: bool
) -> None:
    x, y = data()
    net = Equinox(mode, momenta, marked=marked)
    members = [net.trained(seed, x, 300) for seed in range(2)]
    recorded(tmp_path, members)
    ensemble = SnapshotEnsemble(
        jax.jit(net.apply), tmp_path, like=members[0], statistics_fn=jax.jit(net.statistics_fn)
    )
    found = ensemble.average_weights(train_data=Parts(x, sizes), barrier=math.inf).weights
    model = eqx.combine(found[0], net.static)
    means, variances = exact(model, x, sizes)
    expected = numpys(model, means, variances, x)
    # Equinox takes `momentum ** 300` in float32, and its ema mode stores little of a batch.
    tolerance = 2e-4 if max(momenta) > 0.99 else 2e-5
    np.testing.assert_allclose(net.apply(found, x), expected, rtol=tolerance, atol=tolerance)
    assert log_loss(net.apply(found, x), y) == pytest.approx(log_loss(expected, y), rel=tolerance)
    # As a run that goes on from there sees them.
    for i, norm in enumerate(model.norms):
        if mode == "batch":
            assert int(found[1].get(norm.batch_counter)) == 300
            share = 1 - momenta[i] ** 300
            mean, variance = found[1].get(norm.batch_state_index)
        else:
            assert not found[1].get(norm.ema_first_time_index)
            share, (mean, variance) = 1.0, found[1].get(norm.ema_state_index)
        np.testing.assert_allclose(mean, means[i] * share, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(variance, variances[i] * share, rtol=2e-4)


@pytest.mark.parametrize("updates", [0, 1])
def test_statistics_that_were_hardly_ever_moved(tmp_path: Path, updates: int) -> None:
    x, _ = data()
    for mode in MODES:
        net = Equinox(mode, (0.99,))
        members = [net.trained(seed, x, updates) for seed in range(2)]
        recorded(tmp_path / mode, members)
        ensemble = SnapshotEnsemble(
            net.apply, tmp_path / mode, like=members[0], statistics_fn=net.statistics_fn
        )
        found = ensemble.average_weights(train_data=x, barrier=math.inf).weights
        model = eqx.combine(found[0], net.static)
        expected = numpys(model, *exact(model, x, (90,)), x)
        np.testing.assert_allclose(net.apply(found, x), expected, rtol=2e-4, atol=2e-4)


class Own(eqx.Module):
    """A layer of one's own, with statistics in whatever states."""

    states: dict[str, eqx.nn.StateIndex]

    def __init__(self, states: dict[str, Any]) -> None:
        self.states = {name: eqx.nn.StateIndex(init) for name, init in states.items()}


def test_a_layer_of_ones_own_in_equinox(tmp_path: Path) -> None:
    x, _ = data()
    one = jnp.ones(3)

    def ensemble(folder: Path, states: dict[str, Any], value: Callable[[Any], Any]) -> Any:
        layer, state = eqx.nn.make_with_state(Own)(states)

        def moved(params: Any, x: Any) -> Any:
            state = params
            for name, new in value(x).items():
                index = layer.states[name]
                old = state.get(index)
                state = state.set(
                    index, jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, old, new)
                )
            return state

        def apply(params: Any, x: Any) -> Any:
            return sum(each.sum() for each in jax.tree.leaves(params)) + x[:, :2]

        recorded(folder, [state, state])
        return SnapshotEnsemble(apply, folder, like=state, statistics_fn=jax.jit(moved)), layer

    # By their names in the module a mean and its variance are known.
    given, layer = ensemble(
        tmp_path / "names",
        {"mean": one, "var": one},
        lambda x: {"mean": x.mean(0), "var": x.var(0)},
    )
    found = given.average_weights(train_data=Parts(x, (20, 70)), barrier=math.inf).weights
    np.testing.assert_allclose(
        found.get(layer.states["var"]), x.astype(np.float64).var(0), rtol=1e-5
    )
    # As BatchNorm's before Equinox 0.12.
    given, layer = ensemble(
        tmp_path / "older",
        {"first_time_index": jnp.array(False), "state_index": (one, one)},
        lambda x: {"state_index": (x.mean(0), x.var(0))},
    )
    found = given.average_weights(train_data=Parts(x, (20, 70)), barrier=math.inf).weights
    np.testing.assert_allclose(
        found.get(layer.states["state_index"])[1], x.astype(np.float64).var(0), rtol=1e-5
    )
    given, _ = ensemble(
        tmp_path / "pair", {"both": (one, one)}, lambda x: {"both": (x.mean(0), x.var(0))}
    )
    message = r"one a variance.*Received: '0\.0' and '0\.1'.*states\.both.*StateIndex.*`mean`"
    with pytest.raises(EnsembleError, match=message):
        given.average_weights(train_data=x, barrier=math.inf)


def hk_net(x: Any, is_training: bool, decay: float = 0.999) -> Any:
    for _ in range(2):
        x = hk.Linear(3)(x)
        x = jax.nn.leaky_relu(hk.BatchNorm(True, True, decay)(x, is_training))
    return hk.Linear(2)(x)


class Haiku:
    """The same net in Haiku."""

    def __init__(self) -> None:
        self.net = hk.without_apply_rng(hk.transform_with_state(hk_net))

    def trained(self, seed: int, x: Any, updates: int) -> Any:
        params = self.net.init(jax.random.key(seed), x, True)
        random = np.random.default_rng(seed)
        move = jax.jit(self.statistics_fn)
        for _ in range(updates):
            params = move(params, x[random.integers(len(x), size=16)])
        return params

    def statistics_fn(self, both: Any, x: Any) -> Any:
        params, state = both
        return params, self.net.apply(params, state, x, True)[1]

    def apply(self, both: Any, x: Any) -> Any:
        return self.net.apply(*both, x, False)[0]


@pytest.mark.parametrize("sizes", [(90,), (20, 55, 15)], ids=["one", "three"])
def test_haiku_predicts_with_the_statistics_of_the_data(
    tmp_path: Path, sizes: Sequence[int]
) -> None:
    x, _ = data()
    net = Haiku()
    members = [net.trained(seed, x, 300) for seed in range(2)]
    recorded(tmp_path, members)
    ensemble = SnapshotEnsemble(
        jax.jit(net.apply), tmp_path, like=members[0], statistics_fn=net.statistics_fn
    )
    found = ensemble.average_weights(train_data=Parts(x, sizes), barrier=math.inf).weights
    params, state = found
    reached: list[list[Floats]] = [[], []]
    for part in Parts(np.asarray(x, np.float64), sizes):
        h = part
        for i, suffix in enumerate(("", "_1")):
            w = params["linear" + suffix]
            h = h @ np.asarray(w["w"], np.float64) + np.asarray(w["b"], np.float64)
            reached[i].append(h)
            h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
            h = np.where(h > 0, h, 0.01 * h)
    for i, suffix in enumerate(("", "_1")):
        every = np.concatenate(reached[i])
        for kind, value in (("mean", every.mean(0)), ("var", every.var(0))):
            held = state[f"batch_norm{suffix}/~/{kind}_ema"]
            assert int(held["counter"]) == 300
            # Haiku's variance is the mean of squares less the square of the mean.
            np.testing.assert_allclose(held["average"][0], value, rtol=2e-5, atol=1e-5)
            np.testing.assert_allclose(
                held["hidden"], np.asarray(held["average"]) * (1 - 0.999**300), rtol=1e-4
            )
    # Once more, as in training, the average is the hidden value, debiased: they agree.
    kept = net.statistics_fn(found, x)[1]["batch_norm/~/mean_ema"]["average"]
    np.testing.assert_allclose(kept, state["batch_norm/~/mean_ema"]["average"], rtol=1e-3)


@pytest.mark.parametrize("options", [{"zero_debias": False}, {"zero_debias": True}])
def test_a_moving_average_of_haikus_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    def center(x: Any, is_training: bool) -> Any:
        average = hk.ExponentialMovingAverage(0.99, **options, name="center")
        return x[:, :2] - average(x.mean(0), update_stats=is_training)[:2]

    net = hk.without_apply_rng(hk.transform_with_state(center))
    x, _ = data()
    _, state = net.init(None, x, True)

    def moved(state: Any, x: Any) -> Any:
        return net.apply({}, state, x, True)[1]

    def apply(state: Any, x: Any) -> Any:
        return x[:, :2] - state["center"]["average"][:2]

    for _ in range(3):
        state = moved(state, x[:7])
    recorded(tmp_path, [state, state])
    ensemble = SnapshotEnsemble(apply, tmp_path, like=state, statistics_fn=moved)
    found = ensemble.average_weights(train_data=Parts(x, (20, 70)), barrier=math.inf).weights
    mean = x.astype(np.float64).mean(0)
    counter = int(state["center"]["counter"])
    share = 1 - 0.99**counter if options["zero_debias"] else 1
    np.testing.assert_allclose(found["center"]["average"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["center"]["hidden"], mean * share, rtol=1e-5)


def test_statistics_without_a_function_are_refused_with_advice_that_fits(tmp_path: Path) -> None:
    x, y = data()
    batch, ema, haiku = Equinox(MODES[0], (0.9,)), Equinox("ema", (0.9,)), Haiku()
    whole = eqx.filter(Net(MODES[0], (0.9,), jax.random.key(0)), eqx.is_array)
    _, own = eqx.nn.make_with_state(Own)({"center": jnp.ones(3)})
    cases = [
        (batch.params(0), r"`statistics_fn`.*'1\.1\.0'.*state_index.*inference=False"),
        (ema.params(0), r"'1\.1\.0'.*ema_state_index.*inference=False"),
        (own, r"'0'.*states\.center.*inference=False"),
        (whole, r"norms\.0\..*state_index.*make_with_state"),
        # Its statistics were left out when it was recorded.
        (batch.params(0)[0], r"norms\.0\..*state_index.*record.*\(params, state\)"),
        (haiku.trained(0, x, 1), r"'1\.batch_norm/~/mean_ema\.average'.*is_training=True"),
        (haiku.trained(0, x, 1)[1], r"'batch_norm/~/mean_ema\.average'.*transform_with_state"),
    ]
    for i, (params, message) in enumerate(cases):
        recorded(tmp_path / str(i), [params, params])
        ensemble = SnapshotEnsemble(lambda _, x: x[:, :2], tmp_path / str(i), like=params)
        with pytest.raises(EnsembleError, match=message):
            ensemble.average_weights(x, y)


def test_what_needs_no_statistics_is_averaged(tmp_path: Path) -> None:
    _, counted = eqx.nn.make_with_state(Own)({"seen": jnp.array(3)})
    states = [
        (eqx.nn.Linear(3, 2, key=jax.random.key(0)), counted),
        {"counter": jnp.ones(2), "hidden": {"w": jnp.ones(3)}, "average": {"w": jnp.ones(3)}},
    ]
    x, y = data()
    for i, each in enumerate(states):
        params = eqx.filter(each, eqx.is_array)
        recorded(tmp_path / str(i), [params, params])
        ensemble = SnapshotEnsemble(lambda _, x: x[:, :2], tmp_path / str(i), like=params)
        assert not ensemble.average_weights(x, y).statistics


def counting(how: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """A mean that is used as `how` says it is by the counter beside it."""

    def moved(params: Any, x: Any) -> Any:
        mean = 0.9 * params["mean"] + 0.1 * x.mean(0)
        return {**params, "mean": mean, "count": params["count"] + 1}

    def apply(params: Any, x: Any) -> Any:
        return (x - how(params["mean"], params["count"])) @ params["kernel"]

    return moved, apply


def test_a_counter_that_inference_uses_in_a_way_of_its_own_is_refused(tmp_path: Path) -> None:
    x, _ = data()
    params = {"mean": jnp.zeros(3), "kernel": jnp.ones((3, 2)), "count": jnp.array(4)}
    recorded(tmp_path, [params, params])

    def found(how: Callable[[Any, Any], Any]) -> Any:
        moved, apply = counting(how)
        ensemble = SnapshotEnsemble(apply, tmp_path, like=params, statistics_fn=moved)
        return ensemble.average_weights(train_data=x, barrier=math.inf).weights["mean"]

    mean = x.astype(np.float64).mean(0)
    np.testing.assert_allclose(found(lambda mean, _: mean), mean, rtol=1e-5)
    # One's own, debiased: as the library does it.
    np.testing.assert_allclose(
        found(lambda mean, count: mean / (1 - 0.9**count)), mean * (1 - 0.9**4), rtol=1e-5
    )
    with pytest.raises(EnsembleError, match=r"Received: 'count', which the predictions depend on"):
        found(lambda mean, count: mean / jnp.minimum(1, count / 10))
