"""`cosanneal export` of Keras' snapshots, called as a user would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.keras.export import export_ensemble, run_export
from cosanneal.cli.functions import named_function
from cosanneal.core.errors import EnsembleError
from tests.shared.calling import Command
from tests.shared.cards import predictions_of

call, error_of = Command("export").call, Command("export").error_of

OLD = keras.__version__.startswith("3.7.")  # which writes no ONNX

BUILD = """
import keras
def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
def other():
    return {}
def several(form):
    names = ("one", "two") if form == "dict" else ("zeta", "alpha")
    zeta, alpha = (keras.Input((4,), name=name) for name in names)
    z = keras.layers.Dense(3)(zeta) - 2 * keras.layers.Dense(3)(alpha)
    given = {"dict": {"zeta": zeta, "alpha": alpha}, "nested": [zeta, [alpha]]}
    return keras.Model(given.get(form, [zeta, alpha]), z)
def as_list():
    return several("list")
def as_dict():
    return several("dict")
def nested():
    return several("nested")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("their_keras.py").write_text(BUILD)
    yield
    sys.modules.pop("their_keras", None)


def recorded() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x = samples(3)
    recorder = SnapshotRecorder("run", ca.CyclicCosine(1.0, cycle_steps=1))
    model.fit(x, 9 * x[:, :3], batch_size=1, callbacks=[recorder], verbose=0)
    return model


def formats_here() -> list[str]:
    """What is written on this backend, by this release of Keras."""
    others = {"tensorflow": ["savedmodel", "onnx"], "torch": ["onnx"]}
    found = ["keras", *others.get(keras.backend.backend(), [])]
    return [each for each in found if each != "onnx" or not OLD]


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 4)).astype("f4")


def test_what_is_written_gives_what_the_ensemble_gives() -> None:
    ensemble, x = SnapshotEnsemble(recorded(), "run", outputs="logits", class_axis=-1), samples(5)
    predicted = ensemble.predict(x)
    assert predicted.std() > 0.01
    given = ("run", "--model", "their_keras:build", "--shape", "4", "--outputs", "logits")
    formats = formats_here()
    if "savedmodel" not in formats:
        message = error_of(*given, "--format", "savedmodel", "-o", "e.savedmodel")
        assert "set KERAS_BACKEND=tensorflow" in message
    if "onnx" not in formats:
        message = error_of(*given, "--format", "onnx", "-o", "e.onnx")
        wanted = "on Keras' backend torch or tensorflow. Received: jax; set KERAS_BACKEND="
        assert (wanted if keras.backend.backend() == "jax" else "by Keras 3.8 or newer") in message
    for name in formats:
        result = call(*given, "--format", name, "-o", f"e.{name}")
        assert result.exit_code == 0, result.stderr
        assert "The mean of 3 members" in result.stdout
        assert "It differs from the ensemble by at most " in result.stdout
        for count in (1, 5):
            (found,) = run_export(f"e.{name}", x[:count], format=name)
            np.testing.assert_allclose(found, predicted[:count], rtol=0, atol=1e-6)
    said = error_of(*given, "--format", "pt2", "-o", "e.pt2")
    assert "Option --format must be keras or onnx or savedmodel for snapshots of keras" in said
    wrong = ("run", "--model", "their_keras:other", "--shape", "4")
    said = error_of(*wrong, "--format", "keras", "-o", "other.keras")
    assert "must return a keras.Model for snapshots of keras. Received: dict" in said


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_members_are_held_in_a_dtype(dtype: str) -> None:
    ensemble, x = SnapshotEnsemble(recorded(), "run", outputs="logits", class_axis=-1), samples(5)
    predicted = ensemble.predict(x)
    rounded = ensemble.as_model(dtype=dtype).predict(x, verbose=0)
    spacing = 2.0**-7 if dtype == "bfloat16" else 2.0**-10
    assert spacing / 100 < abs(rounded - predicted).max() < 4 * spacing
    given = ("run", "--model", "their_keras:build", "--shape", "4", "--outputs", "logits")
    for name in formats_here():
        options = ("--dtype", dtype, "--format", name, "-o", f"e.{name}")
        if name == "onnx" and dtype == "bfloat16":
            assert "--dtype must be float16 for --format onnx" in error_of(*given, *options)
            with pytest.raises(EnsembleError, match="must be float16 for format 'onnx'"):
                export_ensemble(ensemble, "e.onnx", format=name, dtype=dtype)
            continue
        if name == "onnx" and keras.backend.backend() == "torch":
            said = "float16 must be written on Keras' backend tensorflow. Received: torch, on"
            assert said in error_of(*given, *options)
            assert not Path("e.onnx").exists()
            continue
        result = call(*given, *options)
        assert result.exit_code == 0, result.stderr
        (found,) = run_export(f"e.{name}", x, format=name)
        assert found.dtype == np.float32
        # Runtimes sum in other orders, and round in other places.
        apart = 2 * spacing if name == "onnx" else 1e-6
        np.testing.assert_allclose(found, rounded, rtol=0, atol=apart)
        if name == "onnx":
            graph = onnx.load("e.onnx").graph
            kernels = [each for each in graph.initializer if [*each.dims] == [4, 3]]
            assert [each.data_type for each in kernels] == [onnx.TensorProto.FLOAT16] * 3


