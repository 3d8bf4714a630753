"""What Linux can be told and asked of an open file, that Python's `os` has no call for.

It is for speed alone: where a system or a file system has no such call, it is done without.
"""

from __future__ import annotations

import mmap
import platform
import sys
from typing import Any, Final

try:
    import ctypes
except ImportError:  # a Python that was built without it
    _KNOWN = False
else:
    # Of others, sizes have another width, or calls have other numbers.
    _MACHINES: Final = ("x86_64", "aarch64", "riscv64", "ppc64le")
    _KNOWN = sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in _MACHINES

_CACHESTAT: Final = 451
_BEGIN_WRITING: Final = 2  # SYNC_FILE_RANGE_WRITE


def reserve(descriptor: int, size: int) -> None:
    """Give a new file so many bytes at once, which are zero, where the file system can.

    It finds a place for all of them, and less is left to be done as they are written.
    Where there is no room, the writing will say so.
    """
    # Not `os.posix_fallocate`, which writes into every block where the file system cannot.
    _called("fallocate", descriptor, 0, _size(0), _size(size))


def begin_writing(descriptor: int, start: int, size: int) -> None:
    """Have so many bytes of a file, from there on, go to the disk, and do not wait for it.

    An `os.fsync` has less to do then. Without one, nothing is durable.
    """
    _called("sync_file_range", descriptor, _size(start), _size(size), _BEGIN_WRITING)


def is_cached(descriptor: int, size: int) -> bool:
    """Whether the first bytes of a file, so many, are in memory; False where it is not known.

    Source: Linux' `cachestat`, since 6.5.
    """
    if not _KNOWN:
        return False
    asked, pages = (ctypes.c_uint64 * 2)(0, size), (ctypes.c_uint64 * 5)()
    number = ctypes.c_long(_CACHESTAT)
    known = _called("syscall", number, descriptor, ctypes.byref(asked), ctypes.byref(pages), 0)
    return known and pages[0] * mmap.PAGESIZE >= size


def _called(name: str, *arguments: Any) -> bool:
    """Whether the system has a call of that name, which did what it should."""
    call = getattr(ctypes.CDLL(None), name, None) if _KNOWN else None
    return call is not None and call(*arguments) == 0


def _size(size: int) -> Any:
    return ctypes.c_int64(size) if _KNOWN else size
