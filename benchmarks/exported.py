"""What an ensemble costs as a file, in bytes and in time, beside a single model's file.

    python -m benchmarks.exported [--rounds 15]

Of M = 5 members of a net of three layers (0.4 million weights, 1.6 MB), each file that
`export_ensemble` writes, in the runtime that it is for: .pt2 by torch.export.load, ONNX
by ONNX Runtime, .keras by `predict_on_batch`, SavedModel (saved) by tf.saved_model, and
StableHLO by jax.export, jitted. The limit is the file of one member, written in the same
way and run in turn; five passes of it would be five times that. f16 and bf16 are files
whose members are held in float16 and bfloat16 (`dtype=`), beside the same single model in
float32. Times are of one batch of 1 or of 64 samples on one thread, in time of the
processor, in which other programs have no part. Before it is timed, each file is compared
with the ensemble. A SavedModel of Keras has each weight twice, also of a single model;
from Keras' backend torch there is no ONNX in float16.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, lacking, say_left_out

MEMBERS, INPUTS, CLASSES, WIDTHS = 5, 256, 10, (512, 512)
CALLS = {1: 20, 64: 5}  # of a round, by the samples of a batch
# What is written where, by the name under which the tables have it.
FORMATS = {
    "torch": ("pt2", "onnx"),
    "keras/tf": ("keras", "savedmodel", "onnx"),
    "keras/torch": ("keras", "onnx"),
    "keras/jax": ("keras",),
    "jax": ("stablehlo",),
}
BACKENDS = {"keras/tf": "tensorflow", "keras/torch": "torch", "keras/jax": "jax"}
DTYPES = {"": None, " f16": "float16", " bf16": "bfloat16"}
# In which ONNX is not written; elsewhere it is bfloat16.
LACKING = {"keras/torch": ("float16", "bfloat16")}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

# Writes an ensemble, and opens what was written: a function of a batch.
Write = Callable[[Any, Path, str, str | None], None]
Open = Callable[[Path, str], Callable[[Any], Any]]


def measure(rounds: int = 15) -> Iterator[Figure]:
    """Each framework in a process of its own."""
    for place in FORMATS:
        environment = os.environ | ONE_THREAD | {"KERAS_BACKEND": BACKENDS.get(place, "")}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.exported", "--rounds", str(rounds), "--of", place],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        if isinstance(found, str):
            say_left_out(place, found)
            continue
        for each in found:
            yield Figure(**each)


def measured(place: str, rounds: int) -> Iterator[dict[str, Any]]:
    """The figures of a framework, as plain data."""
    x = np.random.default_rng(0).normal(size=(64, INPUTS)).astype("f4")
    with tempfile.TemporaryDirectory() as folder:
        ensembles, write, open_file = KINDS[place.partition("/")[0]](Path(folder, "run"))
        wanted = np.asarray(ensembles[0].predict(x))
        ensembles[1].predict(x)
        for kind in FORMATS[place]:
            files = {}
            for name, dtype in DTYPES.items():
                if kind == "onnx" and dtype in LACKING.get(place, ("bfloat16",)):
                    continue
                file = files[name] = Path(folder, f"many{name}.{kind}")
                write(ensembles[0], file, kind, dtype)
            single = Path(folder, f"one.{kind}")
            write(ensembles[1], single, kind, None)
            runs = {name: open_file(file, kind) for name, file in files.items()}
            for name, run in runs.items():
                apart = abs(np.asarray(run(x), "f8") - wanted).max()
                if not apart < (1e-5 if DTYPES[name] is None else 0.03):
                    raise RuntimeError(f"{place} {kind}{name} is off by {apart}")
            yield from figures(place, kind, x, runs, open_file(single, kind), files, single, rounds)


def figures(
    place: str,
    kind: str,
    x: Any,
    runs: dict[str, Callable[[Any], Any]],
    limit: Callable[[Any], Any],
    files: dict[str, Path],
    single: Path,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """The bytes and the times of a format, with each dtype."""
    times: dict[int, dict[str, list[float]]] = {}
    for size, calls in CALLS.items():
        batch = x[:size]

        def several(run: Callable[[Any], Any], batch: Any = batch, calls: int = calls) -> None:
            for _ in range(calls):
                run(batch)

        turns = {name: functools.partial(several, run) for name, run in runs.items()}
        turns["limit"] = functools.partial(several, limit)
        times[size] = in_turn(turns, repeats=rounds, per=calls / 1e3, clock=time.process_time)
    ending = {"keras": ".keras", "savedmodel": "saved"}.get(kind, kind)
    for name, file in files.items():
        title = f"{place} {ending}{name}"
        least = megabytes(single)
        yield {"name": f"{title}, size", "unit": "MB", "ours": [megabytes(file)], "limit": least}
        for size, taken in times.items():
            yield {
                "name": f"{title}, batch {size}",
                "unit": "ms",
                "ours": taken[name],
                "limit": taken["limit"],
            }


def megabytes(path: Path) -> float:
    """The bytes of a file, or of a folder's files."""
    found = [path, *path.rglob("*")]
    return sum(each.stat().st_size for each in found if each.is_file()) / 1e6


