"""An ensemble as one module gives what it predicts, also exported, compiled and traced."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble.predict.pooling import Pooling
from tests.shared.torch_members import recorded

POOLINGS: tuple[Pooling, ...] = ("probabilities", "logits", "log-probabilities", "vote")
BATCH = torch.export.Dim("batch", min=2)


class Convolution(nn.Module):
    """Classes, boxes and more of an image, by two arguments."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(1, 4, 3, padding=1, dtype=dtype)
        self.norm = nn.BatchNorm2d(4, dtype=dtype)
        self.head = nn.Linear(4, 3, dtype=dtype)
        self.norm.running_mean = torch.randn(4, dtype=dtype)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.convolution(x)))

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:
        found = self.features(x).mean((2, 3))
        return self.head(found if scale is None else found * scale[:, None])


class Pixels(Convolution):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:  # noqa: ARG002
        return 3 * self.features(x)


class Pairs(Convolution):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:
        z = Convolution.forward(self, x, scale)
        return {"mean": z, "variance": nn.functional.softplus(z)}


class Several(Convolution):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:
        z = Convolution.forward(self, x, scale)
        return {"class": z, "more": (z.softmax(-1), [z[:, 0]]), "unused": x}


def network(seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)


def points(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(9, 2, generator=torch.Generator().manual_seed(1)).to(dtype)


def shipped(
    folder: Path, models: Sequence[nn.Module], x: Any, *, vmap: bool = False, **options: Any
) -> tuple[nn.Module, Any]:
    """The module of an ensemble of the models, and what the ensemble predicts."""
    ensemble = SnapshotEnsemble(recorded(folder, models), folder, **options)
    predicted = ensemble.predict(x, mode="stacked" if vmap else "stream")
    return ensemble.as_module(vmap=vmap), predicted


def leaves(found: Any) -> list[Tensor]:
    return [each for each in torch.utils._pytree.tree_leaves(found) if each is not None]


def assert_alike(found: Any, wanted: Any, atol: float = 1e-6) -> None:
    assert type(found) is type(wanted)
    for one, other in zip(leaves(found), leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=atol)


def pooled(z: NDArray[Any], pooling: Pooling, axis: int | None) -> Any:
    """The prediction of logits of shape (members, ...), by definitions that are nobody's code."""
    if axis is None:
        p = 1 / (1 + np.exp(-z))
        return {
            "probabilities": p.mean(0),
            "log-probabilities": np.log(p.mean(0)),
            "logits": 1 / (1 + np.prod((1 - p) / p, axis=0) ** (1 / len(z))),
            "vote": (p > 0.5).mean(0),
        }[pooling]
    p = np.exp(z) / np.exp(z).sum(axis, keepdims=True)
    product = np.prod(p, axis=0) ** (1 / len(p))
    first = np.argmax(p, axis=axis, keepdims=True)
    votes = np.zeros_like(p)
    np.put_along_axis(votes, first, 1.0, axis=axis)
    return {
        "probabilities": p.mean(0),
        "log-probabilities": np.log(p.mean(0)),
        "logits": product / product.sum(axis - 1 if axis > 0 else axis, keepdims=True),
        "vote": votes.mean(0),
    }[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("axis", [1, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_gives_what_the_ensemble_predicts(
    tmp_path: Path, pooling: Pooling, axis: int | None, dtype: torch.dtype
) -> None:
    models, x = [Pixels(seed, dtype).eval() for seed in range(3)], images(dtype)
    module, predicted = shipped(
        tmp_path, models, x, outputs="logits", class_axis=axis, pooling=pooling
    )
    found = module(x)
    if dtype == torch.float64:
        assert torch.equal(found, predicted)
    assert_alike(found, predicted)
    with torch.no_grad():
        z = torch.stack([each.double()(x.double()) for each in models]).numpy()
    wanted = pooled(z, pooling, None if axis is None else axis + 1)
    assert np.abs(z[0] - z[1]).max() > 1
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_all_members_in_one_pass_give_the_same_to_a_few_ulp(
    tmp_path: Path, pooling: Pooling
) -> None:
    models, x = [Pixels(seed, torch.float64) for seed in range(3)], images(torch.float64)
    module, predicted = shipped(
        tmp_path, models, x, vmap=True, outputs="logits", class_axis=1, pooling=pooling
    )
    torch.testing.assert_close(module(x), predicted, rtol=1e-14, atol=1e-15)
    ones = [name for name in module.state_dict() if "convolution.weight" in name]
    assert [tuple(module.state_dict()[name].shape) for name in ones] == [(3, 4, 1, 3, 3)]


@pytest.mark.parametrize("vmap", [False, True])
@pytest.mark.parametrize("kind", ["values", "pairs", "several", "forward", "arguments", "names"])
def test_it_takes_and_returns_what_the_ensemble_does(tmp_path: Path, kind: str, vmap: bool) -> None:
    x, scale = images(), torch.rand(7)
    structure = {"class": "logits", "more": (None, ["values"])}
    cases: dict[str, Any] = {
        "values": (Convolution, x, {"outputs": "values"}),
        "pairs": (Pairs, x, {"outputs": "gaussian"}),
        "several": (Several, x, {"outputs": structure, "class_axis": {"class": -1}}),
        "forward": (
            Several,
            [{"x": x, "text": ["a"]}],
            {"forward": lambda model, batch: model(batch["x"]), "outputs": "logits"},
        ),
        "arguments": (Convolution, (x, scale), {"outputs": "logits"}),
        "names": (Convolution, {"scale": scale, "x": x}, {"outputs": "logits"}),
    }
    build, given, options = cases[kind]
    if kind == "forward":
        options |= {"output": "class"}
    module, predicted = shipped(
        tmp_path, [build(seed) for seed in range(3)], given, vmap=vmap, **options
    )
    if isinstance(given, dict):
        found = module(**given)
    else:
        found = module(*(given if isinstance(given, tuple | list) else (given,)))
    assert_alike(found, predicted)
    assert leaves(found)[0].std() > 1e-3
    if kind == "several":
        assert found["more"][0] is None
        assert "unused" not in found


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
@pytest.mark.parametrize("vmap", [False, True])
def test_it_has_the_members_weights_and_temperature_that_were_chosen(
    tmp_path: Path, vmap: bool
) -> None:
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    model = recorded(tmp_path, [network(seed) for seed in range(4)])
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
    with torch.no_grad():  # which two of them know best, but for one in five
        y = (network(1)(x).softmax(-1) + network(3)(x).softmax(-1)).argmax(-1)
    y[::5] = 0
    choice = ensemble.fit(x, y, select="weights")
    counted = sum(weight > 0 for weight in choice.weights)
    assert 0 < counted < 4
    assert abs(choice.temperature - 1) > 0.05
    ensemble.predict(x, mode="stacked")
    module = ensemble.as_module(vmap=vmap)
    assert_alike(module(x), ensemble.predict(x))
    if not vmap:
        assert len(module.members) == counted
    # The numbers that are no member's tensors are in the state too.
    numbers = module.state_dict()["_extra_state"].tolist()
    assert numbers == [*filter(None, choice.weights), choice.temperature, 1.0]


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
def test_the_variance_of_pairs_is_at_its_scale(tmp_path: Path) -> None:
    x = images()
    model = recorded(tmp_path, [Pairs(seed) for seed in range(3)])
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="gaussian")
    choice = ensemble.fit(x, torch.randn(7, 3), select="last")
    assert abs(choice.variance_scale - 1) > 0.05
    assert_alike(ensemble.as_module()(x), ensemble.predict(x))


def test_its_state_is_whole_and_loads(tmp_path: Path) -> None:
    models, x = [Convolution(seed) for seed in range(3)], images()
    model = recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
    before = ensemble.predict(x)
    module, other = ensemble.as_module(), ensemble.as_module()
    assert not module.training
    assert not any(each.training for each in module.modules())
    assert not any(each.requires_grad for each in module.parameters())
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.data = torch.full_like(tensor, 0.5 if tensor.is_floating_point() else 1)
    assert (other(x) - before).abs().max() > 1e-2
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), module(x))
    assert_alike(SnapshotEnsemble(model, tmp_path).predict(x), before)  # nobody else's weights
    fewer = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1, last=2)
    fewer.predict(x)
    with pytest.raises(EnsembleError, match=r"same weights and temperature.*Received: .*1\.0"):
        module.load_state_dict(fewer.as_module().state_dict(), strict=False)


