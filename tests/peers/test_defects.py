"""What the peers get wrong, and what is right.

Each test has the peer's wrong value beside ours, and fails when the peer is
mended, so that what is said of it can be mended too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

from cosanneal import CyclicCosine, Schedule, ScheduleError, presets

from .peers import bare, float64, optimizer, rate_of

RESTARTS = keras.optimizers.schedules.CosineDecayRestarts


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Without PyTorch's warnings about step(epoch) and the order of calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def restarts(schedule: Schedule, count: int) -> list[int]:
    return [cycle.start for cycle in schedule.cycles()[1 : count + 1]]


def missed(schedule: Schedule, steps: list[int], rate: Callable[[int], Any]) -> list[int]:
    """The restarts at which the peer is at the floor; ours is at the peak at all."""
    assert all(schedule.rate(step) == 1.0 for step in steps)
    return [step for step in steps if float(torch.as_tensor(rate(step)).max()) < 1e-6]


def after_step(scheduler: CosineAnnealingWarmRestarts, epoch: int) -> float:
    scheduler.step(epoch)
    return rate_of(scheduler.optimizer)


class TestACycleFoundByAFloatLogarithm:
    """At an exact restart the logarithm of the cycle's number is rounded to just below it."""

    def test_torch(self) -> None:
        found = 0
        for t_0 in range(1, 60):
            ours = presets.torch_warm_restarts(1.0, t_0, 3)
            updater = optimizer(1.0)
            theirs = CosineAnnealingWarmRestarts(updater, t_0, 3)
            found += len(missed(ours, restarts(ours, 8), partial(after_step, theirs)))
        assert found > 50, "PyTorch finds its cycles otherwise"

    def test_keras(self) -> None:
        """In float32, as it is used."""
        found = 0
        for first in (10, 100, 1000):
            for t_mul in (2.0, 3.0, 1.5):
                ours = presets.keras_cosine_decay_restarts(1.0, first, t_mul)
                steps = [
                    cycle.start
                    for cycle in ours.cycles()[1:30]
                    if cycle.start < 2**24 and ours.rate(cycle.start) == 1.0
                ]
                found += len(missed(ours, steps, RESTARTS(1.0, first, t_mul)))
        assert found > 3, "Keras finds its cycles otherwise"

    def test_timm(self) -> None:
        timm = bare("timm.scheduler.cosine_lr")
        found = 0
        for t_initial in range(1, 60):
            ours = presets.timm_cosine(1.0, t_initial, cycle_mul=3.0, cycle_limit=9)
            theirs = timm.CosineLRScheduler(optimizer(1.0), t_initial, cycle_mul=3.0, cycle_limit=9)
            found += len(missed(ours, restarts(ours, 8), theirs._get_lr))
        assert found > 50, "timm finds its cycles otherwise"


class TestOnePlusCosCancels:
    """The last of 100,000 steps is at 2.5e-10 of the peak; in float32 1 + cos is 0."""

    RIGHT = math.sin(math.pi / 200_000) ** 2

    def check(self, theirs: float, ours: Schedule) -> None:
        assert theirs == 0.0
        assert ours.rate(99_999) == pytest.approx(self.RIGHT, rel=1e-15)

    def test_optax(self) -> None:
        theirs = optax.cosine_decay_schedule(1.0, 100_000)
        self.check(float(theirs(99_999)), presets.optax_cosine_decay(1.0, 100_000))

    def test_keras(self) -> None:
        theirs = keras.optimizers.schedules.CosineDecay(1.0, 100_000)
        self.check(float(theirs(99_999)), presets.keras_cosine_decay(1.0, 100_000))

    def test_torchensemble(self) -> None:
        import torchensemble

        model = torchensemble.SnapshotEnsembleClassifier(
            estimator=torch.nn.Linear, n_estimators=1, estimator_args={}
        )
        theirs = model._set_scheduler(optimizer(1.0), 100_000).lr_lambdas[0](99_999)
        self.check(float(theirs), presets.torchensemble_snapshot(1.0, 1, 1000, 100))


