"""The pages' code runs as it is printed, where PyTorch is all that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from tests.shared.pages import blocks, pages_of, run_page

# These go on from the first page, and one after the other would not be read so.
GO_ON = ("ensembles.md", "snapshots.md")


def regression(x: torch.Tensor, train: int) -> dict[str, Any]:
    """What the page of ensembles takes as given: a regression that was trained, and its targets."""
    torch.manual_seed(1)
    target = x[:, :1] * x[:, 1:] + 0.3 * torch.randn(len(x), 1)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = ca.CyclicCosine(max_lr=0.02, total_steps=240, num_cycles=3)
    scheduler = CyclicCosineLR(optimizer, schedule)
    with SnapshotRecorder("runs/regression", model, scheduler):
        for _ in range(240):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[:train]), target[:train]).backward()
            optimizer.step()
            scheduler.step()
    return {"regressor": model, "target": target}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_page_of_torch_gives_an_ensemble_that_is_better_than_chance() -> None:
    names = run_page("start/torch.md")
    assert len(names["ensemble"]) == 4
    right = names["probabilities"].argmax(1) == names["y"][names["test"]]
    assert right.float().mean() > 0.75


def test_the_page_of_snapshots_goes_on_from_it(tmp_path: Path) -> None:
    run_page("snapshots.md", run_page("start/torch.md"))
    assert (tmp_path / "model.safetensors").is_file()


def test_the_page_of_ensembles_goes_on_from_it(tmp_path: Path) -> None:
    names = run_page("start/torch.md")
    names = run_page("ensembles.md", names | regression(names["x"], 500), but="ONNX")
    loaded = torch.export.load("ensemble.pt2").module()(names["x"][:10])
    torch.testing.assert_close(loaded, names["module"](names["x"][:10]))
    assert (tmp_path / "runs/torch/ensemble.json").is_file()
    # Of 500 targets, 90 % within four standard errors of both halves; twice or half as wide, not.
    truth = names["target"][2000:]
    held = (names["low"] < truth) & (truth < names["high"])
    assert 0.82 < held.float().mean() < 0.98
    assert 0.25 < (names["high"] - names["low"]).mean() / (2 * 1.645) < 0.5  # the noise is 0.3


@pytest.mark.parametrize("page", ["schedules.md", "conventions.md"])
def test_pages_by_themselves(page: str) -> None:
    assert run_page(page, {"ca": ca})["schedule"].num_cycles in (5, 6)


def test_the_page_of_restarts_records_every_cycle(tmp_path: Path) -> None:
    names = run_page("restarts.md")
    assert names["restarts"] == {20: 1, 40: 2, 60: 3, 80: 4}
    assert len([*(tmp_path / "runs/restarts").glob("*.safetensors")]) == 5


def test_the_index_in_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    data = torch.utils.data.TensorDataset(torch.randn(40, 4), torch.randint(3, (40,)))
    given = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": torch.utils.data.DataLoader(data, batch_size=10),
        "loss_function": nn.CrossEntropyLoss(),
        "epochs": 5,
        "x_test": torch.randn(7, 4),
    }
    names = run_page("index.md", given, under="PyTorch")
    torch.testing.assert_close(names["probabilities"].sum(1), torch.ones(7))


def test_every_page_of_this_session_is_run_here() -> None:
    # The tutorials are run by test_tutorials.py.
    assert {page for page in pages_of("torch") if page.endswith(".md")} == {
        *("start/torch.md", "schedules.md", "restarts.md", "conventions.md", "index.md"),
        *GO_ON,
    }


def test_a_wrong_block_fails_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# Page\n\n```python\nassert 1 == 2\n```\n")
    (block,) = blocks("page.md", folder=tmp_path)
    with pytest.raises(AssertionError) as caught:
        block.run({})
    assert caught.traceback[-1].lineno == 3  # from 0
    (tmp_path / "page.md").write_text("```python\n")
    with pytest.raises(AssertionError, match="is not closed"):
        blocks("page.md", folder=tmp_path)


def test_a_title_that_is_left_out_must_have_code() -> None:
    kept = blocks("ensembles.md", but="ONNX")
    (left,) = blocks("ensembles.md", under="ONNX")
    assert left not in kept
    assert len(kept) + 1 == len(blocks("ensembles.md"))
    with pytest.raises(AssertionError, match="no code of Onnx"):
        blocks("ensembles.md", but="Onnx")
