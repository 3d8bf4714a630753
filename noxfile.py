"""The project's checks: `nox` runs all but `demo` and `bench`, `nox -s NAME` one of them."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = [
    *("lint", "types", "core", "torch", "jax", "tf", "keras", "parity", "peers", "browser"),
    "build",
]
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *packages: str, group: str | None = None) -> None:
    """Install at the versions that everything was tested with."""
    wanted = [*packages, *(nox.project.dependency_groups(PROJECT, group) if group else ())]
    session.install("-c", "constraints.txt", *wanted)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes (ruff)."""
    install(session, group="lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly (mypy)."""
    install(session, "-e", ".[demo]", group="types")
    session.run("mypy", *session.posargs)


@nox.session
def core(session: nox.Session) -> None:
    """The core's tests, where no third-party package is but pytest and hypothesis."""
    install(session, ".", group="core-test")
    session.run("pytest", "tests/core", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """All tests that need PyTorch, numpy, the command line or the plots."""
    install(session, ".[demo]", group="test")
    session.run(
        "pytest",
        "--ignore=tests/browser",
        "--ignore=tests/core",
        "--ignore=tests/jax",
        "--ignore=tests/keras",
        "--ignore=tests/peers",
        "--ignore=tests/readme",
        *session.posargs,
    )


@nox.session
def jax(session: nox.Session) -> None:
    """The adapter for JAX and Optax, and the demonstration in JAX."""
    install(session, ".[jax,cli,plot]", group="jax-test")
    session.run("pytest", "tests/jax", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """What needs a CUDA device, and fails where there is none; not part of plain `nox`."""
    install(session, ".[torch]", group="test")
    session.run("pytest", "-m", "gpu", "tests/gpu", *session.posargs)


@nox.session
def tf(session: nox.Session) -> None:
    """The adapter for Keras, on TensorFlow (which for the CPU alone is a package of its own)."""
    install(session, ".[cli,plot]", group="tf-test")
    session.run("pytest", "tests/keras", *session.posargs, env={"KERAS_BACKEND": "tensorflow"})


@nox.session
@nox.parametrize("backend", ["jax", "torch"])
def keras(session: nox.Session, backend: str) -> None:
    """The adapter for Keras, on its other backends."""
    install(session, f".[{backend},cli,plot]", group="keras-test")
    session.run("pytest", "tests/keras", *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session
def parity(session: nox.Session) -> None:
    """The same schedules, snapshots and predictions in every framework."""
    install(session, ".[torch,jax]", group="tf-test")
    session.run("pytest", "tests/parity", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Every preset beside the library it stands for."""
    install(session, ".[torch]")
    install(session, group="peers")
    install(session, "--no-deps", group="peers-alone")
    session.run("pytest", "tests/peers", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The report page in Chromium or Chrome, which must be installed or named by $CHROME."""
    install(session, ".[plot]", group="browser-test")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demonstration on real data; arguments go to it: `nox -s demo -- --backend jax`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--backend", default="torch")  # named as the extra that it needs
    chosen, _ = parser.parse_known_args(session.posargs)
    if chosen.backend == "keras":  # on TensorFlow, which for the CPU alone is another package
        install(session, ".[cli,plot]", group="tf-test")
    else:
        install(session, f".[{chosen.backend},cli,plot]", group="demo")
    session.run("cosanneal", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, beside the peers; `nox -s bench -- NAME` runs one of them."""
    install(session, ".[torch,jax,cli,plot]", group="bench")
    install(session, "--no-deps", "timm", "torchensemble")  # theirs would be torchvision
    session.run("python", "-m", "benchmarks.runner", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel, installed by itself: imported bare, then the README's code is run."""
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    install(session, "build")
    session.run("python", "-m", "build", "--outdir", str(dist))
    (wheel,) = dist.glob("*.whl")
    install(session, str(wheel))
    tests = Path("tests/readme").resolve()
    with tempfile.TemporaryDirectory() as elsewhere, session.chdir(elsewhere):
        session.run("python", "-c", "import cosanneal; print(cosanneal.__version__)")
        session.run("cosanneal", "--version", success_codes=[1])  # the cli extra is missing
    install(session, f"{wheel}[torch]", group="core-test")
    session.run("pytest", str(tests), *session.posargs)
