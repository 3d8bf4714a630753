"""These tests compare with the installed peers, and need them.

`pytest tests/peers` fails where one is missing; a run over all tests leaves the
folder out instead, since only the session `peers` installs them.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PEERS = (
    "composer",
    "fastai",
    "ignite",
    "jax",
    "keras",
    "mapie",
    "mmengine",
    "optax",
    "timm",
    "torch",
    "torch_uncertainty",
    "torchensemble",
    "torchmetrics",
    "transformers",
)

os.environ.setdefault("KERAS_BACKEND", "torch")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a peer is missing, unless it was asked for by name."""
    asked = any("peers" in Path(arg.split("::")[0]).parts for arg in config.args)
    missing = [name for name in PEERS if find_spec(name) is None]
    return True if missing and not asked and collection_path.suffix == ".py" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The largest deviation that each comparison saw."""
    peers = sys.modules.get(f"{__package__}.peers")
    if peers is None:
        return
    terminalreporter.section("deviations from the peers")
    line = "{:<58} {:>8} {:>9} {:>11} {:>10}"
    terminalreporter.write_line(line.format("", "steps", "defects", "ulp of peak", "of bound"))
    for test, seen in sorted(peers.SEEN.items()):
        name = test.removeprefix("tests/peers/")
        ulps, share = f"{seen.ulps:.3g}", f"{seen.share:.0%}"
        terminalreporter.write_line(line.format(name, seen.steps, seen.defects, ulps, share))