class TestAStepCountedInFloat32:
    """Above 2**24 a float32 does not hold every integer: 100,000,999 becomes 100,001,000."""

    STEP = 100_000_999
    RIGHT = math.sin(math.pi / 2000) ** 2

    def test_keras(self) -> None:
        assert float(RESTARTS(1.0, 1000, t_mul=1.0)(self.STEP)) == 1.0
        ours = presets.keras_cosine_decay_restarts(1.0, 1000, t_mul=1.0)
        assert ours.rate(self.STEP) == pytest.approx(self.RIGHT, rel=1e-15)

    def test_optax(self) -> None:
        """Half of a decay of 2**25 steps is passed at 2**24; a step later nothing has moved."""
        schedule = optax.cosine_decay_schedule(1.0, 2**25)
        half = 2**24
        assert float(schedule(jnp.int32(half))) == float(schedule(jnp.int32(half + 1)))
        ours = presets.optax_cosine_decay(1.0, 2**25)
        assert ours.rate(half) - ours.rate(half + 1) == pytest.approx(math.pi / 2**26, rel=1e-6)


def test_optax_sgdr_grows_with_its_cycles() -> None:
    """A `where` and a whole cosine for each cycle, evaluated at every step."""
    cycle = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 20}

    def equations(cycles: int) -> int:
        return len(jax.make_jaxpr(optax.sgdr_schedule([cycle] * cycles))(0).eqns)

    assert equations(20) - equations(10) == equations(30) - equations(20) > 150
    assert presets.optax_sgdr([cycle] * 30).rules[0].count == 30


class TestCosineAnnealingLR:
    def test_a_float_length_divides_by_zero_past_the_end(self) -> None:
        """15 falls and rises of 2.2 steps are 33; the recursion turns only where T_max is whole."""
        updater = optimizer(1.0)
        length: Any = 2.2
        scheduler = CosineAnnealingLR(updater, length)
        for _ in range(33):
            scheduler.step()
        assert rate_of(updater) == 0
        with pytest.raises(ZeroDivisionError):
            scheduler.step()
        ours = presets.torch_cosine_annealing(1.0, 2.2)
        assert ours.rate(33) == 0
        assert ours.rate(34) == pytest.approx(math.sin(math.pi / 4.4) ** 2, rel=1e-15)

    def test_last_epoch_on_a_fresh_optimizer(self) -> None:
        """Its recursion starts from the optimizer's rate, the peak, and not where epoch 51 is."""
        updater = optimizer(1.0)
        updater.param_groups[0]["initial_lr"] = 1.0
        scheduler = CosineAnnealingLR(updater, 100, last_epoch=50)
        for _ in range(10):
            scheduler.step()
        ours = presets.torch_cosine_annealing(1.0, 100).rate(61)
        assert rate_of(updater) != pytest.approx(ours, rel=1e-3)

    def test_a_state_dict_without_the_optimizers(self) -> None:
        """The recursion goes on from the fresh optimizer's rate, the peak."""
        saved = CosineAnnealingLR(optimizer(1.0), 100)
        for _ in range(50):
            saved.step()
        updater = optimizer(1.0)
        loaded = CosineAnnealingLR(updater, 100)
        loaded.load_state_dict(saved.state_dict())
        assert loaded.last_epoch == 50
        loaded.step()
        assert rate_of(updater) > 0.95
        assert presets.torch_cosine_annealing(1.0, 100).rate(51) == pytest.approx(0.484, abs=1e-3)

    def test_a_raised_length_leaves_it_at_0(self) -> None:
        updater = optimizer(1.0)
        scheduler = CosineAnnealingLR(updater, 10)
        for _ in range(10):
            scheduler.step()
        scheduler.T_max = 20
        for _ in range(5):
            scheduler.step()
            assert rate_of(updater) == 0
        assert presets.torch_cosine_annealing(1.0, 20).rate(11) > 0.4


