"""The pages' code runs as it is printed, where PyTorch is all that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import cosanneal as ca
from tests.shared.pages import blocks, pages_of, run_page

# These go on from the first page, and one after the other would not be read so.
GO_ON = ("ensembles.md", "snapshots.md")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_page_of_torch_gives_an_ensemble_that_is_better_than_chance() -> None:
    names = run_page("start/torch.md")
    assert len(names["ensemble"]) == 4
    right = names["probabilities"].argmax(1) == names["y"][names["test"]]
    assert right.float().mean() > 0.75


@pytest.mark.filterwarnings("ignore:The weights were averaged across a barrier:UserWarning")
@pytest.mark.parametrize("page", GO_ON)
def test_pages_that_go_on_from_it(page: str, tmp_path: Path) -> None:
    names = run_page(page, run_page("start/torch.md"))
    if page == "ensembles.md":
        loaded = torch.export.load("ensemble.pt2").module()(names["x"][:10])
        torch.testing.assert_close(loaded, names["module"](names["x"][:10]))
        assert (tmp_path / "runs/torch/ensemble.json").is_file()
    else:
        assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("page", ["schedules.md", "conventions.md"])
def test_pages_by_themselves(page: str) -> None:
    assert run_page(page, {"ca": ca})["schedule"].num_cycles in (5, 6)


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
        *("start/torch.md", "schedules.md", "conventions.md", "index.md"),
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
