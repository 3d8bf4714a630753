"""The schedule as a Keras schedule, which any optimizer takes as its learning rate."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ...core.graph import Table, evaluate
from ...core.schedule import Schedule, check_schedule
from .operations import Operations


@keras.saving.register_keras_serializable(package="cosanneal")
class CyclicCosineSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule as a Keras schedule, which any optimizer takes as its learning rate.

    `rate(step) = low + (high - low) * sin(pi * share / 2) ** 2`

    `share` is the part of the annealing between the step and its low end,
    counted in integers, over its length. The schedule is lowered once into small
    constant arrays; the graph has one lookup and one sine, however many cycles
    there are. On each backend, compiled or not, the rate is within 8 ulp of the
    exact one in float32, and in float64 where that is Keras' `floatx`, with the
    peak itself at every restart. (Where a preset takes powers, as optax'
    `exponent` and timm's `k_decay`, within 12 ulp, times the exponent where that
    is more than 1.)

    It is saved with the model, optimizer and all, and loaded where this module
    is imported.

    Args:
        schedule: the schedule. Graphs hold it up to step 2**31 - 1, or 2**62 in
            float64.

    Returns:
        As a function of the step: a scalar of the backend's. The step is an
        integer of Python's or numpy's, a variable, or an array or tensor of
        integers, whose elements it maps; or a float where its value is known
        and an integer. Floats inside a graph are refused, for float32 holds no
        step beyond 2**24 exactly; Keras itself counts in integers. Negative
        steps count as step 0, as a warmup may ask for what comes after it, and
        those of an array or tensor beyond the last as the last, for inside a
        graph nothing can be raised. A number beyond the last is a
        ScheduleError.

    Raises:
        ScheduleError: no schedule; one that would need a table of more than
            32,768 rows; or one whose rates are beyond the range of the float
            dtype.

    Example:
        >>> import keras
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> rate = CyclicCosineSchedule(schedule)
        >>> optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        >>> [round(float(rate(step)), 6) for step in range(7)]
        [0.2, 0.15, 0.05, 0.2, 0.15, 0.05, 0.0]

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = check_schedule(schedule)
        # By the precision, for floatx may be changed between two calls.
        self._tables: dict[bool, Table[NDArray[Any]]] = {}
        self._table(Operations())  # what cannot be lowered is said here, and not inside of a graph

    def __call__(self, step: Any) -> Any:
        """The rate of the update with that number; see the class."""
        operations = Operations()
        table = self._table(operations)
        steps = operations.step(step, table.limit)
        if isinstance(steps, int):
            return ops.convert_to_tensor(self.schedule.rate(steps), operations.float)
        return evaluate(table, steps, operations)

    def get_config(self) -> dict[str, Any]:
        """The schedule as plain data."""
        return {"schedule": self.schedule.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CyclicCosineSchedule:
        """The schedule that `get_config` describes, from its `config`."""
        return cls(Schedule.from_dict(config["schedule"]))

    def _table(self, operations: Operations) -> Table[NDArray[Any]]:
        if operations.wide not in self._tables:
            self._tables[operations.wide] = Table.of(
                self.schedule,
                wide=operations.wide,
                constant=lambda values: np.array(values, operations.index),
                rows=lambda integers, floats: (
                    np.array(integers, operations.index),
                    np.array(floats, operations.float),
                ),
            )
        return self._tables[operations.wide]
