"""What kills runs tells a fault: engines are made faulty on purpose."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills import engines
from tests.kills.driver import durable
from tests.shared.processes import ROOT

# What is said of each; where a kill comes too soon to see it at once, at the end of the run.
FAULTS = {
    "loses": "was durable, and is gone|others? snapshots than without a kill",
    "changes": "another than without a kill|other snapshots than without a kill",
    "hangs": r"another process went on for 1 seconds: (.|\n)*faulty_engines.py",
    "leaves": r"other files than without a kill, such as \['left'\]",
    "refuses": "ended with (.|\n)*RuntimeError: this engine does not go on",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = str(tmp_path_factory.mktemp("kills"))
    command = [sys.executable, "-m", "tests.kills", "sound", *FAULTS, "--kills", "1"]
    return subprocess.run(
        [*command, "--folder", folder],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told(done: subprocess.CompletedProcess[str], fault: str) -> None:
    found = re.search(rf"^\| {fault} \| 2 \| \d+ \| \d+ \| (\d+) \|", done.stdout, re.MULTILINE)
    assert found, (done.stdout, done.stderr)
    assert int(found[1]) >= 1
    assert re.search(rf"^{fault}, line-\d+, .*({FAULTS[fault]})", done.stderr, re.MULTILINE)


def test_what_is_sound_is_found_so(done: subprocess.CompletedProcess[str]) -> None:
    sound = r"\| sound \| 2 \| 1 \| (\d+) \| 0 \| \d+\.\d s \| equal \|"
    found = re.search(sound, done.stdout)
    assert found, (done.stdout, done.stderr)
    assert int(found[1]) >= 20  # those of a whole run at least
    assert not re.search("^sound, line", done.stderr, re.MULTILINE)
    assert done.returncode == 1  # for the others


def test_every_engine_of_a_module_is_named() -> None:
    for module, names in engines.MODULES.items():
        text = (Path(__file__).parent / f"{module}.py").read_text()
        assert all(f'"{name}"' in text for name in names)


def test_what_a_later_attempt_replaced_need_not_be_there(tmp_path: Path) -> None:
    # The first is killed after 8 updates; the second goes on from 3, and records at 4; the third
    # from 3 again, and records nothing.
    (tmp_path / "report").write_text("0 2 1.0\n0 4 2.0\n0 8 3.0\n1 4 5.0\n")
    for attempt, updates in enumerate((0, 3, 3)):
        (tmp_path / f"begun-{attempt}-0").write_text(f"{updates} 0.5")
    found = [durable(tmp_path, attempt) for attempt in range(3)]
    assert found == [{2, 4, 8}, {2, 4}, {2, 4}]
