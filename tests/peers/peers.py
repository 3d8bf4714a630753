"""How the peers are reached, and how their values are compared with ours."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import torch

from cosanneal import Schedule

# The relative error of one rounding.
U64 = 2.0**-53
U32 = 2.0**-24


def bare(module: str, **stand_ins: dict[str, object]) -> Any:
    """A peer's module without the `__init__` of its packages, which would import much more.

    `stand_ins` gives attributes to those empty packages, by name with `__` for dots.
    """
    parents = module.split(".")[:-1]
    names = [".".join(parents[: i + 1]) for i in range(len(parents))]
    names += [name for given in stand_ins if (name := given.replace("__", ".")) not in names]
    spec = find_spec(names[0])
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(next(iter(spec.submodule_search_locations)))
    known = {name for name in sys.modules if name.split(".")[0] == names[0]}
    held = {name: sys.modules.pop(name) for name in known}
    try:
        for name in names:
            package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            vars(package).update(stand_ins.get(name.replace(".", "__"), {}))
            sys.modules[name] = package
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == names[0]]:
            del sys.modules[name]
        sys.modules.update(held)


def functions_of(package: str, path: str, names: Sequence[str], **given: object) -> dict[str, Any]:
    """Single functions of a peer's file, run from its source with only `given` in scope."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(next(iter(spec.submodule_search_locations)), path)
    tree = ast.parse(file.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    assert sorted(n.name for n in tree.body if isinstance(n, ast.FunctionDef)) == sorted(names)
    scope: dict[str, Any] = dict(given)
    exec(compile(tree, str(file), "exec"), scope)  # noqa: S102 - the peer's own source
    return scope


def optimizer(lr: float) -> torch.optim.Optimizer:
    """An optimizer whose steps do nothing."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


@contextmanager
def float64() -> Iterator[None]:
    """JAX and Keras compute in float64."""
    import keras

    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with jax.enable_x64(True):
            yield
    finally:
        keras.config.set_floatx(floatx)


def cosine_error(
    amplitude: float, peak: float, *, angle: float, u: float = U64, roundings: float = 3
) -> float:
    """The most that a peer's `floor + amplitude * (1 + cos(pi * x)) / 2` can be off.

    Its angle carries `angle` roundings of relative size `u` on a value of at
    most pi, and the rounding of pi itself (0.4 u); the cosine, whose slope is at
    most 1, carries that over. The cosine's own error is at most an ulp (2 u
    below 1), and so is that of the sum, which is at most 2. Both are absolute:
    near the end, where the sum is close to 0, they are all there is. `roundings`
    further operations act on values of at most `peak`.
    """
    return u * (amplitude / 2 * ((angle + 0.4) * 3.15 + 4) + roundings * peak)


def our_error(rate: float) -> float:
    """8 ulp, an ulp being at most 2 u."""
    return 16 * U64 * rate


@dataclass
class Seen:
    """What the comparisons of one test came to."""

    steps: int = 0
    defects: int = 0
    share: float = 0.0  # the largest deviation, as a share of its bound
    ulps: float = 0.0  # the largest deviation, in ulps of the schedule's peak


SEEN: dict[str, Seen] = {}


class Comparison:
    """Ours against a peer's values, step for step; remembers what it saw."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.defects: list[int] = []
        self._seen = SEEN.setdefault(
            os.environ.get("PYTEST_CURRENT_TEST", "").split("[")[0], Seen()
        )

    def __call__(
        self,
        values: Sequence[float],
        bound: Callable[[int], float] | float,
        *,
        first: int = 0,
        defect: Callable[[int], float | None] = lambda _: None,
    ) -> None:
        """Every value must be ours within `bound`, or the defect's.

        `defect(step)` is what the peer gives instead where a known defect may
        strike, by a criterion that the test derives; None where it cannot.
        """
        assert len(values) > 0
        self._peak = max(map(self.schedule.rate, range(first, first + len(values))))
        for step, value in enumerate(values, first):
            ours = self.schedule.rate(step)
            allowed = (bound if isinstance(bound, float) else bound(step)) + our_error(ours)
            off = abs(value - ours)
            if off > allowed:
                instead = defect(step)
                assert instead is not None, (self.schedule, step, ours, value, off, allowed)
                assert abs(value - instead) <= allowed, (step, ours, value, instead, allowed)
                self.defects.append(step)
                self._seen.defects += 1
            elif allowed:
                self._seen.steps += 1
                self._seen.share = max(self._seen.share, off / allowed)
                self._seen.ulps = max(self._seen.ulps, off / (2 * U64 * self._peak))
