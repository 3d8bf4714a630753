"""The scans, their split and their order."""

from __future__ import annotations

import numpy as np

from cosanneal.demo import digits


def test_the_parts_share_no_scan_and_change_with_the_seed() -> None:
    split, other = digits.split_digits(0), digits.split_digits(1)
    parts = [split.train, split.validation, split.test]
    assert sum(map(len, parts)) == 1797
    assert (len(split.train), len(split.validation)) == (digits.TRAIN, digits.VALIDATION)
    # Scans that are equal to the last pixel are rare in the data; indices would not show.
    seen = [{scan.tobytes() for scan in part.x} for part in parts]
    total = len(set.union(*seen))
    assert sum(map(len, seen)) == total
    assert not np.array_equal(split.train.x, other.train.x)
    assert split.train.x.shape[1:] == (8, 8)
    assert 0 <= split.train.x.min() < split.train.x.max() <= 1


def test_every_epoch_sees_every_scan_once_in_a_new_order() -> None:
    order = digits.batch_order(3, samples=60, batch_size=20, updates=8)
    assert order.shape == (8, 20)
    first, second = order[:3].ravel(), order[3:6].ravel()
    assert sorted(first) == sorted(second) == list(range(60))
    assert not np.array_equal(first, second)
    assert not np.array_equal(order, digits.batch_order(4, samples=60, batch_size=20, updates=8))
