"""The papers, and code that cannot be installed: compared with independent transcriptions.

Each transcription follows the equation or the source line by line, in the
form in which it stands there (1 + cos, counters, modulo), and not ours.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest

from cosanneal import presets

from .peers import Comparison, cosine_error

SETS = range(24)


def test_snapshot_ensembles_is_the_papers_equation_2() -> None:
    """Transcribed from the paper: t counts from 1."""
    for case in SETS:
        draw = random.Random(f"paper {case}")
        m = draw.randint(1, 12)
        total = draw.randint(m, 400)
        alpha = 10 ** draw.uniform(-4, 1)
        compare = Comparison(presets.snapshot_ensembles(T=total, M=m, alpha_0=alpha))
        ceil = math.ceil(total / m)
        values = [
            alpha / 2 * (math.cos(math.pi * ((t - 1) % ceil) / ceil) + 1)
            for t in range(1, total + 2 * ceil + 1)
        ]
        # The angle: a product and a quotient.
        compare(values, cosine_error(alpha, alpha, angle=2))


@pytest.mark.parametrize(("total", "m", "complete"), [(9, 7, 4), (100, 4, 4), (10, 4, 3)])
def test_snapshot_ensembles_complete_cycles(total: int, m: int, complete: int) -> None:
    schedule = presets.snapshot_ensembles(T=total, M=m, alpha_0=0.1)
    assert len(schedule.cycle_ends(total)) == complete


def lua_learning_rate_cosine(
    epoch: int, iteration: int, batches: int, *, epochs: int, cycles: int, lr: float
) -> float:
    """Transcribed from train.lua of gaohuang/SnapshotEnsemble; both counters count from 1."""
    sub = math.floor(epochs / cycles)
    last = epochs - (cycles - 1) * sub
    current = last if epoch > (cycles - 1) * sub else sub
    t_cur = ((epoch - 1) % current) * batches + iteration
    return 0.5 * lr * (1 + math.cos(math.pi * t_cur / (current * batches)))


def test_snapshot_ensembles_lua_is_the_authors_code() -> None:
    """Transcribed from the Lua source, which runs on Torch 7 only."""
    joined = 0
    for case in SETS:
        draw = random.Random(f"lua {case}")
        cycles = draw.randint(1, 7)
        epochs = draw.randint(cycles, 40)
        batches = draw.randint(1, 9)
        lr = 10 ** draw.uniform(-4, 1)
        schedule = presets.snapshot_ensembles_lua(epochs, cycles, batches, lr)
        compare = Comparison(schedule)
        sub = epochs // cycles
        left = epochs - (cycles - 1) * sub
        joined += (cycles - 1) * sub % left > 0
        values = [
            lua_learning_rate_cosine(epoch, iteration, batches, epochs=epochs, cycles=cycles, lr=lr)
            for epoch in range(1, epochs + 2 * left + 1)
            for iteration in range(1, batches + 1)
        ]
        compare(values, cosine_error(lr, lr, angle=2))
        assert schedule.rate(sub * batches - 1) == 0
    assert joined > 3, "too few runs whose last cycle is joined on its way"


def sgdr_rates(eta_max: float, eta_min: float, t_0: float, t_mult: float) -> Iterator[float]:
    """Transcribed from SGDR, section 3: T_cur counts what has passed since the last restart."""
    t_i, began = t_0, 0.0
    for t in itertools.count():
        while t - began >= t_i:
            began += t_i
            t_i *= t_mult
        yield eta_min + 0.5 * (eta_max - eta_min) * (1 + math.cos((t - began) / t_i * math.pi))


def test_sgdr_is_the_papers_equation_5() -> None:
    """Transcribed from the paper; dyadic lengths and factors, so that its restarts are exact."""
    for case in SETS:
        draw = random.Random(f"sgdr {case}")
        t_0 = draw.choice([draw.randint(1, 40), draw.randint(8, 320) / 8])
        t_mult = draw.choice([1, 2, 3, 1.5, 1.25])
        eta_max = 10 ** draw.uniform(-4, 1)
        eta_min = draw.choice([0.0, eta_max * draw.random()])
        schedule = presets.sgdr(eta_max, t_0, t_mult, eta_min)
        values = itertools.islice(
            sgdr_rates(eta_max, eta_min, t_0, t_mult), schedule.cycles()[4].stop
        )
        Comparison(schedule)(list(values), cosine_error(eta_max - eta_min, eta_max, angle=2))


def keras_contrib_rate(t: int, *, nb_epochs: int, nb_snapshots: int, init_lr: float) -> float:
    """Transcribed from keras_contrib/callbacks/snapshot.py."""
    inner = math.pi * (t % (nb_epochs // nb_snapshots))
    inner /= nb_epochs // nb_snapshots
    return float(init_lr / 2 * (math.cos(inner) + 1))


def test_keras_contrib_snapshot_is_its_code() -> None:
    """Transcribed from the source, which imports a Keras of long ago."""
    for case in SETS:
        draw = random.Random(f"keras_contrib {case}")
        snapshots = draw.randint(1, 9)
        epochs = draw.randint(snapshots, 300)
        lr = 10 ** draw.uniform(-4, 1)
        length = epochs // snapshots
        values = [
            keras_contrib_rate(t, nb_epochs=epochs, nb_snapshots=snapshots, init_lr=lr)
            for t in range(epochs + 2 * length)
        ]
        compare = Comparison(presets.keras_contrib_snapshot(epochs, snapshots, lr))
        compare(values, cosine_error(lr, lr, angle=2))
