"""What is looked at of a recorded run on several processes, on CPUs and on GPUs alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cosanneal.snapshots import SnapshotStore
from tests.shared.processes import outputs
from tests.shared.ranked_run import held_out, plain_model

RUN = ("-m", "tests.shared.ranked_run")


def launch(
    cases: list[dict[str, Any]],
    processes: int = 2,
    *,
    device: str = "cpu",
    group: bool | None = None,
) -> None:
    """Have processes run the cases, which end well."""
    outputs([*RUN, json.dumps(cases), device], processes, group=group)


def case(place: Path, name: str, how: str, **options: Any) -> dict[str, Any]:
    """What a process is to run, with a folder of its own."""
    work = place / name
    return {"how": how, "folder": str(work / "run"), "work": str(work), **options}


def wrong(place: Path, name: str, processes: int = 2) -> list[list[str]]:
    """What went wrong in a case, by rank."""
    found = (place / name / f"wrong-{rank}.json" for rank in range(processes))
    return [json.loads(each.read_text()) for each in found]


def check_recorded(place: Path, name: str, processes: int = 2) -> None:
    """Nothing went wrong, and each snapshot has the weights that torch's own way saves, whole."""
    assert wrong(place, name, processes) == [[]] * processes
    snapshots = SnapshotStore(place / name / "run").list()
    assert [each.step for each in snapshots] == [4, 8, 12]
    seen: list[dict[str, torch.Tensor]] = []
    for snapshot in snapshots:
        snapshot.verify()
        own = torch.load(place / name / f"weights-{snapshot.step}.pt", weights_only=True)
        found = snapshot.load(framework="pt")
        plain = {each.removeprefix("module."): value for each, value in own.items()}
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[each], plain[each]) for each in plain)
        seen.append(found)
    assert not torch.equal(seen[0]["0.weight"], seen[-1]["0.weight"])


def check_predicted(place: Path, name: str, processes: int = 2) -> None:
    """Every process has the prediction of all samples, in order: that of the members by hand."""
    members = []
    for snapshot in SnapshotStore(place / name / "run").list():
        model = plain_model()
        model.load_state_dict(snapshot.load(framework="pt"))
        with torch.no_grad():
            members.append(model(held_out()).double().softmax(-1))
    expected = torch.stack(members).mean(0).float()
    assert expected.std(0).max() > 1e-2  # which rows in another order would show
    for rank in range(processes):
        found = torch.load(place / name / f"predicted-{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
