"""The example with accelerate, on one process and on two, killed and gone on with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.torch.test_ranks import ROOT, free_port
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
    """What the first process prints; it and the others are ended where one was killed."""
    folder.mkdir(exist_ok=True)
    common = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT / "src")}
    if processes > 1:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        common |= {"WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RUN, str(SCRIPT), *kill],
            cwd=folder,
            env=os.environ
            | common
            | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        if kill[1]:
            assert started[int(kill[1])].wait(timeout=200) == 9
            return ""
        said = [each.communicate(timeout=200) for each in started]
    finally:
        for each in started:
            each.kill()
            each.communicate()
    assert [each.returncode for each in started] == [0] * processes, said
    return said[0][0]


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
