"""The examples of Keras run as their readers would run them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.shared.scripts import run_example


def test_a_model_with_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    told = run_example("keras_two_outputs.py", tmp_path)
    errors = [float(each) for each in re.findall(r"([0-9.]+)% of the kinds", told)]
    assert len(errors) == 2
    assert max(errors) < 40
    prices = [float(each) for each in re.findall(r"off by ([0-9.]+)", told)]
    assert max(prices) < 1
