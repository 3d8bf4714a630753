"""A missing package is told from a broken one."""

from __future__ import annotations

import subprocess
import sys

import keras
import pytest

BACKEND = keras.backend.backend()
EXTRA = {"tensorflow": "tf"}.get(BACKEND, BACKEND)


@pytest.mark.parametrize(
    ("missing", "expected", "extra"),
    [
        ("keras", "MissingExtraError keras ModuleNotFoundError", "tf"),
        ("safetensors", "MissingExtraError safetensors ModuleNotFoundError", "tf"),
        ("filelock", "MissingExtraError filelock ModuleNotFoundError", "tf"),
        ("xxhash", "MissingExtraError xxhash ModuleNotFoundError", "tf"),
        (BACKEND, f"MissingExtraError {BACKEND} ModuleNotFoundError", EXTRA),
        (f"{BACKEND}.nothing", f"ModuleNotFoundError {BACKEND}.nothing None", ""),
    ],
)
def test_a_missing_package_is_told_from_a_broken_one(
    missing: str, expected: str, extra: str
) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        broken = {missing!r}.endswith(".nothing") and name == {BACKEND!r}
        if name == {missing!r} or broken:
            raise ModuleNotFoundError(f"No module named {missing!r}", name={missing!r})
sys.meta_path.insert(0, Block())
try:
    import cosanneal.adapters.keras
except ImportError as error:
    cause = type(error.__cause__).__name__ if error.__cause__ else None
    print(type(error).__name__, error.name, cause)
    print("'cosanneal[{extra}]'" in str(error), "KERAS_BACKEND" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    told, mentions = done.stdout.splitlines()
    assert told == expected
    assert mentions == f"{bool(extra)} {missing == BACKEND}"
