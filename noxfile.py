"""The project's checks: `nox` runs the ordinary ones, `nox -s NAME` one of these or of the others.

Not among the ordinary ones are `gpu_...`, `clusters`, `kills...`, `minimums`, `demo`, `bench`,
`quality` and `tutorials`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.sessions = [
    *(
        "lint",
        "types",
        "public_types",
        "core",
        "torch",
        "jax",
        "tf",
        "keras",
        "parity",
        "peers",
        "engines",
    ),
    "browser",
    "build",
    "docs",
]
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")

# By session, where its tests stand. `torch` runs all that these leave, and `parity` by itself.
CORE_TESTS = ("tests/core", "tests/presets", "tests/test_init_purity.py")
JAX_TESTS = ("tests/adapters/jax", "tests/demo/test_jax_backend.py")
KERAS_TESTS = ("tests/adapters/keras", "tests/demo/test_keras_backend.py")
ENGINES_TESTS = (
    "tests/adapters/test_lightning.py",
    "tests/adapters/test_lightning_pages.py",
    "tests/adapters/test_transformers_pages.py",
    "tests/adapters/test_transformers.py",
    "tests/adapters/torch/test_parts.py",
    "tests/adapters/torch/test_ranks.py",
    "tests/adapters/torch/test_recorder_accelerate.py",
    "tests/adapters/torch/test_recorder_parts.py",
    "tests/adapters/torch/test_share.py",
    "tests/adapters/torch/test_shipped_runtimes.py",
)
OTHERS = (
    *CORE_TESTS,
    *JAX_TESTS,
    *KERAS_TESTS,
    *ENGINES_TESTS,
    "tests/browser",
    "tests/clusters",
    "tests/peers",
    "tests/readme",
)
TORCH_TESTS = tuple(f"--ignore={place}" for place in OTHERS)

# On all cores of small machines; a file's tests stay together, for the sake of what they share.
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")

# What `minimums` runs, by backend: the extras whose oldest versions it installs, the group that
# the tests need besides, and the tests.
MINIMUMS = {
    "cli": (
        *("cli,plot", "cli-test"),
        (
            *(*CORE_TESTS, "tests/cli", "tests/report", "--ignore=tests/cli/test_demo.py"),
            # These export models of torch's, or read a card as the hub does.
            *("--ignore=tests/cli/test_export.py", "--ignore=tests/cli/test_export_inputs.py"),
            *("--ignore=tests/cli/test_card.py", "--ignore=tests/report/test_card.py"),
        ),
    ),
    "torch": ("demo", "test", TORCH_TESTS),
    # Today's Haiku does without the oldest JAX.
    "jax": (
        *("jax,cli,plot", "jax-test"),
        (*JAX_TESTS, "--ignore=tests/adapters/jax/test_statistics_libraries.py"),
    ),
    "tf": ("tf,cli,plot", "tf-test", KERAS_TESTS),
}


def install(session: nox.Session, *packages: str, group: str | None = None) -> None:
    """Install at the versions that everything was tested with; nothing under `nox --no-venv`."""
    if session.virtualenv.venv_backend == "none":
        session.log("nothing is installed without a virtual environment: taken as it is")
        return
    wanted = [*packages, *(nox.project.dependency_groups(PROJECT, group) if group else ())]
    session.install("-c", "constraints.txt", *wanted)


def needs(extras: str) -> dict[str, Requirement]:
    """What some extras need, by name; those included that they take from other extras."""
    found: dict[str, Requirement] = {}
    for extra in extras.split(","):
        for text in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["project"]["name"]:
                found |= needs(",".join(requirement.extras))
            else:
                # TensorFlow for the CPU alone is a package of its own.
                name = re.sub("^tensorflow$", "tensorflow-cpu", requirement.name)
                found[name] = requirement
    return found


def oldest(extras: str) -> list[str]:
    """The oldest line of releases that extras admit: `torch>=2.4` gives `torch==2.4.*`."""
    pins = []
    for name, requirement in needs(extras).items():
        (bound,) = (each for each in requirement.specifier if each.operator == ">=")
        pins.append(f"{name}=={bound.version}.*")
    return pins


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
def public_types(session: nox.Session) -> None:
    """What another's type checker knows of the library (pyright)."""
    extras = "torch,jax,lightning,transformers,remote,cli,plot"
    install(session, f".[{extras}]", group="public-types")
    session.run("python", "tests/project/public_types.py")


