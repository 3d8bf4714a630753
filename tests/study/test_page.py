"""The page that says whether cycles pay, from the code of docs/study.md."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from cosanneal import study
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from tests.shared.pages import blocks


def test_the_page_on_studies_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("study.md")
    code = block.code
    # Another process could not import what is only here.
    code = code.replace('folder="runs/study"', 'folder="runs/study", executor=executor').replace(
        "total_steps=4000", "total_steps=20"
    )
    monkeypatch.chdir(tmp_path)
    x, y = torch.randn(90, 4), torch.randint(3, (90,))
    with ThreadPoolExecutor(1) as executor:
        names = {
            **{"__name__": "__main__", "torch": torch, "study": study, "executor": executor},
            **{"CyclicCosineLR": CyclicCosineLR, "SnapshotRecorder": SnapshotRecorder},
            **{"SnapshotEnsemble": SnapshotEnsemble, "make_model": lambda: nn.Linear(4, 3)},
            **{"loss_function": nn.CrossEntropyLoss(), "x_val": x[:40], "y_val": y[:40]},
            **{"x_test": x[40:], "y_test": y[40:]},
            "batches": lambda seed, steps: [(x[:10] + seed, y[:10])] * steps,
        }
        exec(compile(code, "docs/study.md", "exec"), names)  # noqa: S102 - our own page
    assert "one cosine" in Path("study.html").read_text()
