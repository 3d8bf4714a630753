"""What is told to the system and asked of it: its answers are true, and none is needed."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import pytest

from cosanneal.snapshots import disk
from cosanneal.snapshots.disk import begin_writing, is_cached, reserve

SIZE = (1 << 20) + 5

RELEASE = [int(each) for each in re.findall(r"\d+", platform.release())[:2]]

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these calls")


def in_memory(descriptor: int) -> bool:
    """Whether every page is, by reads that wait for no disk."""
    try:
        starts = range(0, SIZE, 4096)
        flags = os.RWF_NOWAIT
        return all(os.preadv(descriptor, [bytearray(1)], at, flags) == 1 for at in starts)
    except BlockingIOError:
        return False
    except OSError as error:
        pytest.skip(f"the file system has no such read: {error}")


@linux
@pytest.mark.skipif(RELEASE < [6, 5], reason="the call came with 6.5")
def test_what_is_in_memory_is_known_by_every_page(tmp_path: Path) -> None:
    with (tmp_path / "data").open("w+b") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        at = file.fileno()
        os.fsync(at)
        assert (is_cached(at, SIZE), in_memory(at)) == (True, True)
        assert not is_cached(at, SIZE + (1 << 16))  # which the file does not have
        os.posix_fadvise(at, 1 << 19, 1 << 17, os.POSIX_FADV_DONTNEED)
        assert is_cached(at, SIZE) == in_memory(at)
        assert is_cached(at, 1 << 18)
        os.posix_fadvise(at, 0, 0, os.POSIX_FADV_DONTNEED)
        assert is_cached(at, SIZE) == in_memory(at)


@linux
def test_reserved_bytes_are_zero_and_are_there(tmp_path: Path) -> None:
    with (tmp_path / "data").open("w+b") as file:
        reserve(file.fileno(), SIZE)
        there = os.fstat(file.fileno())
        assert (there.st_size, there.st_blocks * 512 >= SIZE) == (SIZE, True)
        begin_writing(file.fileno(), 0, SIZE)
        assert file.read() == bytes(SIZE)


def test_what_cannot_be_done_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in (disk._KNOWN, False):
        monkeypatch.setattr(disk, "_KNOWN", known)
        reader, writer = os.pipe()  # which has no place for bytes to be
        os.close(reader)
        for at in (writer, 1 << 20):  # nor is that a file
            reserve(at, SIZE)
            begin_writing(at, 0, SIZE)
            assert not is_cached(at, SIZE)
        os.close(writer)
    with (tmp_path / "data").open("w+b") as file:
        reserve(file.fileno(), SIZE)
        assert os.fstat(file.fileno()).st_size == 0