@nox.session
def core(session: nox.Session) -> None:
    """The tests of the core and the presets, where no package is but what runs them."""
    install(session, ".", group="core-test")
    session.run("pytest", *PARALLEL, *CORE_TESTS, *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """All tests that need PyTorch, numpy, the command line or the plots."""
    install(session, ".[demo]", group="test")
    session.run("pytest", *PARALLEL, *TORCH_TESTS, *session.posargs)


@nox.session
def jax(session: nox.Session) -> None:
    """The adapter for JAX and Optax, and the demonstration in JAX."""
    install(session, ".[jax,cli,plot]", group="jax-test")
    session.run("pytest", *PARALLEL, *JAX_TESTS, *session.posargs)


def on_device(session: nox.Session, framework: str, **environment: str) -> None:
    """Run the tests of a framework that need a device, and fail where there is none."""
    files = sorted(map(str, Path("tests/gpu").glob(f"test_{framework}_*.py")))
    session.run("python", "-m", "pytest", "-m", "gpu", *files, *session.posargs, env=environment)


@nox.session
def gpu_torch(session: nox.Session) -> None:
    """What PyTorch does on a CUDA device."""
    install(session, ".[torch]", group="core-test")
    on_device(session, "torch")


@nox.session
def gpu_jax(session: nox.Session) -> None:
    """What JAX does on a device."""
    install(session, ".[jax]", group="gpu-jax")
    on_device(session, "jax")


@nox.session
@nox.parametrize("backend", ["tensorflow", "jax", "torch"])
def gpu_keras(session: nox.Session, backend: str) -> None:
    """What Keras does on a device, on each of its backends."""
    install(session, f".[{'tf' if backend == 'tensorflow' else backend}]", group="keras-test")
    if backend != "torch":  # which is for devices as it is
        install(session, group=f"gpu-{backend}")
    on_device(session, "keras", KERAS_BACKEND=backend)


@nox.session
def tf(session: nox.Session) -> None:
    """The adapter for Keras, on TensorFlow (which for the CPU alone is a package of its own)."""
    install(session, ".[cli,plot]", group="tf-test")
    env = {"KERAS_BACKEND": "tensorflow"}
    session.run("pytest", *PARALLEL, *KERAS_TESTS, *session.posargs, env=env)


@nox.session
@nox.parametrize("backend", ["jax", "torch"])
def keras(session: nox.Session, backend: str) -> None:
    """The adapter for Keras, on its other backends."""
    install(session, f".[{backend},cli,plot]", group="keras-test")
    env = {"KERAS_BACKEND": backend}
    session.run("pytest", *PARALLEL, *KERAS_TESTS, *session.posargs, env=env)


@nox.session
def parity(session: nox.Session) -> None:
    """The same schedules, snapshots and predictions in every framework."""
    install(session, ".[torch,jax]", group="tf-test")
    session.run("pytest", "tests/parity", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Every preset, and uncertainty, beside the libraries that have it too."""
    install(session, ".[torch]")
    install(session, group="peers")
    install(session, "--no-deps", group="peers-alone")
    session.run("pytest", *PARALLEL, "tests/peers", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """The trainers that people train with, runs on several processes, and ONNX Runtime."""
    install(session, ".[lightning,transformers,plot]", group="engines-test")
    session.run("pytest", *PARALLEL, *ENGINES_TESTS, *session.posargs)


@nox.session
def clusters(session: nox.Session) -> None:
    """DeepSpeed's engines, which compile an operation once (in C++), Ray and Dask."""
    install(session, ".[torch]", group="clusters")
    session.run("pytest", "tests/clusters", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """Training runs that are killed at random; which, and how often: `nox -s kills -- ddp`."""
    install(session, ".[lightning,transformers,remote]", group="clusters")
    kinds = ("torch", "lightning", "trainer", "deepspeed", "store")
    modules = [f"{kind}_engines" for kind in kinds]
    compiled = str(Path(session.create_tmp()) / "extensions")
    env = {"DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": compiled}
    session.run("python", "-m", "tests.kills", *(session.posargs or modules), env=env)


@nox.session
def kills_keras(session: nox.Session) -> None:
    """The same of JAX, and of Keras on each of its backends."""
    install(session, ".[torch,jax]", group="bench")
    modules = session.posargs or ("jax_engines", "keras_engines")
    session.run("python", "-m", "tests.kills", *modules)


@nox.session
def browser(session: nox.Session) -> None:
    """The report page in Chromium or Chrome, which must be installed or named by $CHROME."""
    install(session, ".[plot]", group="browser-test")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(python=PROJECT["project"]["requires-python"].removeprefix(">="))
@nox.parametrize("backend", ["cli", "torch", "jax", "tf"])
def minimums(session: nox.Session, backend: str) -> None:
    """The oldest versions that pyproject.toml admits; they are many gigabytes with PyTorch's."""
    extras, group, tests = MINIMUMS[backend]
    # The tests' own tools stay at their versions; all else is what fits the oldest.
    tools = {Requirement(tool).name for tool in PROJECT["dependency-groups"]["core-test"]}
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition("==")[0] in tools]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join([*kept, *oldest(extras)]) + "\n", encoding="utf-8")
    wanted = [*needs(extras), *nox.project.dependency_groups(PROJECT, group)]
    session.install("-c", str(constraints), *wanted)
    session.install("--no-deps", ".")
    session.run("pip", "list")
    # Of what is old and of what it needs, which is new, one may find the other out of date.
    quiet = ("-W", "ignore::DeprecationWarning")
    env = {"KERAS_BACKEND": "tensorflow"}
    session.run("pytest", *quiet, *tests, *session.posargs, env=env)


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
def quality(session: nox.Session) -> None:
    """The bench of ordinary tasks; arguments go to it: `nox -s quality -- score`."""
    install(session, ".[torch]", group="quality")
    session.run("python", "-m", "benchmarks.quality", *session.posargs)


@nox.session
def tutorials(session: nox.Session) -> None:
    """Run the tutorials in Jupyter and write their outputs: `nox -s tutorials -- from-scratch`."""
    install(session, ".[demo]", group="tutorials")
    session.run("python", "docs/run_tutorials.py", *session.posargs)


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


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/site: a broken link or an unknown name fails."""
    install(session, ".[torch,jax,lightning,transformers,cli,plot]", group="docs")
    pages = ("docs", "build/site")
    options = ("--builder", "html", "--fail-on-warning", "--keep-going", "--fresh-env")
    session.run("sphinx-build", *options, *session.posargs, *pages)
