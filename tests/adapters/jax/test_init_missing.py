"""A missing package is told from a broken one."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("jax", "MissingExtraError jax ModuleNotFoundError"),
        ("optax", "MissingExtraError optax ModuleNotFoundError"),
        ("safetensors", "MissingExtraError safetensors ModuleNotFoundError"),
        ("filelock", "MissingExtraError filelock ModuleNotFoundError"),
        ("xxhash", "MissingExtraError xxhash ModuleNotFoundError"),
        ("jax._src.core", "ModuleNotFoundError jax._src.core None"),
    ],
)
def test_a_missing_package_is_told_from_a_broken_one(missing: str, expected: str) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
try:
    import cosanneal.adapters.jax
except ImportError as error:
    cause = type(error.__cause__).__name__ if error.__cause__ else None
    print(type(error).__name__, error.name, cause)
    print("cosanneal[jax]" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    told, has_command = done.stdout.splitlines()
    assert told == expected
    assert has_command == str(expected.startswith("MissingExtraError"))
