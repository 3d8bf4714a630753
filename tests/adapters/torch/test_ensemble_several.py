"""What torch models return: tuples, dicts, named tuples, ModelOutputs; and batches of lengths."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from tests.shared.modes import MODES
from tests.shared.several import (
    MEMBERS,
    Build,
    check_fitted_by_one,
    check_pairs,
    check_ragged,
    check_ragged_judged,
    check_several,
    kernels,
)
from tests.shared.torch_members import recorded


class Several(nn.Linear):
    """A dict of logits, values and something else."""

    def forward(self, x: Tensor) -> Any:
        z = super().forward(x)
        box = z[..., 3:]
        return {"class": z[..., :3], "box": box, "aux": z[:, :1], "pair": (box, box * box + 1)}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    models = [Several(4, 5) for _ in range(MEMBERS)]
    with torch.no_grad():
        for seed, model in enumerate(models):
            kernel, bias = map(torch.from_numpy, kernels(seed))
            model.weight.copy_(kernel.T)
            model.bias.copy_(bias)
    recorded(tmp_path, models)

    def make(**options: Any) -> Any:
        ensemble = SnapshotEnsemble(models[0], tmp_path, **options)
        return _OfNumpy(ensemble)

    return make


class _OfNumpy:
    """An ensemble that is given numpy's arrays and loaders of them."""

    def __init__(self, ensemble: SnapshotEnsemble) -> None:
        self._ensemble = ensemble

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ensemble, name)

        def call(*given: Any, **options: Any) -> Any:
            if given and isinstance(given[0], np.ndarray):
                given = torch.from_numpy(given[0]), *given[1:]
            return method(*given, **options)

        return call


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
    hidden: Tensor
    logits: Tensor


@dataclasses.dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


RETURNED: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda z: (z, z[:, :1]),
    "list": lambda z: [z, z[:, :1]],
    "dict": lambda z: {"aux": z[:, :1], "logits": z},
    "named tuple": lambda z: Named(z[:, :1], z),
    "dataclass": lambda z: Answer(None, z),
    "one alone": lambda z: {"scores": z},
}


class Returning(nn.Linear):
    def __init__(self, returned: Callable[[Tensor], Any]) -> None:
        super().__init__(4, 3)
        self.returned = returned

    def forward(self, x: Tensor) -> Any:
        return self.returned(super().forward(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RETURNED)
def test_the_logits_of_what_is_returned_are_taken(tmp_path: Path, name: str, mode: Any) -> None:
    torch.manual_seed(0)
    models = [Returning(RETURNED[name]) for _ in range(2)]
    recorded(tmp_path, models)
    x = torch.randn(40, 4)
    with torch.no_grad():
        every = [nn.functional.linear(x, model.weight, model.bias) for model in models]
    expected = torch.stack([z.double().softmax(-1) for z in every]).mean(0)
    found = SnapshotEnsemble(models[0], tmp_path).predict(x, mode=mode)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["stream", "stacked"])
@pytest.mark.parametrize("returned", [None, "x", {}], ids=repr)
def test_what_holds_no_tensor_is_refused(tmp_path: Path, returned: Any, mode: Any) -> None:
    model = Returning(lambda _: returned)
    recorded(tmp_path, [model])
    with pytest.raises(ca.EnsembleError, match=r"must return one array.*Received: "):
        SnapshotEnsemble(model, tmp_path).predict(torch.ones(2, 4), mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_of_transformers(tmp_path: Path, mode: Any) -> None:
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=3,
        output_hidden_states=True,
        attn_implementation="eager",
    )
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(transformers.BertForTokenClassification(config).eval())
    with SnapshotRecorder(tmp_path, models[0], ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        own = copy.deepcopy(models[0].state_dict())
        for model in models:
            models[0].load_state_dict(own if model is models[0] else model.state_dict())
            recorder.step()
    models[0].load_state_dict(own)
    loader = [torch.randint(40, (4, 7)), torch.randint(40, (3, 9))]
    ensemble = SnapshotEnsemble(models[0], tmp_path, class_axis=-1)
    found: Any = ensemble.predict(_Again(loader), mode=mode, ragged="list")
    for ids, p in zip(loader, found, strict=True):
        with torch.no_grad():
            every = [model(ids).logits.double().softmax(-1) for model in models]
        torch.testing.assert_close(p.double(), torch.stack(every).mean(0), rtol=1e-4, atol=1e-6)
    hidden: Any = SnapshotEnsemble(
        models[0],
        tmp_path,
        outputs={"logits": "logits", "hidden_states": [None, "values"]},
        class_axis=-1,
    ).predict(loader[0], mode=mode)
    with torch.no_grad():
        last = torch.stack([model(loader[0]).hidden_states[1].double() for model in models])
    assert hidden["hidden_states"][0] is None
    torch.testing.assert_close(
        hidden["hidden_states"][1].double(), last.mean(0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(hidden["logits"], found[0])


class _Again:
    """Batches, as often as there are members."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        return iter(self._batches)