# Files name inputs by the keys of a dict. Keras warns where its own inputs have other names.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("form", ["list", "dict"])
def test_models_of_several_inputs_are_written(form: str) -> None:
    model = named_function(f"their_keras:as_{form}", "--model")()
    model.compile(keras.optimizers.SGD(0.3), "mse")
    zeta, alpha = samples(6), samples(12)[6:]
    x = [zeta, alpha] if form == "list" else {"zeta": zeta, "alpha": alpha}
    recorder = SnapshotRecorder("run", ca.CyclicCosine(0.3, cycle_steps=1))
    model.fit(x, zeta[:, :3], batch_size=3, callbacks=[recorder], verbose=0)
    predicted = SnapshotEnsemble(model, "run", outputs="logits", class_axis=-1).predict(x)
    swapped = [alpha, zeta] if form == "list" else {"zeta": alpha, "alpha": zeta}
    assert abs(model.predict(swapped, verbose=0) - model.predict(x, verbose=0)).max() > 0.01
    np.save("zeta.npy", zeta)
    np.save("alpha.npy", alpha)
    given = ("run", "--model", f"their_keras:as_{form}", "--outputs", "logits")
    ordered = ("--input", "zeta.npy", "--input", "alpha.npy")
    named = ("--input", "alpha=alpha.npy", "--input", "zeta=zeta.npy")
    for name in formats_here():
        for files in [named, ordered] if form == "list" and name == "keras" else [named]:
            result = call(*given, *files, "--format", name, "-o", f"e.{name}", "--force")
            assert result.exit_code == 0, result.stderr
        for count in (1, 6):
            part = keras.tree.map_structure(lambda each, count=count: each[:count], x)
            (found,) = run_export(f"e.{name}", part, format=name)
            np.testing.assert_allclose(found, predicted[:count], rtol=0, atol=1e-6)
        if name == "onnx":
            inputs = onnxruntime.InferenceSession("e.onnx").get_inputs()
            assert {each.name for each in inputs} == {"zeta", "alpha"}
    said = error_of(*given, "--input", "zeta.npy", "--format", "keras", "-o", "no.keras")
    wanted = f"the model's inputs: zeta, alpha{', by name' if form == 'dict' else ''}. Received: 1 "
    assert wanted in said
    if form == "dict":
        said = error_of(*given, *ordered, "--format", "keras", "-o", "no.keras")
        assert "by name. Received: 2 without a name" in said
    options = ("--model", "their_keras:nested", *named, "--format", "keras", "-o", "no.keras")
    assert "Received: one that takes nested inputs, zeta, alpha" in error_of("run", *options)


def test_the_code_of_its_card_runs() -> None:
    model = recorded()
    expected = SnapshotEnsemble(model, "run", outputs="logits", class_axis=-1)
    np.save("x.npy", samples(40))
    np.save("y.npy", np.arange(40) % 3)
    given = ("run", "--model", "their_keras:build", "--outputs", "logits", "--card")
    for name in formats_here():
        options = ("--input", "x.npy", "--labels", "y.npy", "--format", name, "-o", f"out-{name}")
        result = call(*given, *options)
        assert result.exit_code == 0, result.stderr
        x, predictions = predictions_of(Path(f"out-{name}"))
        assert x.shape == (2, 4)
        np.testing.assert_allclose(
            np.asarray(keras.ops.convert_to_numpy(predictions)),
            expected.predict(x),
            rtol=0,
            atol=1e-6,
        )
        card = Path(f"out-{name}/README.md").read_text(encoding="utf-8")
        assert "- type: error" in card
        assert f"- keras\n- {name}\n" in card
