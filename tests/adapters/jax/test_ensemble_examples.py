"""The examples of JAX run as their readers would run them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.shared.scripts import run_example


def test_a_module_of_nnx(tmp_path: Path) -> None:
    told = run_example("jax_nnx.py", tmp_path)
    wrong, sure, unsure = map(float, re.findall(r"[0-9]+\.[0-9]+", told))
    assert wrong < 5
    assert sure < unsure
