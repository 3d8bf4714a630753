"""A file system of fsspec's, at faulty:///..., that fails as it is told to; of local files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import fsspec
from fsspec.implementations.local import LocalFileSystem

# What is done in place of a call: it is given the real one, and its arguments.
Fault: TypeAlias = Callable[..., Any]


class FaultyFileSystem(LocalFileSystem):  # type: ignore[misc]
    protocol = "faulty"
    cachable = False
    # By method, what the next calls do instead; and all calls there were, by method and name.
    faults: ClassVar[dict[str, list[Fault]]] = {}
    calls: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        # Older releases of fsspec know no other protocol of local files than their own.
        return super()._strip_protocol(str(path).removeprefix("faulty://"))

    def put_file(self, lpath: Any, rpath: Any, **options: Any) -> Any:
        return self.do("put_file", super().put_file, rpath, lpath, rpath, **options)

    def mv(self, path1: Any, path2: Any, **options: Any) -> Any:
        return self.do("mv", super().mv, path2, path1, path2, **options)

    def ls(self, path: Any, detail: bool = False, **options: Any) -> Any:
        return self.do("ls", super().ls, path, path, detail=detail, **options)

    def cat_file(self, path: Any, **options: Any) -> Any:
        return self.do("cat_file", super().cat_file, path, path, **options)

    def get_file(self, path1: Any, path2: Any, **options: Any) -> Any:
        return self.do("get_file", super().get_file, path1, path1, path2, **options)

    def rm_file(self, path: Any) -> Any:
        return self.do("rm_file", super().rm_file, path, path)

    def pipe_file(self, path: Any, value: Any, **options: Any) -> Any:
        return self.do("pipe_file", super().pipe_file, path, path, value, **options)

    @classmethod
    def do(cls, method: str, real: Fault, at: Any, *arguments: Any, **options: Any) -> Any:
        cls.calls.append((method, Path(str(at)).name))
        waiting = cls.faults.get(method, [])
        fault = waiting.pop(0) if waiting else None
        if fault is None:
            return real(*arguments, **options)
        return fault(real, *arguments, **options)

    @classmethod
    def reset(cls) -> None:
        cls.faults.clear()
        cls.calls.clear()

    @classmethod
    def count(cls, method: str, name: str | None = None) -> int:
        return sum(call[0] == method and name in (None, call[1]) for call in cls.calls)


def register() -> None:
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


def fail(*_: Any, **__: Any) -> None:
    raise ConnectionResetError("the line is dead")


def tear(real: Fault, lpath: str, rpath: str, **options: Any) -> None:
    """Half of what is put arrives."""
    real(lpath, rpath, **options)
    there = Path(rpath.removeprefix("faulty://"))
    there.write_bytes(there.read_bytes()[:-100])


def flip(real: Fault, lpath: str, rpath: str, **options: Any) -> None:
    """All of what is put arrives, but for one bit."""
    real(lpath, rpath, **options)
    there = Path(rpath.removeprefix("faulty://"))
    content = bytearray(there.read_bytes())
    content[-5] ^= 1
    there.write_bytes(content)


def lose(real: Fault, path1: str, path2: str, **_: Any) -> None:  # noqa: ARG001
    """What was put is gone before it has its name."""
    Path(path1.removeprefix("faulty://")).unlink()


def garble(real: Fault, path1: str, path2: str, **options: Any) -> None:
    """What is fetched arrives with one bit wrong."""
    real(path1, path2, **options)
    content = bytearray(Path(path2).read_bytes())
    content[-5] ^= 1
    Path(path2).write_bytes(content)
