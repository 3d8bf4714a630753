"""What a recorder has to say: once, by whoever looks, and nothing is lost on the way."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

import cosanneal as ca
from cosanneal.snapshots.notices import Notices


def test_an_error_is_raised_once_and_several_are_raised_together() -> None:
    notices = Notices("raise")
    notices.say()
    notices.fail(ca.SnapshotError("lost"))
    assert notices
    with pytest.raises(ca.SnapshotError, match="lost"):
        notices.say()
    assert not notices
    notices.say()
    notices.fail(ca.SnapshotError("one"))
    notices.fail(ca.SnapshotError("two"))
    with pytest.raises(ca.SnapshotError, match="one\ntwo"):
        notices.say()


def test_warnings_are_said_one_at_a_time_where_they_are_errors() -> None:
    notices = Notices("warn")
    notices.fail(ca.SnapshotError("one"))
    notices.warn("two")
    with pytest.raises(RuntimeWarning, match="one"):
        notices.say()
    with pytest.raises(UserWarning, match="two"):
        notices.say()
    notices.say()


def test_an_error_waits_for_a_warning_that_is_raised() -> None:
    notices = Notices("raise")
    notices.fail(ca.SnapshotError("lost"))
    notices.warn("not finite")
    with pytest.raises(UserWarning, match="not finite"):
        notices.say()
    with pytest.raises(ca.SnapshotError, match="lost"):
        notices.say()


def test_of_two_threads_that_look_one_says_it() -> None:
    notices = Notices("warn")
    for number in range(200):
        notices.warn(str(number))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=notices.say) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(int(str(each.message)) for each in said) == [*range(200)]


def test_what_nobody_asks_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices("raise")
    notices.fail(ca.SnapshotError("lost"))
    notices.warn("not finite")
    notices.log()
    assert [(each.levelno, each.message) for each in caplog.records] == [
        (logging.WARNING, "not finite"),
        (logging.ERROR, "lost"),
    ]
    assert not notices


def test_another_on_error_is_refused() -> None:
    with pytest.raises(ca.SnapshotError, match=r"`on_error` must be 'raise' or 'warn'.*='log'"):
        Notices("log")  # type: ignore[arg-type]
