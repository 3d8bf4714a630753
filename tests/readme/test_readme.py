"""Every code block of the README runs, in order, as it is printed."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots.store import SnapshotStore

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str, page: Path = README) -> list[str]:
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [textwrap.dedent(code) for _, code in found]


def test_the_readme_has_code_before_line_15() -> None:
    lines = README.read_text().splitlines()
    assert "```python" in lines[:15]
    assert len(blocks("python")) == 2


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    data = torch.utils.data.TensorDataset(torch.randn(40, 4), torch.randint(3, (40,)))
    # What the README says the reader already has.
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": torch.utils.data.DataLoader(data, batch_size=10),
        "loss_function": nn.CrossEntropyLoss(),
        "epochs": 5,
        "x_test": torch.randn(7, 4),
    }
    for code in blocks("python"):
        exec(compile(code, str(README), "exec"), names)  # noqa: S102 - our own README
    assert len(list((tmp_path / "runs" / "digits").iterdir())) == 5
    probabilities = names["probabilities"]
    assert isinstance(probabilities, torch.Tensor)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))


def test_the_page_on_preemption_resumes_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own code, with an update in place of its dots: stopped at updates of any place.

    The loader shuffles and the model drops out, so that the weights depend on the random state.
    """
    page = README.parent / "docs" / "preemption.md"
    (code,) = [block for block in blocks("python", page) if "checkpoint =" in block]
    step = "            scheduler.step()\n"
    assert code.count(step) == 1
    code = code.replace(step, "            scheduler.step(); stop(scheduler.last_epoch)\n").replace(
        "            ...\n", "            optimizer.zero_grad(); model(x).sum().backward()\n"
    )
    monkeypatch.chdir(tmp_path)
    drawn = torch.utils.data.TensorDataset(torch.randn(10, 4), torch.zeros(10))

    def train(stop: Callable[[int], None]) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=5)
        names = {
            **{"os": os, "Path": Path, "torch": torch, "SnapshotRecorder": SnapshotRecorder},
            **{"model": model, "optimizer": optimizer, "epochs": 4, "stop": stop},
            "loader": torch.utils.data.DataLoader(drawn, batch_size=2, shuffle=True),
            "scheduler": CyclicCosineLR(optimizer, schedule),
        }
        exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own page

    def snapshots() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path("runs/digits").glob("*.safetensors")}

    train(lambda _: None)
    whole = snapshots()
    assert len(whole) == 5
    (tmp_path / "stopped").mkdir()
    monkeypatch.chdir(tmp_path / "stopped")

    def stop_at(wanted: int) -> Callable[[int], None]:
        def stop(update: int) -> None:
            if update == wanted:
                raise KeyboardInterrupt

        return stop

    # An epoch has 5 updates, and a cycle 4: at 4 there is a snapshot and no checkpoint yet.
    for update, there in ((4, 1), (4, 1), (7, 1), (8, 2), (19, 4)):
        with pytest.raises(KeyboardInterrupt):
            train(stop_at(update))
        assert len(snapshots()) == there
        assert Path("runs/digits/checkpoint.pt").exists() == (update > 4)
    train(lambda _: None)
    assert snapshots() == whole


@pytest.fixture
def storage_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The code of the page, on fsspec's file system in memory, which is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    page = README.parent / "docs" / "storage.md"
    yield [
        block.replace("s3://bucket/", "memory://bucket/").replace(
            "            ...\n", "            model(x).sum().backward()\n"
        )
        for block in blocks("python", page)
    ]
    fsspec.filesystem("memory").store.clear()


def training() -> dict[str, Any]:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=5)
    return {
        **{"SnapshotRecorder": SnapshotRecorder, "SnapshotStore": SnapshotStore},
        **{"SnapshotEnsemble": SnapshotEnsemble, "model": model, "optimizer": optimizer},
        **{"loader": [(torch.ones(2, 4) * i, None) for i in range(5)], "epochs": 4},
        "scheduler": CyclicCosineLR(optimizer, schedule),
    }


def test_the_page_on_storage_records_at_a_url(storage_page: list[str], tmp_path: Path) -> None:
    direct, options, _ = storage_page
    names = training()
    exec(direct, names)  # noqa: S102 - our own page
    files = fsspec.filesystem("memory")
    assert len(files.ls("/bucket/digits")) == 5
    assert len(names["ensemble"]) == 3
    x = torch.ones(2, 4)
    there = names["ensemble"].predict(x)
    exec(options, names)  # noqa: S102 - our own page
    assert len(names["ensemble"]) == 5
    assert not torch.equal(names["ensemble"].predict(x), there)
    assert len([*(tmp_path / "scratch/snapshots").rglob("cycle-*")]) == 5


def test_the_page_on_storage_copies_what_is_not_there(
    storage_page: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = training()
    exec(storage_page[2], names)  # noqa: S102 - our own page
    fs, root = names["fs"], names["root"]

    def mirrored() -> dict[str, bytes]:
        return {each.rpartition("/")[2]: fs.cat_file(each) for each in fs.ls(root, detail=False)}

    written = {path.name: path.read_bytes() for path in Path("runs/digits").iterdir()}
    assert len(written) == 5
    assert mirrored() == written

    # One is lost, one half, and one another run's under the same name and of the same size.
    lost, half, other, *same = sorted(written)
    fs.rm(f"{root}/{lost}")
    fs.pipe_file(f"{root}/{half}", written[half][:-1])
    fs.pipe_file(f"{root}/{other}", written[other].replace(b'"step":"', b'"step":"9')[:-1])
    puts: list[str] = []
    real = fs.put_file

    def put_file(path: str, there: str) -> None:
        puts.append(there)
        real(path, there)

    monkeypatch.setattr(fs, "put_file", put_file)
    for snapshot in SnapshotStore("runs/digits").list():
        names["mirror"](snapshot)
    assert puts == [f"{root}/{each}" for each in (lost, half, other)]
    assert mirrored() == written
    assert len(same) == 2

    assert SnapshotStore("memory://bucket/mirror").verify() == 5
