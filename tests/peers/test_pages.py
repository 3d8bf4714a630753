"""docs/coming-from.md: the code of each library, and ours beside it, run and give the same."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

from tests.peers.peers import bare
from tests.shared.pages import blocks, run_page

PAGE = "coming-from.md"


class Network(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def prepared() -> dict[str, Any]:
    """What the page says the reader already has."""
    torch.manual_seed(0)
    model = Network()
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    data = torch.utils.data.TensorDataset(x, y)
    return {
        "torch": torch,
        "Network": Network,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": torch.utils.data.DataLoader(data, batch_size=10),
        "loss_function": nn.CrossEntropyLoss(),
        "epochs": 6,
        "keras_model": keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
        **{"x_val": x, "y_val": y, "x_test": x[:7], "x_train": x.numpy(), "y_train": y.numpy()},
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.chdir(tmp_path)

    def run(section: str) -> Any:
        with warnings.catch_warnings():
            # Of schedulers that are only looked at, and of what the peers warn of themselves.
            warnings.simplefilter("ignore")
            return run_page(PAGE, prepared(), under=section)

    return run


def values(scheduler: Any, count: int) -> list[float]:
    """The first group's rate at each step."""
    found = []
    for step in range(count):
        if hasattr(scheduler, "t_initial"):  # timm's, which is told the step
            scheduler.step(step)
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        if not hasattr(scheduler, "t_initial"):
            scheduler.optimizer.step()
            scheduler.step()
    return found


@pytest.mark.parametrize(
    ("section", "count"),
    [("PyTorch: CosineAnnealingWarmRestarts", 65), ("timm", 200), ("transformers", 200)],
)
def test_schedulers_have_the_same_rates(
    section: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # timm's own `__init__` needs torchvision.
    schedulers = bare("timm.scheduler.cosine_lr")
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.scheduler", schedulers)
    before, after = (block.code for block in blocks(PAGE, section))
    assert "cosanneal" not in before
    assert "cosanneal" in after
    rates = []
    for code in (before, after):  # each on an optimizer of its own
        names = prepared()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(code, names)  # noqa: S102 - our own page
            rates.append(values(names["theirs" if code is before else "ours"], count))
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-9, atol=1e-12)
    assert len(set(rates[0])) > 20


@pytest.mark.parametrize(
    ("section", "count"), [("Keras: CosineDecayRestarts", 690), ("Optax: sgdr_schedule", 320)]
)
def test_schedules_have_the_same_rates(run: Callable[[str], Any], section: str, count: int) -> None:
    names = run(section)
    before, after = (
        np.array([float(names[name](step)) for step in range(count)]) for name in ("theirs", "ours")
    )
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-8)
    assert len(np.unique(before)) > 90


def test_the_average_is_one_model(run: Callable[[str], Any]) -> None:
    names = run("PyTorch: swa_utils")
    assert len(names["average"].members) == 6
    state = names["model"].state_dict()
    assert state.keys() == names["average"].weights.keys()
    assert state.keys() == names["averaged"].module.state_dict().keys()


def test_ensembles_predict_alike(run: Callable[[str], Any]) -> None:
    names = run("torchensemble: SnapshotEnsembleClassifier")
    assert names["after"].shape == names["before"].shape == (7, 3)
    torch.testing.assert_close(names["after"].sum(1), torch.ones(7))
    assert len(list(Path("runs/torchensemble").glob("*.safetensors"))) == len(names["theirs"]) == 2


def test_what_is_collected_says_how_sure_it_is(run: Callable[[str], Any]) -> None:
    names = run("torch-uncertainty: CheckpointCollector")
    assert names["entropy"].shape == names["mutual_information"].shape == (7,)


def test_keras_contribs_run_has_as_many_snapshots_as_wanted(run: Callable[[str], Any]) -> None:
    names = run("keras-contrib and titu1994: SnapshotCallbackBuilder")
    assert len(list(Path("runs/contrib").glob("*.safetensors"))) == 3
    assert names["probabilities"].shape == (40, 3)


def test_every_section_with_code_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    sections = {block.titles[0] for block in blocks(PAGE)}
    assert len(sections) == 9
    assert all(f'"{section}"' in text for section in sections)
