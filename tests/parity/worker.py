"""One framework's half of the comparison: `python -m tests.parity.worker NAME OUT`.

Each framework has a process of its own, since Keras takes one backend only. What
it computed is written as JSON, whose floats are exact.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import cosanneal as ca
from cosanneal.demo.digits import batch_order, split_digits
from cosanneal.demo.experiment import Config
from cosanneal.demo.training import Training
from cosanneal.ensemble import ConformalPredictor
from cosanneal.snapshots import SnapshotStore

from . import network
from .plans import INT32, SCHEDULES, finite, steps_of

# By a name, how a schedule is made a function of the step.
Modes: TypeAlias = dict[str, Callable[[ca.Schedule], Callable[[int], Any]]]


def _rates(modes: Modes, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for mode, prepare in modes.items():
        found: dict[str, list[float]] = {}
        dtypes = set()
        for name, schedule in SCHEDULES.items():
            rate = prepare(schedule)
            values = [np.asarray(rate(step)) for step in steps_of(name, limit)]
            dtypes |= {str(value.dtype) for value in values}
            found[name] = [float(value) for value in values]
        (dtype,) = dtypes
        yield mode, {"dtype": dtype, "limit": limit, "rates": found}


def _core() -> dict[str, Any]:
    return {
        "rates": dict(_rates({"": lambda schedule: schedule.rate}, 2**62)),
        "ends": {name: _ends(schedule) for name, schedule in finite().items()},
    }


def _ends(schedule: ca.Schedule) -> list[list[int]]:
    return [[i, step + 1] for i, step in enumerate(schedule.cycle_ends())]


def _recorded(drive: Callable[[str, ca.Schedule], object]) -> dict[str, list[list[int]]]:
    """The cycle and the number of updates of each snapshot that a recorder wrote."""
    found = {}
    for name, schedule in finite().items():
        with tempfile.TemporaryDirectory() as folder:
            drive(folder, schedule)
            found[name] = [[each.cycle, each.step] for each in SnapshotStore(folder).list()]
    return found


def _predicted(
    ensemble: Any, x: Any, y: Any, ship: Callable[[], Callable[[Any], Any]]
) -> dict[str, Any]:
    """What an ensemble gives, and also what `ship` makes of it."""
    sure = ensemble.predict_with_uncertainty(x)
    found: dict[str, Any] = {
        "members": [np.asarray(each).tolist() for each in ensemble.member_predictions(x)],
        "pooled": np.asarray(ensemble.predict(x)).tolist(),
        "uncertainty": {
            field.name: np.asarray(getattr(sure, field.name)).tolist() for field in fields(sure)
        },
        "sets": {},
    }
    found["shipped"] = {"all": np.asarray(ship()(x)).tolist()}
    half = len(y) // 2
    for variant in network.CONFORMAL:
        predictor = ConformalPredictor.fit(sure.probabilities[:half], y[:half], **variant)
        sets = predictor.predict(sure.probabilities[half:])
        found["sets"][str(variant)] = predictor.threshold, sets.tolist()
    for select in ("last", "greedy", "weights"):
        choice = ensemble.fit(x, y, select=select)
        fitted = np.asarray(ensemble.predict(x)).tolist()
        found[select] = [*choice.weights], choice.temperature, fitted
        found["shipped"][select] = np.asarray(ship()(x)).tolist()
    return found


def _losses(backend: str, build: str, first: Callable[..., Any]) -> list[float]:
    """The demonstration's losses, from weights that all frameworks begin with."""
    module = importlib.import_module(f"cosanneal.demo.{backend}_backend")
    setattr(module, build, first)
    split, config, updates = split_digits(0), Config(), 40
    with tempfile.TemporaryDirectory() as folder:
        task = Training(
            split=split,
            order=batch_order(0, len(split.train), 15, updates),
            seed=0,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            # Always the same rate: the momentum of Keras keeps the rates of the
            # updates before, where torch's and optax' takes the rate of now.
            schedule=ca.CyclicCosine(0.05, total_steps=updates, num_cycles=1, min_lr=0.05),
            folder=Path(folder),
            progress=lambda: None,
        )
        losses: list[float] = module.train(task).losses
    return losses


