"""The examples of torch run as their readers would run them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.shared.scripts import run_example


def test_a_transformer_on_padded_batches(tmp_path: Path) -> None:
    told = run_example("torch_transformers.py", tmp_path)
    errors = [float(each) for each in re.findall(r"([0-9.]+)% of the test", told)]
    assert len(errors) == 5
    assert errors[-1] < min(10, errors[0])


def test_a_segmentation_with_pixels_that_do_not_count(tmp_path: Path) -> None:
    told = run_example("torch_segmentation.py", tmp_path)
    scores = [float(each) for each in re.findall(r"mean IoU ([0-9.]+)", told)]
    assert len(scores) == 5
    assert scores[-1] >= max(scores[:-1]) - 0.02


def test_an_ensemble_shipped_as_one_file(tmp_path: Path) -> None:
    told = run_example("torch_ship.py", tmp_path)
    (wrong,) = (float(each) for each in re.findall(r"([0-9.]+) % of the test", told))
    assert wrong < 10
    (away,) = (float(each) for each in re.findall(r"difference to the ensemble: (\S+)", told))
    assert away < 1e-6
    assert (tmp_path / "ensemble.pt2").stat().st_size > 1000


def test_an_ensemble_distilled_into_one_model(tmp_path: Path) -> None:
    told = run_example("torch_distill.py", tmp_path)
    found = re.findall(r"(.*): ([0-9.]+) % of the test scans wrong, log-loss ([0-9.]+)", told)
    assert [name for name, _, _ in found] == ["last snapshot", "ensemble", "student"]
    for _, wrong, loss in found:
        assert float(wrong) < 10
        assert float(loss) < 0.4
