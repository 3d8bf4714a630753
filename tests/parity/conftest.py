"""These tests compare all frameworks, and need them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.shared.needed import left_out

NEEDED = ("torch", "tensorflow", "keras", "jax", "optax", "sklearn")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a framework is missing, unless it was asked for by name."""
    return left_out("parity", NEEDED, collection_path, config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The worst deviation of each framework, and where it was."""
    module = sys.modules.get(f"{__package__}.test_parity")
    if module is None or not module.TABLE:
        return
    terminalreporter.section("deviations from the exact rates")
    line = "{:<26} {:<8} {:>6} {:>9}  {}"
    terminalreporter.write_line(line.format("", "", "steps", "worst ulp", "at step"))
    for where, precision, count, ulps, step, name in module.TABLE:
        at = f"{step:,} of {name!r}"
        terminalreporter.write_line(line.format(where, precision, count, f"{ulps:.2f}", at))
