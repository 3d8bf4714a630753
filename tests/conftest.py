"""The options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=300,
        help="how often a run that records is killed (default: %(default)s; patience: 5000)",
    )