def test_it_is_cast_moved_and_copied_as_modules_are(tmp_path: Path) -> None:
    x = images()
    module, predicted = shipped(
        tmp_path, [Convolution(seed) for seed in range(3)], x, outputs="logits"
    )
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    assert {each.device.type for each in module.to("cpu").parameters()} == {"cpu"}
    half = copy.deepcopy(module).half()
    found = half(x.half())
    assert found.dtype == torch.float16
    assert 1e-6 < (found.float() - predicted).abs().max() < 5e-3


@pytest.mark.parametrize("vmap", [False, True])
def test_a_dtype_is_that_of_the_members_alone(tmp_path: Path, vmap: bool) -> None:
    models, x = [Convolution(seed).eval() for seed in range(3)], images()
    model = recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
    ensemble.predict(x, mode="stacked")
    module = ensemble.as_module(vmap=vmap, dtype=torch.bfloat16)
    floats = [each for each in module.parameters() if each.is_floating_point()]
    assert {each.dtype for each in floats} == {torch.bfloat16}
    found = module(x)
    assert found.dtype == torch.float32
    with torch.no_grad():  # the members' own rounding, and none after it
        z = [copy.deepcopy(each).bfloat16()(x.bfloat16()).double() for each in models]
    wanted = torch.stack(z).softmax(-1).mean(0)
    away = (found - wanted).abs().max()
    assert away < (1e-6 if not vmap else 5e-3)  # whose kernels sum in another order
    assert (found - found.bfloat16().float()).abs().max() > 1e-4
    assert (found.sum(-1) - 1).abs().max() < 1e-6
    program = torch.export.export(module, (x,), strict=False)
    assert_alike(program.module()(x), found)