def opened_onnx(file: Path) -> Callable[[Any], Any]:
    """A file of ONNX in ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def of_torch(folder: Path) -> tuple[Sequence[Any], Write, Open]:
    """Ensembles of all members and of one, in torch, and how they are written and opened."""
    import torch
    from torch import nn

    from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
    from cosanneal.adapters.torch.export import export_ensemble

    torch.set_num_threads(1)

    def net() -> nn.Module:
        sizes, layers = (INPUTS, *WIDTHS), list[nn.Module]()
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(WIDTHS[-1], CLASSES))

    model = net()
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(MEMBERS):
            torch.manual_seed(seed)
            model.load_state_dict(net().state_dict())
            recorder.step()
    example = torch.zeros(2, INPUTS)

    def write(ensemble: Any, file: Path, kind: str, dtype: str | None) -> None:
        held = None if dtype is None else getattr(torch, dtype)
        export_ensemble(ensemble, file, example, format=kind, dtype=held)

    def opened(file: Path, kind: str) -> Callable[[Any], Any]:
        if kind == "onnx":
            return opened_onnx(file)
        module = torch.export.load(file).module()

        def run(x: Any) -> Any:
            with torch.no_grad():
                return module(torch.from_numpy(x)).numpy()

        return run

    known: Any = {"outputs": "logits", "class_axis": -1}
    ensembles = [SnapshotEnsemble(model, folder, last=last, **known) for last in (None, 1)]
    return ensembles, write, opened


def of_keras(folder: Path) -> tuple[Sequence[Any], Write, Open]:
    """The same in Keras, on the backend that it was told to use."""
    import keras
    from keras import layers

    from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
    from cosanneal.adapters.keras.export import export_ensemble

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)

    def net() -> Any:
        hidden = [layers.Dense(width, activation="relu") for width in WIDTHS]
        return keras.Sequential([keras.Input((INPUTS,)), *hidden, layers.Dense(CLASSES)])

    model = net()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(1).normal(size=(MEMBERS, INPUTS)).astype("f4")
    recorder = SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1))
    model.fit(x, x[:, :CLASSES], batch_size=1, callbacks=[recorder], verbose=0)

    def write(ensemble: Any, file: Path, kind: str, dtype: str | None) -> None:
        export_ensemble(ensemble, file, format=kind, dtype=dtype)

    def opened(file: Path, kind: str) -> Callable[[Any], Any]:
        if kind == "onnx":
            return opened_onnx(file)
        if kind == "keras":
            loaded: Any = keras.saving.load_model(file)
            return lambda x: loaded.predict_on_batch(x)
        import tensorflow as tf

        served = tf.saved_model.load(str(file))
        return lambda x: served.serve(x).numpy()

    known: Any = {"outputs": "logits", "class_axis": -1}
    ensembles = [SnapshotEnsemble(net, folder, last=last, **known) for last in (None, 1)]
    return ensembles, write, opened


def of_jax(folder: Path) -> tuple[Sequence[Any], Write, Open]:
    """The same in JAX."""
    import jax
    import jax.numpy as jnp
    from jax import export

    from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
    from cosanneal.adapters.jax.export import export_ensemble

    sizes = (INPUTS, *WIDTHS, CLASSES)

    def net(seed: int) -> list[dict[str, Any]]:
        drawn = np.random.default_rng(seed)
        return [
            {
                "kernel": jnp.asarray(drawn.normal(size=shape) / shape[0] ** 0.5, "float32"),
                "bias": jnp.zeros(shape[1]),
            }
            for shape in itertools.pairwise(sizes)
        ]

    def apply_fn(params: Any, x: Any) -> Any:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return x @ params[-1]["kernel"] + params[-1]["bias"]

    with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(MEMBERS):
            recorder.step(net(seed))

    def write(ensemble: Any, file: Path, kind: str, dtype: str | None) -> None:  # noqa: ARG001
        export_ensemble(ensemble, file, jnp.zeros((2, INPUTS)), dtype=dtype)

    def opened(file: Path, kind: str) -> Callable[[Any], Any]:  # noqa: ARG001
        run = jax.jit(export.deserialize(bytearray(file.read_bytes())).call)
        return lambda x: np.asarray(run(x))

    known: Any = {"like": net(0), "outputs": "logits", "class_axis": -1}
    ensembles = [SnapshotEnsemble(apply_fn, folder, last=last, **known) for last in (None, 1)]
    return ensembles, write, opened


KINDS = {"torch": of_torch, "keras": of_keras, "jax": of_jax}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--of", choices=FORMATS, help="one framework, as plain data")
    given = parser.parse_args()
    if given.of is None:
        sys.exit(alone(measure(given.rounds)))
    try:
        print(json.dumps([*measured(given.of, given.rounds)]))
    except ModuleNotFoundError as error:
        print(json.dumps(lacking(error)))
