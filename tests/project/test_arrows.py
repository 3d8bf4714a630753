"""Which part of the library may import which: the arrows run one way."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.project.house.arrows import PARTS, ROOMS, found
from tests.project.house.trees import write

FILES = (
    *(f"{part}/some.py" for part in PARTS if part != "root"),
    *(f"adapters/{name}/some.py" for name in ("torch", "keras", "jax")),
    *(f"ensemble/{room}/some.py" for room in ("score", "predict", "choose", "weights")),
    *("ensemble/arrays.py", "ensemble/model.py", "ensemble/ensemble.py", "ensemble/results.py"),
    *("ensemble/members.py", "ensemble/score/analysis.py", "ensemble/choose/choice.py"),
    *("ensemble/predict/batches.py", "ensemble/predict/pooling.py", "ensemble/predict/modes.py"),
    *(f"ensemble/weights/{name}.py" for name in ("moments", "barrier", "averaging")),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A library of empty parts, without a forbidden arrow."""
    source = write(tmp_path / "cosanneal", dict.fromkeys(FILES, ""))
    write(source, {"__init__.py": "from .core.some import thing\n__version__ = '1'\n"})
    assert found(source) == []
    return source


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("snapshots/some.py", "from ..core.some import thing"),
        ("snapshots/some.py", "from .. import __version__"),
        ("snapshots/some.py", "import numpy, safetensors.numpy"),
        ("snapshots/__init__.py", "from .some import thing"),
        ("ensemble/some.py", "from cosanneal.snapshots.some import thing"),
        ("ensemble/some.py", "from cosanneal import Schedule"),
        ("adapters/torch/some.py", "import torch\nfrom ...ensemble import some"),
        ("adapters/torch/some.py", "from . import model"),
        ("adapters/torch/some.py", "from ...presets import thing"),
        ("adapters/torch/__init__.py", "from .some import thing"),
        ("adapters/jax/some.py", "import jax.numpy, optax\nfrom jax import lax"),
        ("report/some.py", "from ..ensemble.some import thing"),
        ("demo/some.py", "from ..adapters.torch import thing\nfrom ..report import some"),
        ("cli/some.py", "def f():\n    from ..demo import some\n    import torch"),
        ("study/some.py", "from ..ensemble import thing\nfrom ..report import some"),
        ("cli/some.py", "from ..study import some"),
        ("core/some.py", "from . import errors\nimport math, collections.abc"),
        ("presets/some.py", "from ..core.some import thing\nimport math"),
        ("__init__.py", "from . import presets"),
        ("__main__.py", "from .cli import some"),
        ("cli/some.py", "import importlib\nimportlib.import_module(f'.{name}', __package__)"),
        ("ensemble/score/some.py", "from ..arrays import thing\nfrom . import other"),
        ("ensemble/choose/some.py", "from ..score.some import thing"),
        ("ensemble/model.py", "from .predict.batches import thing"),
        ("ensemble/members.py", "from .choose.choice import thing\nfrom .model import other"),
        ("ensemble/predict/modes.py", "from ..members import thing\nfrom ..model import other"),
        ("ensemble/weights/averaging.py", "from ..members import x\nfrom ..predict import some"),
        ("ensemble/weights/barrier.py", "from .some import thing"),
        ("ensemble/score/analysis.py", "from ..choose.some import thing"),
        ("ensemble/ensemble.py", "from .weights import some\nfrom .choose.some import thing"),
        ("ensemble/results.py", "from .ensemble import thing\nfrom .score.analysis import other"),
        ("ensemble/__init__.py", "from .results import thing\nfrom .ensemble import other"),
        ("report/some.py", "from ..ensemble.score.some import thing"),
    ],
)
def test_an_allowed_arrow_is_let_pass(tree: Path, file: str, code: str) -> None:
    (tree / file).write_text(code)
    assert found(tree) == []


