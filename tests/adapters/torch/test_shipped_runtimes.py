"""An ensemble as one module in the runtimes that take some seconds, or packages of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.adapters.torch.export import export_ensemble, run_export
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import folder_results
from cosanneal.report import Card, write_model_folder
from tests.shared.cards import predictions_of
from tests.shared.torch_members import recorded

# What torch's exporters and inductor themselves use of torch.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec", "ignore:`torch.jit.script:DeprecationWarning"
)


class Convolution(nn.Module):
    """Classes of an image; or a mean and a variance."""

    def __init__(self, seed: int, *, pairs: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head, self.pairs = nn.Linear(4, 3), pairs
        self.norm.running_mean = torch.randn(4)

    def forward(self, x: Tensor) -> Any:
        z = 2 * self.head(torch.relu(self.norm(self.convolution(x))).mean((2, 3)))
        return (z, nn.functional.softplus(z)) if self.pairs else z


class Wide(Convolution):
    """The same, with weights that are most of a file."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.before = nn.Sequential(nn.Flatten(), nn.Linear(25, 4000), nn.Linear(4000, 25))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x + self.before(x).reshape(x.shape))


def images() -> Tensor:
    return torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"outputs": "logits", "class_axis": axis, "pooling": pooling}
            for pooling in ("probabilities", "logits", "log-probabilities", "vote")
            for axis in (-1, None)
        ),
        {"outputs": "gaussian"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_onnx_gives_the_same_for_batches_of_any_size(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    x = images()
    pairs = options["outputs"] == "gaussian"
    members = [Convolution(seed, pairs=pairs) for seed in range(3)]
    ensemble = SnapshotEnsemble(recorded(tmp_path / "run", members), tmp_path / "run", **options)
    predicted = ensemble.predict(x)
    torch.onnx.export(
        ensemble.as_module(),
        (x[:4],),
        tmp_path / "ensemble.onnx",
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=2)},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(
        tmp_path / "ensemble.onnx", providers=["CPUExecutionProvider"]
    )
    assert [each.name for each in session.get_inputs()] == ["x"]
    found = session.run(None, {"x": x.numpy()})
    wanted: Any = predicted if pairs else [predicted]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.std() > 0.01
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_one_file_gives_the_same_in_its_runtime(
    tmp_path: Path,
    format: str,  # noqa: A002
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = images()
    model = recorded(tmp_path / "run", [Convolution(seed) for seed in range(2)])
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    predicted = ensemble.predict(x).numpy()
    export_ensemble(ensemble, tmp_path / "one", x[:4].double(), format=format)
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["one"]
    for samples in (1, 7):
        (found,) = run_export(tmp_path / "one", x[:samples].double().numpy(), format=format)
        assert predicted.std() > 0.01
        np.testing.assert_allclose(found, predicted[:samples], rtol=0, atol=1e-6)
    if format == "onnx":
        monkeypatch.setattr("cosanneal.ensemble.onnx_file.MOST_BYTES", 100)
        with pytest.raises(EnsembleError, match=r"at most 100 bytes .* write format 'pt2'"):
            export_ensemble(ensemble, tmp_path / "two", x, format=format)
    with pytest.raises(EnsembleError, match="Argument `format` must be 'onnx' or 'pt2'"):
        run_export(tmp_path / "one", x.numpy(), format="onnxx")


class Several(nn.Module):
    """Classes by two arguments of one shape, which must not be taken for one, and by a third."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two, self.names = nn.Linear(4, 3), nn.Linear(4, 3), nn.Embedding(5, 3)

    def forward(self, x: Tensor, y: Tensor, name: Tensor) -> Tensor:
        z: Tensor = 3 * self.one(x) * self.two(y) + self.names(name)
        return z


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_models_of_several_arguments_are_written_and_run(
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    model = recorded(tmp_path / "run", [Several(seed) for seed in range(2)])
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    drawn = np.random.default_rng(0)
    x = (*drawn.standard_normal((2, 6, 4)), drawn.integers(5, size=6))
    predicted = ensemble.predict(x).numpy()
    export_ensemble(ensemble, tmp_path / "one", x, format=format)
    for samples in (1, 6):
        batch = tuple(each[:samples] for each in x)
        (found,) = run_export(tmp_path / "one", batch, format=format)
        np.testing.assert_allclose(found, predicted[:samples], rtol=0, atol=1e-6)
    wrong: dict[str, Any] = {
        r"same number of samples. Received: \[6, 5\]": (x[0], x[1][:5]),
        "must be an array of numpy or a tensor.* Received: {": {"x": [1.0]},
        "none of the names 'labels', 'label', 'y', which predict": {"x": x[0], "y": x[1]},
        r"must be an array .*Received: \[": [x[0], x[1]],
        r"must be an array .*Received: \(\)": (),
    }
    for message, given in wrong.items():
        with pytest.raises(EnsembleError, match=message):
            export_ensemble(ensemble, tmp_path / "two", given, format=format)
        if "names" not in message:
            with pytest.raises(EnsembleError, match=message):
                run_export(tmp_path / "one", given, format=format)
    assert not (tmp_path / "two").exists()
    with pytest.raises(EnsembleError, match="one that it refuses"):
        export_ensemble(ensemble, tmp_path / "two", x[:2], format=format)
    takes = "'x', 'y', 'name'" if format == "onnx" else "3 arrays"
    with pytest.raises(EnsembleError, match=rf"takes: {takes}\. Received: 2 arrays"):
        run_export(tmp_path / "one", x[:2], format=format)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_models_of_named_inputs_are_written_and_run(
    tmp_path: Path,
    format: str,  # noqa: A002
    whole: bool,
) -> None:
    model = recorded(tmp_path / "run", [Named(seed, whole=whole) for seed in range(2)])
    forward: Any = (lambda model, batch: model(batch)) if whole else None
    options: Any = {"outputs": "logits", "class_axis": -1, "forward": forward}
    ensemble = SnapshotEnsemble(model, tmp_path / "run", **options)
    a, b = np.random.default_rng(0).standard_normal((2, 6, 2))
    predicted = ensemble.predict({"b": b, "a": a}).numpy()
    # Of one sample, and in another order than the model has them.
    export_ensemble(ensemble, tmp_path / "one", {"b": b[:1], "a": a[:1]}, format=format)
    for samples in (1, 6):
        given = {"a": a[:samples], "b": b[:samples]}
        (found,) = run_export(tmp_path / "one", given, format=format)
        np.testing.assert_allclose(found, predicted[:samples], rtol=0, atol=1e-6)
    assert abs(predicted - ensemble.predict({"a": b, "b": a}).numpy()).max() > 1e-3
    if format == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "one")
        assert [each.name for each in session.get_inputs()] == ["b", "a"]
    wanted = "'b', 'a'. Received: 'a', 'c'" if format == "onnx" else "'a', 'b'. Received: a dict"
    with pytest.raises(EnsembleError, match=rf"must be what the file takes: .*{wanted}"):
        run_export(tmp_path / "one", {"a": a, "c": b}, format=format)


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("onnx", torch.float16), ("pt2", torch.float16), ("pt2", torch.bfloat16)],
)
def test_members_of_low_precision_are_written_and_run(
    tmp_path: Path,
    format: str,  # noqa: A002
    dtype: torch.dtype,
) -> None:
    x = images()
    model = recorded(tmp_path / "run", [Wide(seed) for seed in range(2)])
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    predicted = ensemble.predict(x).numpy()
    rounded = ensemble.as_module(dtype=dtype)(x).numpy()
    spacing = torch.finfo(dtype).eps
    export_ensemble(ensemble, tmp_path / "own", x, format=format)
    export_ensemble(ensemble, tmp_path / "half", x, format=format, dtype=dtype)
    for samples in (1, 7):
        (found,) = run_export(tmp_path / "half", x[:samples].numpy(), format=format)
        assert found.dtype == np.float32
        # Runtimes sum in other orders, and round in other places.
        apart = spacing if format == "onnx" else 1e-6
        np.testing.assert_allclose(found, rounded[:samples], rtol=0, atol=apart)
        np.testing.assert_allclose(found, predicted[:samples], rtol=0, atol=4 * spacing)
    assert abs(rounded - predicted).max() > spacing / 50
    if format == "onnx":
        (taken,) = onnxruntime.InferenceSession(tmp_path / "half").get_inputs()
        assert taken.type == "tensor(float)"
    else:
        (taken,) = torch.export.load(tmp_path / "half").example_inputs[0]
        assert taken.dtype == torch.float32
    sizes = [(tmp_path / name).stat().st_size for name in ("half", "own")]
    assert 0.45 < sizes[0] / sizes[1] < 0.6
    if format == "onnx":
        with pytest.raises(EnsembleError, match=r"`dtype` must be float16 for format 'onnx'"):
            export_ensemble(ensemble, tmp_path / "no", x, format=format, dtype=torch.bfloat16)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_nothing_of_the_samples_is_in_the_file(
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    model = recorded(tmp_path / "run", [Convolution(0)])
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    x = torch.rand(1000, 1, 5, 5)
    ensemble.predict(x)
    export_ensemble(ensemble, tmp_path / "one", x, format=format)
    data = (tmp_path / "one").read_bytes()
    assert len(data) < x.nbytes
    assert x[0].numpy().tobytes() not in data


def test_the_code_of_its_card_runs(tmp_path: Path) -> None:
    model = recorded(tmp_path / "run", [Convolution(seed) for seed in range(2)])
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    x = images()
    ensemble.predict(x)
    out = write_model_folder(
        tmp_path / "out",
        lambda path: export_ensemble(ensemble, path, x, format="onnx"),
        Card(format="onnx", shape=x.shape[1:], dtype="float32", members=["a", "b"]),
        folder_results(tmp_path / "run"),
    )
    given, predictions = predictions_of(out)
    expected = ensemble.predict(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-6)


def test_inductor_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    x = images()
    members = [Convolution(seed) for seed in range(2)]
    ensemble = SnapshotEnsemble(
        recorded(tmp_path / "run", members), tmp_path / "run", outputs="logits", class_axis=-1
    )
    predicted = ensemble.predict(x)
    found = torch.compile(ensemble.as_module(), fullgraph=True)(x)
    torch.testing.assert_close(found, predicted, rtol=0, atol=1e-6)
    torch._dynamo.reset()


class Named(nn.Module):
    """Two inputs by name, or one dict of them."""

    def __init__(self, seed: int, *, whole: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear, self.whole = nn.Linear(2, 3), whole

    def forward(self, a: Any, b: Any = None) -> Tensor:
        a, b = (a["a"], a["b"]) if self.whole else (a, b)
        z: Tensor = 2 * self.linear(a) - self.linear(b)
        return z


@pytest.mark.parametrize("whole", [True, False])
def test_a_dict_goes_through_onnx_as_the_page_says(tmp_path: Path, whole: bool) -> None:
    model = recorded(tmp_path / "run", [Named(seed, whole=whole) for seed in range(2)])
    forward: Any = (lambda model, batch: model(batch)) if whole else None
    options: Any = {"outputs": "logits", "class_axis": -1, "forward": forward}
    ensemble = SnapshotEnsemble(model, tmp_path / "run", **options)
    x = {"a": torch.randn(6, 2), "b": torch.randn(6, 2)}
    predicted, module = ensemble.predict(x).numpy(), ensemble.as_module()
    path, rows = tmp_path / "ensemble.onnx", {name: {0: torch.export.Dim.DYNAMIC} for name in x}
    if whole:
        torch.onnx.export(module, (x, {}), path, dynamo=True, dynamic_shapes=(rows,))
    else:
        torch.onnx.export(module, kwargs=x, f=path, dynamo=True, dynamic_shapes=rows)
    session = onnxruntime.InferenceSession(path)
    for samples in (2, 6):
        given = {each.name: x[each.name[-1]][:samples].numpy() for each in session.get_inputs()}
        (found,) = session.run(None, given)
        np.testing.assert_allclose(found, predicted[:samples], rtol=0, atol=1e-6)
