"""What goes between processes, and what of it stays: of a group of one process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cosanneal.adapters.torch import ranks


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ranks.DefaultGroup]:
    store = f"file://{tmp_path}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield ranks.DefaultGroup()
    ranks.latest.clear()
    torch.distributed.destroy_process_group()


def test_the_last_collective_is_kept_until_the_next(group: ranks.DefaultGroup) -> None:
    # Or a thread of gloo's frees its tensors, which aborts a process that ends meanwhile.
    for message in ("a", "b", "ä" * 1000):
        before = list(ranks.latest)
        assert group.everyones(message) == [message]
        (work,) = ranks.latest
        assert work not in before
        assert isinstance(work, torch.distributed.Work)
        assert work.is_completed()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("backend", "device"),
    [
        ("gloo", "cpu"),
        ("cpu:gloo", "cpu"),
        ("undefined", "cpu"),  # of init_process_group(): gloo and nccl
        ("cpu:gloo,cuda:nccl", "cpu"),
        ("nccl", "cuda:1"),
        ("cuda:nccl", "cuda:1"),
    ],
)
def test_messages_lie_where_the_backend_takes_them(
    monkeypatch: pytest.MonkeyPatch, backend: str, device: str
) -> None:
    def to(_: torch.Tensor, where: Any) -> torch.Tensor:
        raise RuntimeError(str(where))

    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.Tensor, "to", to)
    with pytest.raises(RuntimeError, match=f"^{device}$"):
        ranks.DefaultGroup().everyones("a")


def test_rows_are_not_kept_beyond_their_use(
    group: ranks.DefaultGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.arange(2**20, dtype=torch.uint8).reshape(-1, 1)
    gathered: list[Any] = []
    real = torch.distributed.all_gather

    def all_gather(received: list[torch.Tensor], own: torch.Tensor, **options: Any) -> Any:
        gathered.append(weakref.ref(received[0]))
        return real(received, own, **options)

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    (found,) = group.gathered(rows, [len(rows)])
    assert torch.equal(found, rows)
    del found
    gc.collect()
    large, small = gathered
    assert large() is None
    assert small() is None or small().nbytes == 1