@pytest.mark.parametrize("vmap", [False, True])
def test_it_is_exported_for_batches_of_any_size(tmp_path: Path, vmap: bool) -> None:
    x = points()
    module, predicted = shipped(
        tmp_path, [network(seed) for seed in range(3)], x, vmap=vmap, outputs="logits"
    )
    program = torch.export.export(module, (x[:4],), dynamic_shapes=({0: BATCH},), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for size in (2, 4, 9):
        assert_alike(loaded(x[:size]), predicted[:size])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("axis", [-1, None])
def test_every_pooling_goes_through_every_graph(
    tmp_path: Path, pooling: Pooling, axis: int | None
) -> None:
    x = points()
    module, predicted = shipped(
        tmp_path,
        [network(seed) for seed in range(2)],
        x,
        outputs="logits",
        class_axis=axis,
        pooling=pooling,
    )
    program = torch.export.export(module, (x[:4],), dynamic_shapes=({0: BATCH},), strict=False)
    assert_alike(program.module()(x), predicted)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_alike(compiled(x), predicted)
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.trace"):
        traced = torch.jit.trace(module, (x[:4],))
    assert_alike(traced(x), predicted)
    torch._dynamo.reset()


@pytest.mark.parametrize("vmap", [False, True])
def test_structures_go_through_every_graph(tmp_path: Path, vmap: bool) -> None:
    x = images()
    structure = {"class": "logits", "more": ("probabilities", ["values"])}
    axes = {"class": -1, "more": (-1,)}
    module, predicted = shipped(
        tmp_path,
        [Several(seed) for seed in range(3)],
        x,
        vmap=vmap,
        outputs=structure,
        class_axis=axes,
    )
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_alike(compiled(x), predicted)
    dynamic = None if vmap else ({0: BATCH},)  # torch maps BatchNorm for one size alone
    program = torch.export.export(module, (x,), dynamic_shapes=dynamic, strict=False)
    assert_alike(program.module()(x), predicted)
    if not vmap:
        assert_alike(
            program.module()(x[:3]),
            {
                "class": predicted["class"][:3],
                "more": (predicted["more"][0][:3], [predicted["more"][1][0][:3]]),
            },
        )
    torch._dynamo.reset()


def test_inputs_have_the_names_that_the_model_gives_them(tmp_path: Path) -> None:
    x, scale = images(), torch.rand(7)
    module, predicted = shipped(
        tmp_path,
        [Convolution(seed) for seed in range(2)],
        {"x": x, "scale": scale},
        outputs="logits",
    )
    program = torch.export.export(
        module,
        (x[:4],),
        {"scale": scale[:4]},
        dynamic_shapes={"x": {0: BATCH}, "scale": {0: BATCH}},
        strict=False,
    )
    assert_alike(program.module()(x, scale=scale), predicted)
    assert type(module).__name__ == "EnsembleModule"


def test_a_batch_that_forward_takes_is_exported(tmp_path: Path) -> None:
    batch = {"x": images(), "scale": torch.rand(7)}
    module, predicted = shipped(
        tmp_path,
        [Convolution(seed) for seed in range(2)],
        [batch],
        outputs="logits",
        forward=lambda model, batch: model(batch["x"], batch["scale"]),
    )
    program = torch.export.export(
        module,
        ({name: each[:4] for name, each in batch.items()},),
        dynamic_shapes={"batch": {"x": {0: BATCH}, "scale": {0: BATCH}}},
        strict=False,
    )
    assert_alike(program.module()(batch), predicted)


def test_weights_that_snapshots_leave_out_are_held_once_and_are_not_the_models(
    tmp_path: Path,
) -> None:
    model, x = network(0), points()
    with SnapshotRecorder(
        tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1), which=lambda name: name[0] == "2"
    ) as recorder:
        for seed in range(3):
            model[2].load_state_dict(network(seed)[2].state_dict())  # type: ignore[index]
            recorder.step()
    for vmap in (False, True):
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
        predicted = ensemble.predict(x, mode="stacked")
        module = ensemble.as_module(vmap=vmap)
        state = module.state_dict()
        first = {value.data_ptr() for name, value in state.items() if name.endswith("0.weight")}
        assert len(first) == 1
        before = model[0].weight.detach().clone()  # type: ignore[index]
        with torch.no_grad():
            model[0].weight.fill_(0.0)  # type: ignore[index]
        assert_alike(module(x), predicted)
        with torch.no_grad():
            model[0].weight.copy_(before)  # type: ignore[index]


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.tokens, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.head(self.tokens(ids).mean(1))
            return found

    ids = torch.randint(5, (6, 4))
    for vmap in (False, True):
        module, predicted = shipped(
            tmp_path / str(vmap),
            [Tied(seed) for seed in range(3)],
            ids,
            vmap=vmap,
            outputs="logits",
        )
        assert_alike(module(ids), predicted)
        assert len([*module.parameters()]) == 2 * (1 if vmap else 3)


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")  # of any LSTM
def test_a_recurrent_model_has_each_members_weights(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.memory, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(self.memory(x)[0][:, -1])
            return found

    x = torch.randn(6, 5, 2)
    module, predicted = shipped(
        tmp_path, [Recurrent(seed) for seed in range(3)], x, outputs="logits"
    )
    assert_alike(module(x), predicted)
    program = torch.export.export(module, (x[:4],), dynamic_shapes=({0: BATCH},), strict=False)
    assert_alike(program.module()(x), predicted)


def test_a_function_that_builds_the_model_is_enough(tmp_path: Path) -> None:
    x = points()
    recorded(tmp_path, [network(seed) for seed in range(3)])
    ensemble = SnapshotEnsemble(lambda: network(7), tmp_path, outputs="logits", class_axis=-1)
    predicted = ensemble.predict(x)
    assert_alike(ensemble.as_module()(x), predicted)


def test_nothing_is_shipped_before_it_is_known_what_it_gives(tmp_path: Path) -> None:
    x = points()
    model = recorded(tmp_path, [network(seed) for seed in range(2)])
    for options, what in (
        ({}, "outputs are"),
        ({"outputs": "logits", "class_axis": -1}, "has weights"),
    ):
        ensemble = SnapshotEnsemble(model, tmp_path, **options)  # type: ignore[arg-type]
        with pytest.raises(EnsembleError, match=f"{what}.*Received: one that has run none; call"):
            ensemble.as_module()
        ensemble.predict(x)
        ensemble.as_module()
        with pytest.raises(EnsembleError, match=r"mode='stacked'.*Received: one that has not"):
            ensemble.as_module(vmap=True)


def test_what_a_vectorized_map_cannot_run_is_refused(tmp_path: Path) -> None:
    class Merging(nn.Sequential):
        def train(self, mode: bool = True) -> Merging:
            super().train(mode)
            return self

    def build(seed: int) -> nn.Module:
        return Merging(*network(seed).children())

    x = points()
    ensemble = SnapshotEnsemble(
        recorded(tmp_path, [build(seed) for seed in range(2)]), tmp_path, outputs="logits"
    )
    predicted = ensemble.predict(x, mode="stacked")
    assert_alike(ensemble.as_module()(x), predicted)
    with pytest.raises(EnsembleError, match=r"for vmap=True\. Received: .*give vmap=False"):
        ensemble.as_module(vmap=True)


def test_torch_jit_trace_is_refused_for_a_vectorized_map(tmp_path: Path) -> None:
    x = points()
    module, _ = shipped(
        tmp_path, [network(seed) for seed in range(2)], x, vmap=True, outputs="logits"
    )
    with (
        pytest.warns(DeprecationWarning, match=r"torch\.jit\.trace"),
        pytest.raises(EnsembleError, match=r"Received: torch\.jit\.trace.*vmap=False"),
    ):
        torch.jit.trace(module, (x,))


@pytest.mark.parametrize("dtype", [torch.int64, "bfloat16"])
def test_a_dtype_that_is_none_is_refused(tmp_path: Path, dtype: Any) -> None:
    x = points()
    ensemble = SnapshotEnsemble(recorded(tmp_path, [network(0)]), tmp_path, outputs="logits")
    ensemble.predict(x)
    with pytest.raises(EnsembleError, match=r"`dtype` must be a floating dtype.*Received: dtype="):
        ensemble.as_module(dtype=dtype)
