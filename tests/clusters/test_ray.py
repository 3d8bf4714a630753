"""Batch inference in Ray's actors, as the example has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from cosanneal.adapters.torch import SnapshotEnsemble
from tests.shared.processes import ROOT
from tests.shared.scripts import EXAMPLES

SCRIPT = EXAMPLES / "ray_batch_inference.py"

# What the script keeps of Ray's rows, for the test to look at.
KEEP = """
for name in ("x", "probabilities"):
    torch.save(torch.stack([torch.tensor(row[name]) for row in kept]), name + ".pt")
ensemble.save()
"""


def test_the_example_predicts_what_one_process_predicts(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 50
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text() + KEEP)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"^accuracy (\S+) of 2500 rows$", done.stdout, re.MULTILINE)
    assert said is not None
    assert float(said[1]) > 0.9
    layers = (torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    ensemble = SnapshotEnsemble(torch.nn.Sequential(*layers), tmp_path / "runs" / "ray")
    ensemble.load()
    x, found = (torch.load(tmp_path / f"{name}.pt") for name in ("x", "probabilities"))
    assert len(x) == 2500
    torch.testing.assert_close(found, ensemble.predict(x), rtol=1e-5, atol=1e-6)
