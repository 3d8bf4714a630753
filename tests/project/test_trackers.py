"""The page on trackers: TensorBoard itself, and stand-ins of those that are services."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from tests.shared.pages import blocks, run_page

PAGE = "trackers.md"
STEPS = 20
SCHEDULE = ca.CyclicCosine(max_lr=0.1, total_steps=STEPS, num_cycles=5)


class Told:
    """What takes the place of a tracker: it keeps every call, and is its own run."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Told:
            self.calls.append((name, args, kwargs))
            return self

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


def run(tracker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    given = {
        "model": nn.Linear(4, 3),
        "batches": [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(STEPS)],
    }
    found = blocks(PAGE, under=tracker)
    names: dict[str, Any] = {"__name__": "page", **given}
    found[0].run(names)
    names = run_page(PAGE, names, under="The loop")
    for block in found[1:]:
        block.run(names)
    return names


def check(logged: dict[int, dict[str, float]]) -> None:
    """Every update's numbers, beside the schedule's."""
    assert sorted(logged) == [*range(STEPS)]
    for step, numbers in logged.items():
        assert numbers["rate"] == pytest.approx(SCHEDULE.rate(step), rel=1e-6)
        assert numbers["cycle"] == step // 4
        assert numbers["snapshots"] == (step + 1) // 4
        assert numbers["loss"] > 0


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = run("TensorBoard", monkeypatch, tmp_path)
    names["writer"].close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs/board"), size_guidance={"scalars": 0})
    events.Reload()
    logged: dict[int, dict[str, float]] = {}
    for name in ("loss", "rate", "cycle", "snapshots"):
        for event in events.Scalars(name):
            logged.setdefault(event.step, {})[name] = event.value
    check(logged)


@pytest.mark.parametrize("tracker", ["W&B", "MLflow"])
def test_services(tracker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name, log = ("wandb", "log") if tracker == "W&B" else ("mlflow", "log_metrics")
    told = Told()
    module = types.ModuleType(name)
    module.__getattr__ = told.__getattr__  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, name, module)
    run(tracker, monkeypatch, tmp_path)
    check({kwargs["step"]: args[0] for args, kwargs in told.of(log)})
    files = [Path(args[0]) for args, _ in told.of("log_artifact")]
    assert files == [each.path for each in SnapshotStore(tmp_path / "runs/tracked").list()]
    assert len(files) == 5
    assert told.calls[-1][0] == ("finish" if tracker == "W&B" else "end_run")
