"""A model of transformers, with batches as its tokenizers and collators make them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble
from tests.shared.torch_members import recorded

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")

LENGTHS = (3, 7, 5, 8, 2, 6, 4, 8, 3, 5)
LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 1, 0, 2, 1])


def classifiers(members: int = 3) -> list[Any]:
    """Tiny ones of random weights, near each other."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        initializer_range=0.5,
    )
    found = [transformers.BertForSequenceClassification(config).eval()]
    for _ in range(members - 1):
        found.append(copy.deepcopy(found[0]))
        with torch.no_grad():
            for parameter in found[-1].parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return found


def texts() -> list[dict[str, Any]]:
    """The ids of some texts, of several lengths."""
    generator = torch.Generator().manual_seed(3)
    return [
        {"ids": torch.randint(1, 50, (length,), generator=generator), "label": int(label)}
        for length, label in zip(LENGTHS, LABELS, strict=True)
    ]


def collated(samples: list[dict[str, Any]]) -> Any:
    """As a data collator does: padded to the longest of the batch."""
    ids = nn.utils.rnn.pad_sequence([each["ids"] for each in samples], batch_first=True)
    return transformers.BatchEncoding(
        {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "labels": torch.tensor([each["label"] for each in samples]),
        }
    )


def loader() -> Any:
    return DataLoader(texts(), batch_size=4, collate_fn=collated)  # type: ignore[arg-type]


@torch.no_grad()
def by_hand(models: list[Any]) -> Tensor:
    """A plain loop over texts, one at a time: without padding."""
    rows = []
    for each in texts():
        logits = [model(input_ids=each["ids"][None]).logits.double() for model in models]
        rows.append(torch.stack(logits).softmax(-1).mean(0))
    return torch.cat(rows).float()


def logits_of(model: Any, batch: Any) -> Any:
    return model(**batch).logits


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_padded_dict_batches_are_predicted(tmp_path: Path, mode: Any) -> None:
    models = classifiers()
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path, forward=logits_of)
    found = ensemble.predict(loader(), mode=mode)
    torch.testing.assert_close(found, by_hand(models), rtol=1e-4, atol=1e-5)
    whole = collated(texts())
    del whole["labels"]
    for x in (whole, dict(whole), {name: each.numpy() for name, each in whole.items()}):
        torch.testing.assert_close(ensemble.predict(x, mode=mode), found, rtol=1e-4, atol=1e-5)
        cut = ensemble.predict(x, mode=mode, batch_size=3)
        torch.testing.assert_close(cut, found, rtol=1e-4, atol=1e-5)


def test_it_is_fitted_and_averaged_with_the_labels_in_the_batches(tmp_path: Path) -> None:
    models = classifiers()
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path, forward=logits_of)
    given = ensemble.fit(loader(), torch.cat([batch["labels"] for batch in loader()]))
    found = ensemble.fit(loader())
    assert found.weights == pytest.approx(given.weights)
    assert found.temperature == pytest.approx(given.temperature)
    mean = ensemble.average_weights(loader(), barrier=math.inf)
    model = classifiers(1)[0]
    model.load_state_dict(mean.weights)  # under the model's own names
    loss = -by_hand([model]).double().log()[torch.arange(10), LABELS].mean()
    assert mean.scores is not None
    assert mean.scores["log_loss"] == pytest.approx(float(loss), rel=1e-4)


class Collected:
    """The same batches as plain dicts."""

    def __iter__(self) -> Iterator[Any]:
        return (dict(batch) for batch in loader())


def test_without_forward_the_dict_goes_in_by_keyword(tmp_path: Path) -> None:
    """Where what comes out is one tensor, as of a model that ends with it."""
    models = classifiers()
    model = recorded(tmp_path, models)
    model.register_forward_hook(lambda _module, _args, output: output.logits)
    ensemble = SnapshotEnsemble(model, tmp_path)
    for x in (loader(), Collected()):
        torch.testing.assert_close(ensemble.predict(x), by_hand(models), rtol=1e-4, atol=1e-5)
    assert len(ensemble.fit(loader()).weights) == 3


def test_what_a_vectorized_map_cannot_run_is_said_or_run(tmp_path: Path) -> None:
    models = classifiers()
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path, forward=logits_of)
    expected = by_hand(models)
    torch.testing.assert_close(
        ensemble.predict(loader(), mode="auto"), expected, rtol=1e-4, atol=1e-5
    )
    try:
        found = ensemble.predict(loader(), mode="stacked")
    except ca.EnsembleError as error:
        assert "give mode='resident'" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
