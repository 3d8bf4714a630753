"""Classes from fewer passes must be those of all passes; the adapters' own tests call these."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import SnapshotEnsemble
from cosanneal.ensemble.arrays import as_numpy
from tests.shared.modes import MODES, Loader


def passes_needed(members: Any, weights: Any) -> Any:
    """How many of `members`, of shape (members, samples, classes), decide each sample at least."""
    found = []
    for sample in np.swapaxes(np.asarray(members, float), 0, 1):
        for seen in range(1, len(weights) + 1):
            sums = sorted(np.tensordot(weights[:seen], sample[:seen], 1))
            if sums[-1] - sums[-2] > sum(weights[seen:]):
                break
        found.append(seen)
    return np.array(found)


def left_early(members: Any, weights: Any, care: float, first: Any = None) -> tuple[Any, Any]:
    """The class of each sample that leaves early, and how many members it had: a plain loop.

    Args:
        members: probabilities of shape (members, samples, classes).
        weights: of the members; heavier ones come first.
        care: below 1.
        first: all members, in the order in which equal ones come; by default the last first.
    """
    last_first = [*range(len(weights))] if first is None else [*first][::-1]
    counted = [i for i in range(len(weights)) if weights[i]]
    order = sorted(counted, key=lambda i: (weights[i], last_first.index(i)))
    classes, passes = [], []
    for sample in range(members.shape[1]):
        waiting, sums = list(order), [0.0] * members.shape[2]
        while waiting:
            member = waiting.pop()
            for k in range(len(sums)):
                sums[k] += weights[member] * float(members[member, sample, k])
            others = sorted(sums)
            if others[-1] - others[-2] >= care * sum(weights[each] for each in waiting):
                break
        classes.append(sums.index(max(sums)))
        passes.append(len(order) - len(waiting))
    return np.array(classes), np.array(passes)


def check_budget(ensemble: SnapshotEnsemble[Any], x: Any, y: Any, *, sizes: bool = False) -> None:
    """With a budget, in every mode the classes of a plain loop; and all of `predict` on demand.

    `sizes`: whether batches are cut to some sizes only.
    """
    members = np.stack([as_numpy(each) for each in ensemble.member_predictions(x)])
    budget, number = 1.0 + 0.25 * (len(ensemble) - 1), len(ensemble)
    with pytest.warns(UserWarning, match="validation samples"):
        choice = ensemble.fit(x, y, select="weights", budget=budget)
    assert choice.budget is not None
    uneven = (0.2, 0.0, 0.5, *[0.3 / (number - 3)] * (number - 3))
    for each in (
        choice,
        replace(choice, weights=uneven),
        replace(choice, weights=(1 / number,) * number),
    ):
        care = choice.care if each is choice else 0.3
        ensemble.choice = replace(each, budget=replace(choice.budget, care=care))
        classes, passes = left_early(members, each.weights, care, choice.budget.order)
        if each is choice:
            assert passes.mean() == pytest.approx(choice.budget.passes)
            assert np.mean(classes != as_numpy(y)) == pytest.approx(choice.budget.error)
        ensemble.predict_classes(x)  # the first time, samples are run both ways
        pooled = as_numpy(ensemble.predict(x))
        exact, probabilities = pooled.argmax(-1), np.sort(pooled, axis=-1)
        # Of two classes that differ by rounding, stacked members may have the other first.
        clear = probabilities[..., -1] - probabilities[..., -2] > 1e-5
        assert clear.mean() > 0.5
        for mode in MODES:
            for batch_size in (None, 7):
                found = ensemble.predict_classes(x, mode=mode, batch_size=batch_size)
                assert as_numpy(found).dtype.kind == "i"
                wanted, told = (exact, clear) if mode == "stacked" else (classes, clear | True)
                np.testing.assert_array_equal(as_numpy(found)[told], wanted[told])
                if mode != "stacked":  # batches are cut to few sizes, where each is compiled
                    assert passes.mean() - 1e-9 <= ensemble.passes <= passes.max()
                    assert ensemble.passes < passes.mean() + 1e-9 or sizes
                found = ensemble.predict_classes(x, exact=True, mode=mode, batch_size=batch_size)
                np.testing.assert_array_equal(as_numpy(found)[told], exact[told])
        assert passes.mean() < ensemble.passes
    ensemble.choice = None


def check_classes(ensemble: SnapshotEnsemble[Any], x: Any, y: Any) -> None:
    """In every mode the greatest of `predict`, before and after a choice; and how many passes."""
    members = np.stack([as_numpy(each) for each in ensemble.member_predictions(x)])
    count = len(ensemble)
    assert ensemble.passes == 0
    with pytest.warns(UserWarning, match="validation samples"):
        choice = ensemble.fit(x, y)
    # Out of their order, and one that is left out; at a temperature that flattens.
    uneven = (0.0, 0.2, 0.75, 0.05, *[0.0] * (count - 4))
    for each in (None, replace(choice, weights=uneven, temperature=1.7)):
        ensemble.choice = each
        weights = np.array([1.0] * count if each is None else sorted(uneven, reverse=True))
        order = np.argsort([0.0] * count if each is None else [-w for w in uneven], kind="stable")
        kept = weights > 0
        needed = passes_needed(members[order][kept], weights[kept])
        for mode in MODES:
            for batch_size in (None, 7):
                like = ensemble.predict(x, mode=mode, batch_size=batch_size)
                found = ensemble.predict_classes(x, mode=mode, batch_size=batch_size)
                assert type(found) is type(like)
                assert as_numpy(found).dtype.kind == "i"
                np.testing.assert_array_equal(as_numpy(found), as_numpy(like).argmax(-1))
                # What is near a tie is run once more.
                assert ensemble.passes <= 2 * kept.sum()
                assert ensemble.passes >= (kept.sum() if mode == "stacked" else needed.mean())
        loader = Loader(x, y, 16)
        found = ensemble.predict_classes(loader)
        np.testing.assert_array_equal(as_numpy(found), as_numpy(ensemble.predict(x)).argmax(-1))
        assert loader.passes <= 2 * kept.sum()
        (listed,) = ensemble.predict_classes(x, batch_size=16, ragged="list")
        np.testing.assert_array_equal(as_numpy(listed), as_numpy(found))
        once = ensemble.predict_classes(iter(Loader(x, y, 16)), mode="resident")
        np.testing.assert_array_equal(as_numpy(once), as_numpy(found))
        for mode in MODES:
            assert tuple(ensemble.predict_classes(x[:0], mode=mode).shape) == (0,)
            assert tuple(ensemble.predict(x[:0], mode=mode).shape) == (0, members.shape[-1])
        assert tuple(ensemble.predict_classes(x[:0]).shape) == (0,)
        assert ensemble.passes == 0
    # One member alone is enough, but where another class is as good as its own.
    ensemble.choice = replace(choice, weights=(1e-9,) * (count - 1) + (1.0,), temperature=1.0)
    order = np.argsort(-members[-1], axis=-1)
    found = ensemble.predict_classes(x, mode="resident")
    np.testing.assert_array_equal(as_numpy(found), order[:, 0])
    assert ensemble.passes == 1
    ensemble.choice = None
