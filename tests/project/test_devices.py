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


@pytest.mark.parametrize(
    ("there", "asked", "tried", "kept"),
    [
        (0, None, [1], True),  # and fails
        (1, None, [1], False),
        (1, 2, [1, 2], True),  # and fails
        (4, None, [1, 4], True),
        (4, 2, [1, 2], True),
        (4, 1, [1], False),
    ],
)
def test_what_takes_several_gpus_is_left_out_only_where_one_is_there(
    conftest: ModuleType,
    there: int,
    asked: int | None,
    tried: list[int],
    kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conftest, "_there", lambda: there)
    given: list[int] = []
    left_out: list[object] = []
    config = SimpleNamespace(
        stash={},
        getoption={"--gpus": asked}.get,
        hook=SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items)),
    )
    metafunc = SimpleNamespace(
        fixturenames=["gpus"],
        config=config,
        parametrize=lambda _, values, **__: given.extend(values),
    )
    conftest.pytest_generate_tests(metafunc)
    assert given == tried
    several, other = SimpleNamespace(fixturenames=["several_gpus"]), SimpleNamespace()
    items = [several, other]
    conftest.pytest_collection_modifyitems(config, items)
    assert (items, left_out) == (([several, other], []) if kept else ([other], [several]))
    assert len(conftest.pytest_report_collectionfinish(config)) == len(left_out)
    wanted = max(2, tried[-1])
    if there >= wanted:
        assert conftest._found(wanted) == wanted
    else:
        with pytest.raises(pytest.fail.Exception, match=r"must find (a device|2 GPUs)"):
            conftest._found(wanted)


def test_a_test_without_its_device_fails_and_is_not_skipped(conftest: ModuleType) -> None:
    with pytest.raises(pytest.fail.Exception, match="torch must find a device"):
        conftest.no_device("torch")