class TestWarmRestartsResumed:
    """With last_epoch=24, T_0=10, T_mult=2 epoch 25 is 15 of 20 steps into its cycle."""

    def make(self) -> tuple[torch.optim.Optimizer, CosineAnnealingWarmRestarts]:
        updater = optimizer(1.0)
        updater.param_groups[0]["initial_lr"] = 1.0
        return updater, CosineAnnealingWarmRestarts(updater, 10, 2, last_epoch=24)

    def test_its_place_in_the_cycle_is_wrong(self) -> None:
        updater, scheduler = self.make()
        cycle = presets.torch_warm_restarts(1.0, 10, 2).cycle_at(25)
        assert (cycle.start, cycle.stop) == (10, 30)
        assert (scheduler.T_cur, scheduler.T_i) == (5, 20), "25 modulo the first length"
        right = presets.torch_warm_restarts(1.0, 10, 2).rate(25)
        assert rate_of(updater) != pytest.approx(right, rel=1e-3)

    def test_a_group_cannot_be_added(self) -> None:
        updater = optimizer(1.0)
        scheduler = CosineAnnealingWarmRestarts(updater, 10, 2)
        updater.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
        with pytest.raises(ValueError, match="zip"):
            scheduler.step()


def test_torchensembles_rate_is_a_float32_tensor() -> None:
    import torchensemble

    model = torchensemble.SnapshotEnsembleClassifier(
        estimator=torch.nn.Linear, n_estimators=2, estimator_args={}
    )
    updater = optimizer(0.1)
    model._set_scheduler(updater, 10)
    rate = updater.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    assert rate.dtype == torch.float32
    assert type(presets.torchensemble_snapshot(0.1, 2, 10, 1).rate(0)) is float


def test_keras_casts_pi_to_an_integer_rate() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(1, 1000)
    wrong = (1 + math.cos(3 * 0.5)) / 2
    assert float(theirs(500)) == pytest.approx(wrong, abs=1e-6)
    assert presets.keras_cosine_decay(1, 1000).rate(500) == pytest.approx(0.5, abs=1e-15)


def test_keras_on_jax_has_a_float32_cosine_in_float64() -> None:
    """Its type promotion knows no 64-bit float: float64 and a Python float make float32."""
    from keras.src.backend.common import dtypes

    with float64():
        assert dtypes.result_type("float64", float) == "float32"


def test_transformers_restarts_that_are_none() -> None:
    from transformers import optimization

    theirs = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer(1.0), 0, 2200, num_cycles=22
    )
    assert theirs.lr_lambdas[0](1500) == 0.0
    ours = presets.hf_hard_restarts(1.0, 0, 2200, 22)
    assert ours.rate(1500) == 1.0
    lost = [t for t in range(0, 2200, 100) if theirs.lr_lambdas[0](t) == 0.0]
    assert lost
    assert all(ours.rate(t) == 1.0 for t in range(0, 2200, 100))


class TestSnapshotsThatAreLost:
    """keras-contrib's callback, transcribed: it imports a Keras of long ago."""

    @staticmethod
    def saved(epochs: int, snapshots: int) -> list[int]:
        length = epochs // snapshots
        return [epoch for epoch in range(epochs) if epoch != 0 and (epoch + 1) % length == 0]

    def test_a_cycle_an_epoch_loses_the_first(self) -> None:
        ours = presets.keras_contrib_snapshot(5, 5, 0.1)
        assert self.saved(5, 5) == [1, 2, 3, 4]
        assert ours.cycle_ends(5) == [0, 1, 2, 3, 4]

    def test_a_budget_that_does_not_divide_saves_one_too_many(self) -> None:
        assert len(self.saved(10, 4)) == 5
        assert len(CyclicCosine(0.1, total_steps=10, num_cycles=4).cycle_ends()) == 4

    def test_more_snapshots_than_epochs_divide_by_zero(self) -> None:
        with pytest.raises(ZeroDivisionError):
            self.saved(3, 5)
        with pytest.raises(ScheduleError, match="nb_snapshots"):
            presets.keras_contrib_snapshot(3, 5, 0.1)

    def test_the_papers_rounding_gives_fewer_cycles_than_asked_for(self) -> None:
        paper = presets.snapshot_ensembles(9, 7, 0.1)
        assert len(paper.cycle_ends(9)) == 4  # and half of a fifth
        assert len(CyclicCosine(0.1, total_steps=9, num_cycles=7).cycle_ends()) == 7
