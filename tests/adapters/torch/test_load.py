"""A snapshot into a module, and weights into files that torch, transformers and PEFT open."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, export_weights, load_snapshot
from cosanneal.snapshots import SnapshotStore
from tests.adapters.torch.test_capture import adapted, train
from tests.shared.torch_runs import clone, data, record_once, small_net, trained


def check_equal(model: nn.Module, state: dict[str, Any]) -> None:
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def test_a_snapshot_is_loaded_in_place(tmp_path: Path) -> None:
    model = small_net(3)
    (snapshot,) = record_once(tmp_path, model).list()
    for given in (snapshot, snapshot.path, str(snapshot.path)):
        other = small_net(4)
        held = {name: value.data_ptr() for name, value in other.state_dict().items()}
        load_snapshot(other, given)
        check_equal(other, clone(model))
        assert held == {name: value.data_ptr() for name, value in other.state_dict().items()}
    wrapped: Any
    for wrapped in (compiled(small_net(4)), nn.DataParallel(small_net(4))):
        load_snapshot(wrapped, snapshot)
        check_equal(getattr(wrapped, "_orig_mod", None) or wrapped.module, clone(model))
    inside = nn.Sequential(compiled(small_net(4)))
    (outer,) = record_once(tmp_path / "inside", nn.Sequential(model)).list()
    load_snapshot(inside, outer)
    check_equal(getattr(inside[0], "_orig_mod"), clone(model))  # noqa: B009 - for mypy's sake


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 8)), r"its tensor '1.num_batches_tracked' is not in the model"),
        (small_net().append(nn.Linear(3, 3)), r"the model's tensor '5.weight' is not in it"),
        (small_net().half(), r"'0.weight' is float32 of .*, the model's float16 of shape \(8, 4\)"),
    ],
)
def test_what_does_not_fit_leaves_the_model_as_it_is(
    tmp_path: Path, model: nn.Module, message: str
) -> None:
    (snapshot,) = record_once(tmp_path, small_net(3)).list()
    before = clone(model)
    with pytest.raises(ca.SnapshotError, match=rf"Snapshot .* must fit the model: .*{message}"):
        load_snapshot(model, snapshot)
    check_equal(model, before)


def test_a_damaged_one_and_no_snapshot_are_refused(tmp_path: Path) -> None:
    (snapshot,) = record_once(tmp_path, small_net(3)).list()
    content = bytearray(snapshot.path.read_bytes())
    content[-3] ^= 1
    snapshot.path.write_bytes(content)
    model = small_net()
    before = clone(model)
    with pytest.raises(ca.SnapshotError, match="is damaged: its tensor"):
        load_snapshot(model, snapshot.path)
    check_equal(model, before)
    with pytest.raises(ca.SnapshotError, match=r"`snapshot` must be .*folder's are in SnapshotSto"):
        load_snapshot(model, tmp_path)
    with pytest.raises(ca.SnapshotError, match=r"a path"):
        load_snapshot(model, 3)  # type: ignore[arg-type]
    with pytest.raises(ca.SnapshotError, match=r"`model` must be a torch.nn.Module"):
        load_snapshot(lambda x: x, snapshot)  # type: ignore[arg-type]


def test_a_part_is_loaded_where_the_rest_is_the_same(tmp_path: Path) -> None:
    model = adapted()
    store = train(tmp_path, model, which="trainable")
    fresh = adapted()
    load_snapshot(fresh, store.list()[-1])
    check_equal(fresh, clone(model))
    with pytest.raises(ca.SnapshotError, match=r"is a part.*another tensor '0.base_layer.bias'"):
        load_snapshot(adapted(1), store.list()[-1])


def test_what_a_layer_makes_of_its_weights_is_made_anew(tmp_path: Path) -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    (snapshot,) = record_once(tmp_path, model).list()
    other = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    load_snapshot(other, snapshot)
    x = torch.randn(5, 4)
    assert torch.equal(other(x), model(x))


def test_torch_opens_an_export(tmp_path: Path) -> None:
    model = small_net(3)
    (snapshot,) = record_once(tmp_path, model).list()
    every: list[Any] = [snapshot, str(snapshot.path), model.state_dict()]
    for i, weights in enumerate(every):
        export_weights(weights, tmp_path / f"{i}.pt", format="torch")
        other = small_net(4)
        other.load_state_dict(torch.load(tmp_path / f"{i}.pt", weights_only=True))
        check_equal(other, clone(model))
        export_weights(weights, tmp_path / f"{i}.safetensors")
        other = small_net(4)
        other.load_state_dict(safetensors.torch.load_file(tmp_path / f"{i}.safetensors"))
        check_equal(other, clone(model))


def test_the_mean_of_an_ensemble_is_exported(tmp_path: Path) -> None:
    model = trained(tmp_path / "runs")
    x, y = data()
    ensemble = SnapshotEnsemble(model, tmp_path / "runs")
    found = ensemble.average_weights(x, y, train_data=x, barrier=100)
    export_weights(found, tmp_path / "mean.pt", format="torch")
    model.load_state_dict(torch.load(tmp_path / "mean.pt", weights_only=True))
    check_equal(model, found.weights)


def test_no_file_is_replaced_or_left_half_written(tmp_path: Path) -> None:
    (snapshot,) = record_once(tmp_path / "runs", small_net(3)).list()
    out = tmp_path / "model.safetensors"
    out.write_text("mine")
    with pytest.raises(ca.SnapshotError, match=r"must not be there yet.*overwrite=True"):
        export_weights(snapshot, out)
    assert out.read_text() == "mine"
    export_weights(snapshot, out, overwrite=True)
    assert len(safetensors.torch.load_file(out)) == 9
    with pytest.raises(ca.SnapshotError, match=r"must not bear the name of a snapshot"):
        export_weights(snapshot, tmp_path / snapshot.path.name)
    content = bytearray(snapshot.path.read_bytes())
    content[-3] ^= 1
    snapshot.path.write_bytes(content)
    formats: list[Any] = ["safetensors", "torch"]
    for each in formats:
        with pytest.raises(ca.SnapshotError, match="is damaged"):
            export_weights(snapshot, tmp_path / "other", format=each)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "runs"]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    (snapshot,) = record_once(tmp_path / "runs", small_net(3)).list()
    with pytest.raises(
        ca.SnapshotError, match=r"'safetensors', 'torch' or 'peft'.*'keras'; a .weights.h5 of"
    ):
        export_weights(snapshot, tmp_path / "x", format="keras")  # type: ignore[arg-type]
    with pytest.raises(ca.SnapshotError, match=r"tensors by name. Received: 'w', a float"):
        export_weights({"w": 0.5}, tmp_path / "x")  # type: ignore[dict-item]


def test_transformers_opens_an_export(tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()  # whose head is tied to its embedding
    (snapshot,) = record_once(tmp_path / "runs", model).list()
    config.save_pretrained(tmp_path / "model")
    export_weights(snapshot, tmp_path / "model" / "model.safetensors")
    opened = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model")
    check_equal(opened, clone(model))
    x = torch.arange(8)[None]
    assert torch.equal(opened(x).logits, model(x).logits)


def peft_model() -> Any:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, 3))
    return peft.get_peft_model(
        base, peft.LoraConfig(target_modules=["0", "2"], r=2, modules_to_save=["3"])
    )


def test_peft_opens_the_export_of_a_part(tmp_path: Path) -> None:
    model = peft_model()
    import peft

    store: SnapshotStore = train(tmp_path / "runs", model, which="trainable")
    snapshot = store.list()[-1]
    assert "base_model.model.0.lora_A.default.weight" in snapshot.load()
    out = tmp_path / "adapter"
    model.peft_config["default"].save_pretrained(out)
    export_weights(snapshot, out / "adapter_model.safetensors", format="peft", model=model)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (
        safetensors.torch.load_file(folder / "adapter_model.safetensors")
        for folder in (out, tmp_path / "theirs")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    opened = peft.PeftModel.from_pretrained(copy.deepcopy(peft_model().unload()), out)
    x, _ = data()
    assert torch.equal(opened.eval()(x), model.eval()(x))
    expected = model(x).softmax(-1)
    torch.testing.assert_close(SnapshotEnsemble(peft_model(), store, last=1).predict(x), expected)


def test_what_is_no_adapter_of_pefts_is_refused(tmp_path: Path) -> None:
    model = peft_model()
    (snapshot,) = record_once(tmp_path / "runs", small_net()).list()
    for given in (None, small_net()):
        with pytest.raises(ca.SnapshotError, match=r"`model` must be the model of PEFT's"):
            export_weights(snapshot, tmp_path / "x", format="peft", model=given)
    with pytest.raises(ca.SnapshotError, match=r"every tensor of the adapter 'default'.*none for"):
        export_weights(snapshot, tmp_path / "x", format="peft", model=model)
    assert not (tmp_path / "x").exists()


def test_without_peft_its_format_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ca.MissingExtraError, match="python -m pip install peft"):
        export_weights(small_net().state_dict(), tmp_path / "x", format="peft")
