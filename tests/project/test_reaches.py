"""Reaches for other objects' private names are found, however they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.house.reaches import found
from tests.project.house.trees import write

EQUAL = "def __eq__(self, other): return self._x == other._x"


def reaches(
    code: str, tmp_path: Path, allowed: dict[tuple[str, str], str] | None = None
) -> list[str]:
    source = write(tmp_path / "cosanneal", {"core/a.py": code, "core/b.py": ""})
    return found(source, allowed or {})


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n  def f(self): self._x = self._y; del self._z; self._f()",
        "class A:\n  @classmethod\n  def f(cls): return cls._x",
        "class A(B):\n  def f(self): super()._f(); super(A, self)._f()",
        "class A:\n  def f(self):\n    def g(): return [self._x for _ in range(3)]",
        "class A:\n  def f(self): return getattr(self, '_x', 1), vars(self)['_x'], self.__dict__",
        "class A:\n  def f(self): object.__setattr__(self, '_x', 1)",
        f"class A:\n  def __init__(self): self._x = 1\n  {EQUAL}",
        f"class A:\n  __slots__ = ('_x',)\n  {EQUAL}",
        f"class A:\n  _x: int = 0\n  {EQUAL}",
        f"class A:\n  def _x(self): ...\n  {EQUAL}",
        f"class A:\n  def __init__(self): object.__setattr__(self, '_x', 1)\n  {EQUAL}",
        f"class B:\n  _x = 1\nclass A(B):\n  {EQUAL}",
        "class A:\n  _x = 1\n  def f(self, other: 'A | None'): return other._x",
        "class A:\n  _x = 1\n  def f(self, other: object): return other._x",
        "class A:\n  _x = 1\n  def f(self): return type(self)._x, A._x, self.__class__._x",
        "a.__name__, a.__dict__, a.x_, a._, getattr(a, '__len__'), getattr(a, n)",
        "_x = 1\ndef _f(): return _x\n_f()",
        "from .b import x as _x\nfrom __future__ import annotations\nfrom . import b as _b",
        "'a._x'  # a._x",
        "row._replace(x=1), Row._fields, row._asdict()",
        "f(_x=1)",
    ],
)
def test_a_file_that_keeps_to_itself_is_let_pass(code: str, tmp_path: Path) -> None:
    assert reaches(code, tmp_path) == []


@pytest.mark.parametrize(
    ("code", "reach"),
    [
        ("a._x", "a._x"),
        ("a._x = 1", "a._x"),
        ("del a.b._x", "a.b._x"),
        ("a._f()", "a._f"),
        ("a._x += 1", "a._x"),
        ("f()[0]._x.y", "f()[0]._x"),
        ("a.__x", "a.__x"),
        ("self._x", "self._x"),  # outside of a class self is anybody
        ("def f(self): return self._x", "self._x"),
        ("lambda a: a._x", "a._x"),
        ("class A:\n  def f(self): return self.other._x", "self.other._x"),
        ("class A:\n  def f(self): return super().f()._x", "super().f()._x"),
        ("class A:\n  def f(self, other): return other._x", "other._x"),
        ("class A:\n  _x = 1\n  def f(self): return self.b._x", "self.b._x"),
        ("class A:\n  _x = 1\n  def f(self, b: B): return b._x", "b._x"),
        ("class A:\n  _x = 1\nclass B:\n  def f(self, a): return a._x", "a._x"),
        ("class A:\n  __slots__ = ()\n  y = '_x'\n  def f(self, a): return a._x", "a._x"),
        ("class A:\n  def f(self, a): a._x = 1; self.y = 1", "a._x"),
        ("getattr(a, '_x')", "a._x"),
        ("getattr(a, '_x', None)", "a._x"),
        ("setattr(a.b, '_x', 1)", "a.b._x"),
        ("hasattr(a, '_x')", "a._x"),
        ("delattr(a, '_x')", "a._x"),
        ("object.__setattr__(a, '_x', 1)", "a._x"),
        ("a.__setattr__('_x', 1)", "a._x"),
        ("vars(a)['_x'] = 1", "a._x"),
        ("vars(a).get('_x')", "a._x"),
        ("a.__dict__.pop('_x')", "a._x"),
        ("'_x' in vars(a)", "a._x"),
        ("operator.attrgetter('b._x')", "_x"),
        ("from .b import _x", "cosanneal.core.b._x (an import)"),
        ("def f():\n  from .b import x, _x as y", "cosanneal.core.b._x (an import)"),
        ("from ._b import x", "cosanneal.core._b.x (an import)"),
        ("from . import b\nb._x()", "b._x"),
        ("import torch._dynamo", "torch._dynamo (an import)"),
        ("import numpy as np\nnp._core", "np._core"),
    ],
)
def test_a_reach_is_found(code: str, reach: str, tmp_path: Path) -> None:
    (line,) = reaches(code, tmp_path)
    assert line.startswith("cosanneal.core.a:")
    assert line.endswith(f" reaches for {reach}")


def test_a_framework_s_name_may_be_allowed_where_it_is_used(tmp_path: Path) -> None:
    allowed = {("core.a", "_x"): "no public name"}
    assert reaches("a._x; b._x; getattr(c, '_x')", tmp_path, allowed) == []
    assert reaches("from b import _x", tmp_path, {("core", "_x"): "no public name"}) == []
    assert len(reaches("a._y; a._x", tmp_path, allowed)) == 1
    assert len(reaches("a._x", tmp_path, {("core.b", "_x"): "", ("cor", "_x"): ""})) == 3


def test_what_is_allowed_and_not_used_is_found(tmp_path: Path) -> None:
    code = "class A:\n  def f(self): return self._x"
    assert reaches(code, tmp_path, {("core", "_x"): "no public name"}) == [
        "nothing in core reaches for _x any more"
    ]