def _torch() -> dict[str, Any]:
    import torch

    from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
    from cosanneal.demo.torch_backend import build_model

    torch.set_num_threads(1)

    def prepare(schedule: ca.Schedule) -> Callable[[int], float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = CyclicCosineLR(optimizer, schedule)
        optimizer.step()

        def rate(step: int) -> float:
            scheduler.last_epoch = step - 1
            scheduler.step()
            return float(optimizer.param_groups[0]["lr"])

        return rate

    def drive(folder: str, schedule: ca.Schedule) -> None:
        with SnapshotRecorder(folder, torch.nn.Linear(1, 1), schedule) as recorder:
            for _ in range(schedule.total_steps or 0):
                recorder.step()

    model = torch.nn.Sequential(
        torch.nn.Linear(network.FEATURES, network.HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(network.HIDDEN, network.CLASSES),
    )
    with tempfile.TemporaryDirectory() as folder:
        with SnapshotRecorder(folder, model, _one_by_one()) as recorder:
            for weights in network.members():
                state = {}
                for place, layer in (("0", weights["hidden"]), ("2", weights["head"])):
                    state[f"{place}.weight"] = torch.tensor(layer["kernel"].T)
                    state[f"{place}.bias"] = torch.tensor(layer["bias"])
                model.load_state_dict(state)
                recorder.step()
        x, y = torch.tensor(network.inputs()), torch.tensor(network.labels())
        ensemble = SnapshotEnsemble(model, folder)
        predicted = _predicted(ensemble, x, y, ensemble.as_module)

    def first(_seed: int) -> Any:
        model: Any = build_model(0)
        layers = network.demonstration()
        kernels = {name: torch.tensor(layer["kernel"]) for name, layer in layers.items()}
        # The channels of an image come first here, also where it is made flat.
        hidden = kernels["hidden"].reshape(2, 2, 16, 32).permute(3, 2, 0, 1).flatten(1)
        convolutions = [kernels[f"convolution{i}"].permute(3, 2, 0, 1) for i in (0, 1)]
        values = iter([*convolutions, hidden, kernels["last"].T])
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.copy_(next(values))
            model[-1].bias.zero_()
        return model

    return {
        "rates": dict(_rates({"": prepare}, 2**62)),
        "ends": _recorded(drive),
        "losses": _losses("torch", "build_model", first),
        **predicted,
    }


def _one_by_one() -> ca.Schedule:
    """A cycle for each member of the network, of one step."""
    return ca.CyclicCosine(0.1, total_steps=network.MEMBERS, num_cycles=network.MEMBERS)


def _jax() -> dict[str, Any]:
    import jax

    from cosanneal.adapters.jax import (
        SnapshotEnsemble,
        SnapshotRecorder,
        cyclic_cosine_schedule,
    )
    from cosanneal.demo.jax_backend import build_params

    def drive(folder: str, schedule: ca.Schedule) -> None:
        with SnapshotRecorder(folder, schedule) as recorder:
            for _ in range(schedule.total_steps or 0):
                recorder.step({"w": jax.numpy.zeros(1)})

    def apply_fn(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        return hidden @ params["head"]["kernel"] + params["head"]["bias"]

    def compiled(schedule: ca.Schedule) -> Callable[[int], Any]:
        rate = jax.jit(cyclic_cosine_schedule(schedule))
        return lambda step: rate(jax.numpy.asarray(step))

    modes: Modes = {"eager": cyclic_cosine_schedule, "jit": compiled}
    rates = dict(_rates(modes, INT32))
    with jax.enable_x64(True):
        rates |= {f"x64 {mode}": found for mode, found in _rates(modes, 2**62)}
    with tempfile.TemporaryDirectory() as folder:
        with SnapshotRecorder(folder, _one_by_one()) as recorder:
            for weights in network.members():
                params = jax.tree.map(jax.numpy.asarray, weights)
                recorder.step(params)
        ensemble = SnapshotEnsemble(jax.jit(apply_fn), folder, like=params)
        x, y = jax.numpy.asarray(network.inputs()), network.labels()

        def ship() -> Any:
            function, members = ensemble.as_function()
            return jax.tree_util.Partial(jax.jit(function), members)

        predicted = _predicted(ensemble, x, jax.numpy.asarray(y, np.int32), ship)
    params = build_params(0)
    for name, layer in network.demonstration().items():
        params["weights"][name]["kernel"] = jax.numpy.asarray(layer["kernel"])
    losses = _losses("jax", "build_params", lambda _seed: params)
    return {"rates": rates, "ends": _recorded(drive), "losses": losses, **predicted}


def _keras(backend: str) -> dict[str, Any]:
    import keras

    from cosanneal.adapters.keras import (
        CyclicCosineSchedule,
        SnapshotEnsemble,
        SnapshotRecorder,
    )
    from cosanneal.demo.keras_backend import build_model

    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras took {keras.backend.backend()}, not {backend}")
    iterations = keras.optimizers.SGD(0.1).iterations.dtype

    # What Keras itself does on PyTorch, and numpy deprecates.
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")

    def called(function: Any) -> Callable[[int], Any]:
        def rate(step: int) -> Any:
            return keras.ops.convert_to_numpy(
                function(keras.ops.convert_to_tensor(step, iterations))
            )

        return rate

    modes: Modes = {"eager": lambda schedule: called(CyclicCosineSchedule(schedule))}
    if backend == "tensorflow":
        import tensorflow as tf

        modes["graph"] = lambda schedule: called(tf.function(CyclicCosineSchedule(schedule)))
        modes["XLA"] = lambda schedule: called(
            tf.function(CyclicCosineSchedule(schedule), jit_compile=True)
        )
    if backend == "jax":
        import jax

        modes["jit"] = lambda schedule: called(jax.jit(CyclicCosineSchedule(schedule)))

    def drive(folder: str, schedule: ca.Schedule) -> None:
        steps = schedule.total_steps or 0
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
        recorder = SnapshotRecorder(folder, schedule)
        x = np.zeros((steps, 1), np.float32)
        model.fit(x, x, batch_size=1, verbose=0, callbacks=[recorder])

    model = keras.Sequential(
        [
            keras.Input((network.FEATURES,)),
            keras.layers.Dense(network.HIDDEN, activation="relu"),
            keras.layers.Dense(network.CLASSES),
        ]
    )
    # A rate of 0 leaves the weights as they are.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    x = network.inputs()
    with tempfile.TemporaryDirectory() as folder:
        recorder = SnapshotRecorder(folder, _one_by_one())
        for weights in network.members():
            model.set_weights([array for layer in weights.values() for array in layer.values()])
            model.fit(x[:1], np.zeros(1, np.int32), verbose=0, callbacks=[recorder])
        ensemble = SnapshotEnsemble(model, folder)

        def ship() -> Any:
            shipped = ensemble.as_model()
            return lambda x: shipped.predict(x, verbose=0)

        predicted = _predicted(ensemble, x, network.labels(), ship)

    def first(_seed: int, weight_decay: float) -> Any:
        model = build_model(0, weight_decay)
        values = iter(network.demonstration().values())
        for weight in model.trainable_weights:
            if len(weight.shape) > 1:
                weight.assign(next(values)["kernel"])
        return model

    return {
        "rates": dict(_rates(modes, INT32)),
        "ends": _recorded(drive),
        "losses": _losses("keras", "build_model", first),
        **predicted,
    }


FRAMEWORKS: dict[str, Callable[[], dict[str, Any]]] = {
    "core": _core,
    "torch": _torch,
    "jax": _jax,
    "Keras on tensorflow": lambda: _keras("tensorflow"),
    "Keras on jax": lambda: _keras("jax"),
    "Keras on torch": lambda: _keras("torch"),
}


def environment(name: str) -> dict[str, str]:
    """The environment of a framework's process."""
    _, _, backend = name.partition(" on ")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **quiet, **({"KERAS_BACKEND": backend} if backend else {})}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(FRAMEWORKS[sys.argv[1]]()))
