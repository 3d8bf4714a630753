"""The options of the tests, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples in every run, and no time limit on one: a busy machine is no defect.
settings.register_profile("cosanneal", deadline=None, derandomize=True, database=None)
settings.load_profile("cosanneal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=300,
        help="how often a run that records is killed (default: %(default)s; patience: 5000)",
    )
    parser.addoption(
        "--gpus",
        type=int,
        default=None,
        help="how many GPUs the machine must have for what runs on several (default: all it has)",
    )