@pytest.mark.parametrize(
    ("file", "code", "target"),
    [
        ("core/some.py", "import cosanneal.snapshots", "cosanneal.snapshots"),
        ("core/some.py", "from ..snapshots.some import thing", "cosanneal.snapshots.some"),
        ("core/some.py", "from .. import snapshots", "cosanneal.snapshots"),
        ("core/some.py", "from cosanneal import Schedule", "cosanneal"),
        ("core/some.py", "import numpy as np", "numpy"),
        ("core/__init__.py", "from ..cli import some", "cosanneal.cli.some"),
        ("__init__.py", "from .snapshots import some", "cosanneal.snapshots.some"),
        ("__init__.py", "import numpy", "numpy"),
        ("snapshots/some.py", "from cosanneal.ensemble import thing", "cosanneal.ensemble"),
        ("snapshots/some.py", "def f():\n    from ..ensemble import x", "cosanneal.ensemble"),
        ("snapshots/some.py", "import torch.nn", "torch.nn"),
        ("ensemble/some.py", "from ..adapters.torch import x", "cosanneal.adapters.torch"),
        ("ensemble/some.py", "if 1:\n  try:\n    import jax\n  except E: pass", "jax"),
        (
            "ensemble/some.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..report import some",
            "cosanneal.report.some",
        ),
        ("adapters/torch/some.py", "from ..keras.some import x", "cosanneal.adapters.keras.some"),
        ("adapters/torch/some.py", "from .. import keras", "cosanneal.adapters.keras"),
        ("adapters/torch/some.py", "import cosanneal.adapters.keras", "cosanneal.adapters.keras"),
        ("adapters/__init__.py", "from .torch import x", "cosanneal.adapters.torch"),
        ("adapters/torch/some.py", "from ...report import some", "cosanneal.report.some"),
        ("adapters/jax/some.py", "from torch import Tensor", "torch"),
        ("adapters/jax/some.py", "def f():\n    import flax.linen", "flax.linen"),
        ("adapters/__init__.py", "import torch", "torch"),
        ("report/some.py", "from cosanneal.adapters import torch", "cosanneal.adapters.torch"),
        ("study/some.py", "import torch", "torch"),
        ("study/some.py", "from ..adapters.torch import some", "cosanneal.adapters.torch.some"),
        ("demo/some.py", "class A:\n    def f(s):\n        import cosanneal.cli", "cosanneal.cli"),
        (
            "core/some.py",
            "import importlib\nimportlib.import_module('cosanneal.cli')",
            "cosanneal.cli",
        ),
        ("core/some.py", "__import__('cosanneal.cli.some')", "cosanneal.cli.some"),
        ("core/some.py", "import_module(f'..cli.{name}', p)", "cosanneal.cli.some"),
        ("core/some.py", "import_module(f'cosanneal.cli.{name}')", "cosanneal.cli.some"),
        ("core/some.py", "import_module(name)", "what cannot be told"),
        ("core/some.py", "from ..presets.some import thing", "cosanneal.presets.some"),
        ("presets/some.py", "from .. import __version__", "cosanneal"),
        ("presets/some.py", "import numpy", "numpy"),
        ("snapshots/some.py", "from ..presets import some", "cosanneal.presets.some"),
        ("ensemble/some.py", "import keras", "keras"),
        ("ensemble/arrays.py", "from .score.some import x", "cosanneal.ensemble.score.some"),
        ("ensemble/score/some.py", "from ..choose import some", "cosanneal.ensemble.choose.some"),
        ("ensemble/score/some.py", "from .analysis import x", "cosanneal.ensemble.score.analysis"),
        ("ensemble/score/some.py", "from .. import thing", "cosanneal.ensemble"),
        ("ensemble/score/some.py", "from ..some import thing", "cosanneal.ensemble.some"),
        ("ensemble/model.py", "from .weights.some import x", "cosanneal.ensemble.weights.some"),
        ("ensemble/predict/batches.py", "from ..model import x", "cosanneal.ensemble.model"),
        ("ensemble/predict/some.py", "from ..choose import some", "cosanneal.ensemble.choose.some"),
        ("ensemble/weights/some.py", "from ..ensemble import x", "cosanneal.ensemble.ensemble"),
        ("ensemble/weights/some.py", "from ..members import x", "cosanneal.ensemble.members"),
        (
            "ensemble/weights/some.py",
            "from .barrier import x",
            "cosanneal.ensemble.weights.barrier",
        ),
        ("ensemble/choose/some.py", "from .choice import x", "cosanneal.ensemble.choose.choice"),
        ("ensemble/predict/some.py", "from ..members import x", "cosanneal.ensemble.members"),
        ("ensemble/members.py", "from .predict.modes import x", "cosanneal.ensemble.predict.modes"),
        (
            "core/some.py",
            "A = {1: 'cli.some'}\nimport_module(f'..{A[k]}', p)",
            "cosanneal.cli.some",
        ),
        ("core/some.py", "A = {1: f()}\nimport_module(f'..cli.{A[k]}', p)", "cosanneal.cli.some"),
        (
            "ensemble/weights/some.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .. import ensemble",
            "cosanneal.ensemble.ensemble",
        ),
        ("ensemble/ensemble.py", "from .results import x", "cosanneal.ensemble.results"),
    ],
)
def test_a_forbidden_arrow_is_found(tree: Path, file: str, code: str, target: str) -> None:
    (tree / file).write_text(code)
    module = ".".join(("cosanneal", *Path(file.removesuffix("/__init__.py")).with_suffix("").parts))
    (arrow,) = found(tree)
    assert arrow.partition(":")[0] == module.removesuffix(".__init__")
    assert arrow.endswith(f" imports {target}")


def test_a_part_that_nobody_knows_is_found(tree: Path) -> None:
    write(tree, {"extra/__init__.py": ""})
    assert found(tree) == ["cosanneal.extra: no such part of the library is known"]


def test_a_nested_package_is_walked(tree: Path) -> None:
    deep = tree / "adapters" / "jax" / "inner"
    deep.mkdir()
    (deep / "some.py").write_text("from ... import torch\nfrom ....core import some\n")
    assert found(tree) == ["cosanneal.adapters.jax.inner.some:1 imports cosanneal.adapters.torch"]


def test_the_rooms_of_a_part_have_an_order() -> None:
    """No two may import each other, on however long a way."""
    for rooms in ROOMS.values():
        TopologicalSorter(rooms).prepare()
        assert {target for targets in rooms.values() for target in targets} <= rooms.keys()
