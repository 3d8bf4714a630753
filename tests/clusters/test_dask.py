"""A study through Dask's executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from cosanneal.study import run
from tests.shared.processes import ROOT
from tests.shared.studied import train


def results(folder: Path, **given: Any) -> list[dict[str, Any]]:
    found = run(
        train,
        total_steps=60,
        max_lr=0.1,
        num_cycles=(1, 2),
        seeds=2,
        folder=folder,
        progress=lambda _: None,
        **given,
    )
    return [{k: v for k, v in each.items() if k != "seconds"} for each in found["runs"]]


def test_a_study_through_a_client_is_that_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers have this process' path; where they cannot import `train`, it is waited for for ever.
    monkeypatch.syspath_prepend(ROOT)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        found = results(tmp_path / "dask", executor=client.get_executor())
        assert client.submit(int).result() == 0  # it is left open
    assert found == results(tmp_path / "processes")
    assert len(found) == 4
