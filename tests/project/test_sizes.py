"""What is too long is found, and no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.house.sizes import found
from tests.project.house.trees import write


def body(lines: int, indent: int = 4) -> str:
    return "\n".join([" " * indent + "pass"] * lines)


def methods(count: int, form: str = "    def f{}(self): ...") -> str:
    return "class A:\n" + "\n".join(form.format(number) for number in range(count))


def sizes(code: str, tmp_path: Path, exceptions: dict[str, str] | None = None) -> list[str]:
    return found(write(tmp_path / "cosanneal", {"core/a.py": code}), exceptions or {})


@pytest.mark.parametrize(
    "code",
    [
        body(550, 0),
        "class A:\n" + body(299),
        methods(25),
        methods(25) + "\n    x = 1\n    lambda: 1",
        methods(26, "    @x.setter\n    def x(self, value): ..."),  # one name
        methods(20)
        + "\n    def g(self):\n"
        + "\n".join(f"        def h{i}(): ..." for i in range(9)),
        "def f():\n" + body(89),
        'def f():\n    """One.\n' + "\n" * 200 + '    """\n' + body(89),
        "@x\n" * 20 + "def f():\n" + body(89),
    ],
)
def test_what_is_as_long_as_it_may_be_is_let_pass(code: str, tmp_path: Path) -> None:
    assert sizes(code, tmp_path) == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (body(551, 0), " has 551 lines; a file may have 550"),
        ("class A:\n" + body(300), ":A has 301 lines; a class may have 300"),
        (
            'class A:\n    """One.\n    """\n    def f(self):\n        """Two."""\n' + body(299),
            ":A has 301 lines; a class may have 300",
        ),
        (methods(26), ":A has 26 methods; a class may have 25"),
        (methods(26, "    async def f{}(self): ..."), ":A has 26 methods; a class may have 25"),
        (
            methods(26, "    if True:\n        def f{}(self): ..."),
            ":A has 26 methods; a class may have 25",
        ),
        ("def f():\n" + body(90), ":f has 91 lines; a function may have 90"),
        ("async def f():\n" + body(90), ":f has 91 lines; a function may have 90"),
        ('def f():\n    """One."""\n' + body(90), ":f has 91 lines; a function may have 90"),
        ("if True:\n    def f():\n" + body(90, 8), ":f has 91 lines; a function may have 90"),
        (
            "class A:\n    class B:\n        def f(self):\n" + body(90, 12),
            ":A.B.f has 91 lines; a function may have 90",
        ),
    ],
)
def test_what_is_too_long_is_found(code: str, fault: str, tmp_path: Path) -> None:
    assert sizes(code, tmp_path) == [f"cosanneal.core.a{fault}"]


def test_an_exception_is_let_pass_while_it_is_needed(tmp_path: Path) -> None:
    exceptions = {"cosanneal.core.a:f": "one table"}
    assert sizes("def f():\n" + body(90), tmp_path, exceptions) == []
    assert sizes("def g():\n" + body(90), tmp_path, exceptions) == [
        "cosanneal.core.a:g has 91 lines; a function may have 90",
        "cosanneal.core.a:f is no longer too long",
    ]
