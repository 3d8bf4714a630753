"""These tests need a device: `python -m pytest -m gpu tests/gpu`, and they fail without one.

A module is named after its framework. Where a framework is not installed, its
modules are left out, which the header says; but not one that is asked for by
name, as the nox sessions do, and not where no framework is installed at all.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

# For tests of several frameworks in one process, none may take all of the device's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

KERAS_BACKEND = os.environ.get("KERAS_BACKEND") or "tensorflow"
LEFT_OUT = pytest.StashKey[int]()
NEEDED = {"torch": ("torch",), "jax": ("jax", "optax"), "keras": ("keras", KERAS_BACKEND)}


def _lacking() -> dict[str, list[str]]:
    """By framework, which of its packages are not installed; none where all lack some."""
    found = {
        framework: [name for name in packages if find_spec(name) is None]
        for framework, packages in NEEDED.items()
    }
    return {} if all(found.values()) else {name: lack for name, lack in found.items() if lack}


def _there() -> int:
    """How many GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def gpus_asked(config: pytest.Config) -> int:
    """How many GPUs a run is to have: those that `--gpus` asks for, or all that are there."""
    asked: int | None = config.getoption("--gpus")
    return _there() if asked is None else asked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One GPU, and all of them."""
    if "gpus" in metafunc.fixturenames:
        asked = sorted({1, gpus_asked(metafunc.config)} - {0})
        metafunc.parametrize("gpus", asked, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where one GPU is there, and no more are asked for, leave out what takes several."""
    several = [each for each in items if "several_gpus" in getattr(each, "fixturenames", ())]
    if several and gpus_asked(config) == 1:
        config.hook.pytest_deselected(items=several)
        config.stash[LEFT_OUT] = len(several)
        items[:] = [each for each in items if each not in several]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What takes several GPUs, and is left out."""
    left_out = config.stash.get(LEFT_OUT, 0)
    told = "tests/gpu: one GPU is here; left out of what takes several: {}. --gpus 2 asks for it"
    return [told.format(left_out)] if left_out else []


def pytest_report_header() -> list[str]:
    """What is left out."""
    return [
        f"tests/gpu: test_{framework}_*.py is left out; not installed: {', '.join(lack)}"
        for framework, lack in _lacking().items()
    ]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the modules of a framework that is not installed."""
    asked = (Path(arg.split("::")[0]) for arg in config.args)
    if any((config.invocation_params.dir / path) == collection_path for path in asked):
        return None
    framework = collection_path.name.removeprefix("test_").partition("_")[0]
    return True if framework in _lacking() else None


def no_device(framework: str) -> NoReturn:
    """Fail: these tests are asked for where they are to run, and a skip would hide that."""
    pytest.fail(f"{framework} must find a device for these tests, and finds none", pytrace=False)


@pytest.fixture(scope="module")
def gpus(request: pytest.FixtureRequest) -> int:
    """How many GPUs a test is to run on: one, and all of them."""
    return _found(int(request.param))


@pytest.fixture(scope="module")
def several_gpus(request: pytest.FixtureRequest) -> int:
    """How many GPUs a test is to run on that takes several: all of them."""
    return _found(max(2, gpus_asked(request.config)))


def _found(wanted: int) -> int:
    there = _there()
    if there < wanted:
        told = f"torch must find {wanted} GPUs for these tests, and finds {there}"
        no_device("torch") if there == 0 else pytest.fail(told, pytrace=False)
    return wanted


@pytest.fixture
def torch_device() -> Any:
    """torch's CUDA device."""
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else no_device("torch")


@pytest.fixture
def jax_device() -> Any:
    """The device that JAX computes on by default."""
    import jax

    (device, *_) = jax.devices()
    return no_device("jax") if device.platform == "cpu" else device


@pytest.fixture
def keras_device() -> Any:
    """The name of the kind of device that Keras' backend computes on by default."""
    if KERAS_BACKEND == "torch":
        import torch

        found = torch.cuda.is_available()
    elif KERAS_BACKEND == "jax":
        import jax

        found = jax.devices()[0].platform != "cpu"
    else:
        import tensorflow as tf

        found = bool(tf.config.list_physical_devices("GPU"))
    return "gpu" if found else no_device(f"Keras on {KERAS_BACKEND}")
