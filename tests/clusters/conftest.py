"""What all of these tests have in common."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As in the processes with which this one is compared: of more, sums are rounded otherwise."""
    torch.set_num_threads(1)
