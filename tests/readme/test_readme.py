"""Every code block of the README runs, in order, as it is printed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```$", README.read_text(), re.MULTILINE | re.DOTALL
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
