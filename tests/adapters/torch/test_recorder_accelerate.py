"""The example with accelerate, on one process and on two, killed and gone on with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.shared.processes import outputs, started
from tests.shared.scripts import EXAMPLES

SCRIPT = EXAMPLES / "torch_accelerate.py"

# Ends the process right after a checkpoint, where it is asked to.
RUN = """
import os, runpy, sys
from accelerate import Accelerator
save_state = Accelerator.save_state
def save(self, folder):
    save_state(self, folder)
    if [folder[-2:], str(self.process_index)] == sys.argv[2:]:
        os._exit(9)
Accelerator.save_state = save
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(folder: Path, processes: int, kill: tuple[str, str] = ("", "")) -> str:
    """What the first process prints; none of them goes on where one was killed."""
    folder.mkdir(exist_ok=True)
    arguments = ["-W", "error", "-c", RUN, str(SCRIPT), *kill]
    if not kill[1]:
        return outputs(arguments, processes, cwd=folder, ACCELERATE_USE_CPU="true")[0]
    with started(arguments, processes, cwd=folder, ACCELERATE_USE_CPU="true") as running:
        assert running[int(kill[1])].wait(timeout=200) == 9
    return ""


def snapshots(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "runs" / "accelerate").glob("*.safetensors"))
    return {each.name: each.read_bytes() for each in found}


@pytest.mark.parametrize(("processes", "killed"), [(1, "0"), (2, "1")])
def test_a_run_that_was_killed_goes_on_byte_for_byte(
    tmp_path: Path, processes: int, killed: str
) -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 50
    told = run(tmp_path / "whole", processes)
    run(tmp_path / "killed", processes, ("04", killed))
    before = snapshots(tmp_path / "killed")
    assert run(tmp_path / "killed", processes) == told
    found = snapshots(tmp_path / "killed")
    assert found == snapshots(tmp_path / "whole")
    assert before.items() <= found.items()
    cycle = 75 if processes == 1 else 39  # of 50 batches an epoch, or 25: 25 updates, or 13
    assert [int(re.findall(r"step-(\d+)", name)[0]) for name in found] == [
        *range(cycle, 5 * cycle, cycle)
    ]
    assert told.startswith("weights [")
