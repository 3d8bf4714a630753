"""Which tests of a device are collected: those of installed frameworks, or those asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[1] / "gpu"
MODULES = {framework: FOLDER / f"test_{framework}_training.py" for framework in ("torch", "jax")}


@pytest.fixture
def conftest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "TF_FORCE_GPU_ALLOW_GROWTH"):
        monkeypatch.setenv(name, "as it was")
    spec = importlib.util.spec_from_file_location("gpu_conftest", FOLDER / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("installed", "asked", "collected"),
    [
        ({"torch", "jax", "optax"}, ["tests/gpu"], {"torch", "jax"}),
        ({"torch"}, ["tests/gpu"], {"torch"}),
        ({"torch"}, [], {"torch"}),
        ({"torch"}, ["tests/gpu/test_jax_training.py::test_x"], {"torch", "jax"}),
        (set(), ["tests/gpu"], {"torch", "jax"}),  # and fails
    ],
)
def test_what_is_not_installed_is_left_out_unless_it_is_asked_for(
    conftest: ModuleType,
    installed: set[str],
    asked: list[str],
    collected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conftest, "find_spec", lambda name: name if name in installed else None)
    config = SimpleNamespace(
        args=asked, invocation_params=SimpleNamespace(dir=Path(__file__).parents[2])
    )
    found = {
        framework
        for framework, path in MODULES.items()
        if not conftest.pytest_ignore_collect(path, config)
    }
    assert found == collected
    assert not conftest.pytest_ignore_collect(FOLDER / "conftest.py", config)
    said = "\n".join(conftest.pytest_report_header())
    left_out = bool(installed) and "jax" not in installed
    assert ("test_jax_*.py is left out" in said) is left_out


def test_a_test_without_its_device_fails_and_is_not_skipped(conftest: ModuleType) -> None:
    with pytest.raises(pytest.fail.Exception, match="torch must find a device"):
        conftest.no_device("torch")
