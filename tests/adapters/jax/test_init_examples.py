"""The examples of the adapter's docstrings run as they are printed."""

from __future__ import annotations

import pytest

from tests.shared.examples import check_examples, modules_with_examples


@pytest.mark.parametrize("name", modules_with_examples("cosanneal.adapters.jax"))
def test_examples_run(name: str) -> None:
    check_examples(name)
