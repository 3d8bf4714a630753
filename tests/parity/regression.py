"""One framework's ensemble of means and variances: `python -m tests.parity.regression NAME OUT`.

The weights are those of `network`, whose first two outputs are means here, and the softplus of
the next two the variances.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble.predict.gaussian import pair_of

from . import network


def one_by_one() -> ca.Schedule:
    """A cycle for each member, of one step."""
    return ca.CyclicCosine(0.1, total_steps=network.MEMBERS, num_cycles=network.MEMBERS)


def targets() -> NDArray[np.float64]:
    """What two of the members know best, with noise."""
    (means, _) = expected()
    noise = np.random.default_rng(96).normal(size=means.shape[1:])
    return np.asarray(means[[1, 3]].mean(axis=0) + 0.5 * noise)


def expected() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The members' means and variances in float64, each of shape (members, samples, 2)."""
    x = network.inputs().astype(np.float64)
    means, variances = [], []
    for weights in network.members():
        hidden = np.maximum(x @ weights["hidden"]["kernel"] + weights["hidden"]["bias"], 0)
        z = hidden @ weights["head"]["kernel"] + weights["head"]["bias"]
        means.append(z[:, :2])
        variances.append(np.log1p(np.exp(z[:, 2:4])))
    return np.array(means), np.array(variances)


def predicted(ensemble: Any, x: Any) -> dict[str, Any]:
    """What is compared: pooled, after each fit, and with the predictive variance."""
    y = targets().astype(np.float32)
    found: dict[str, Any] = {}

    def listed(pair: Any) -> list[Any]:
        return [np.asarray(each).tolist() for each in pair_of(pair)]

    found["modes"] = [listed(ensemble.predict(x, mode=mode)) for mode in ("stream", "stacked")]
    for select in ("last", "greedy", "weights"):
        choice = ensemble.fit(x, y, select=select)
        found[select] = {
            "weights": choice.weights,
            "scale": choice.variance_scale,
            "score": choice.candidates[-1].scores["gaussian_nll"],
            "pair": listed(ensemble.predict(x)),
            "with_variance": listed(ensemble.predict_with_variance(x)),
        }
    return found


def _torch(folder: str) -> Any:
    import torch

    from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder

    class Net(torch.nn.Sequential):
        def forward(self, x: Any) -> Any:
            z: Any = torch.nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
            return z[:, :2], torch.nn.functional.softplus(z[:, 2:4])

    torch.set_num_threads(1)
    model = Net(
        torch.nn.Linear(network.FEATURES, network.HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(network.HIDDEN, network.CLASSES),
    )
    with SnapshotRecorder(folder, model, one_by_one()) as recorder:
        for weights in network.members():
            state = {}
            for place, layer in (("0", weights["hidden"]), ("2", weights["head"])):
                state[f"{place}.weight"] = torch.tensor(layer["kernel"].T)
                state[f"{place}.bias"] = torch.tensor(layer["bias"])
            model.load_state_dict(state)
            recorder.step()
    ensemble = SnapshotEnsemble(model, folder, outputs="gaussian")
    return ensemble, torch.tensor(network.inputs())


def _jax(folder: str) -> Any:
    import jax

    from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder

    def apply_fn(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        z = hidden @ params["head"]["kernel"] + params["head"]["bias"]
        return {"mean": z[:, :2], "variance": jax.nn.softplus(z[:, 2:4])}

    with SnapshotRecorder(folder, one_by_one()) as recorder:
        for weights in network.members():
            params = jax.tree.map(jax.numpy.asarray, weights)
            recorder.step(params)
    ensemble = SnapshotEnsemble(jax.jit(apply_fn), folder, like=params, outputs="gaussian")
    return ensemble, jax.numpy.asarray(network.inputs())


def _keras(folder: str) -> Any:
    import keras

    from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder

    # What Keras itself does on PyTorch, and numpy deprecates.
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")
    x = keras.Input((network.FEATURES,))
    hidden = keras.layers.Dense(network.HIDDEN, activation="relu")(x)
    z = keras.layers.Dense(network.CLASSES)(hidden)
    model = keras.Model(x, [z[:, :2], keras.ops.softplus(z[:, 2:4])])
    model.compile(keras.optimizers.SGD(0.0), ["mse", "mse"])
    inputs = network.inputs()
    recorder = SnapshotRecorder(folder, one_by_one())
    for weights in network.members():
        model.set_weights([array for layer in weights.values() for array in layer.values()])
        y = np.zeros((1, 2), np.float32)
        model.fit(inputs[:1], [y, y], verbose=0, callbacks=[recorder])
    return SnapshotEnsemble(model, folder, outputs="gaussian"), inputs


BUILDS: dict[str, Callable[[str], Any]] = {
    "torch": _torch,
    "jax": _jax,
    "Keras on tensorflow": _keras,
    "Keras on jax": _keras,
    "Keras on torch": _keras,
}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ensemble, x = BUILDS[sys.argv[1]](folder)
        Path(sys.argv[2]).write_text(json.dumps(predicted(ensemble, x)))
