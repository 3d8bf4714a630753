"""The loss of a distillation and its gradient, the same in every framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shared.distilled import case, exact, slopes

from .distillation import GRADIENTS, OPTIONS
from .worker import environment


@pytest.mark.parametrize("framework", GRADIENTS)
def test_it_is_the_one_of_float64(framework: str, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-W", "error", "-m", "tests.parity.distillation", framework]
    subprocess.run([*command, str(out)], env=environment(framework), check=True)
    found = json.loads(out.read_text())
    given = case(zeros=True)
    assert len(found) == len(OPTIONS)
    for (loss, slope), options in zip(found, OPTIONS, strict=True):
        assert loss == pytest.approx(exact(*given, **options), rel=1e-5)
        np.testing.assert_allclose(slope, slopes(*given, **options), rtol=0, atol=2e-6)
