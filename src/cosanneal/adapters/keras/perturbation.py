"""What may be done to a model and its optimizer at a restart, beside raising the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import keras
import numpy as np

from ...core.errors import ScheduleError, check_flag, shown
from ...core.restarts import check_restart, check_shares, fresh_seed, python_seeded
from .model import put_in_place
from .names import array_of, named_weights
from .recorder import SnapshotRecorder


def shrink_and_perturb(
    model: keras.Model,
    fresh: keras.Model | Callable[[], keras.Model] | None = None,
    *,
    cycle: int | None = None,
    seed: int = 0,
    shrink: float = 0.8,
    perturb: float = 0.2,
) -> None:
    """Shrink a model's weights at a restart, and add a share of fresh ones, in place.

    `w = shrink * w + perturb * fresh`

    For a loop of one's own; in `fit`, the callback `ShrinkAndPerturb` calls it at the right
    moments. Call it when a cycle has ended and its snapshot was taken, and not after the last
    cycle. Save a checkpoint after it, and a resumed run goes on bit for bit.

    All trainable weights of a floating dtype take part, shared ones once. Frozen weights stay:
    they were not trained. All that is not trainable stays, too: running statistics follow the
    new weights by themselves within some tens of updates. The optimizer's state stays: see
    `reset_momentum`.

    Whether it pays, and how the shares were chosen, is on the page on restarts: it may gain where
    the budget is long, and loses where it is short.

    Args:
        model: the model, built.
        fresh: by default the model's own config makes a second one, whose initializers draw
            from `seed` and `cycle`. One that was given a seed of its own draws the same
            each time. A function that builds a model is called with Python's and numpy's
            random numbers from them, which go on afterwards as if nothing had
            happened; what else it draws from is its own affair. Or a second model.
        cycle: the number of the cycle that begins, of at least 1; not needed with a second model.
        seed: an integer of at least 0, of the run.
        shrink: the share of the old weights, from 0 to 1.
        perturb: the share of the fresh ones, from 0 to 1.

    Raises:
        ScheduleError: a share, a seed or a cycle that cannot be; a model that is not built, or
            whose config makes none; or a second one whose weights are others, or the model's own.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training", 2020,
    arXiv:1910.08475, section 4.

    Example:
        >>> import keras, numpy as np
        >>> from cosanneal.adapters.keras import shrink_and_perturb
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[4.0], [2.0]]), np.array([1.0])])
        >>> shrink_and_perturb(model, cycle=1, shrink=0.5, perturb=0.0)
        >>> [each.ravel().tolist() for each in model.get_weights()]
        [[2.0, 1.0], [0.5]]
    """
    shrink, perturb = check_shares(shrink, perturb)
    if not isinstance(model, keras.Model) or not model.built:
        raise ScheduleError(
            "Argument `model` must be a keras.Model that is built. "
            f"Received: {type(model).__name__}; build it by calling it on a batch"
        )
    new = named_weights(_fresh(model, fresh, cycle, seed))
    trained = {id(each) for each in model.trainable_weights}
    mixed = {}
    for name, weight in named_weights(model).items():
        if id(weight) not in trained:
            continue
        other = new.get(name)
        if other is None or tuple(other.shape) != tuple(weight.shape):
            came = "none" if other is None else f"one of shape {tuple(other.shape)}"
            raise ScheduleError(
                "Argument `fresh` must have the model's weights, by their names. Received: for "
                f"{name!r} of shape {tuple(weight.shape)} {came}; give a function that builds "
                "the model"
            )
        if other is weight:
            raise ScheduleError(
                "Argument `fresh` must be a model of its own, or a function that builds another "
                "each time. Received: one that has the model's own weights"
            )
        old = array_of(weight)
        if np.issubdtype(old.dtype, np.integer) or old.dtype == bool:
            continue
        wide = np.promote_types(old.dtype, np.float32)
        value = wide.type(shrink) * old.astype(wide) + wide.type(perturb) * array_of(other)
        mixed[name] = value.astype(old.dtype)
    put_in_place(model, mixed)


def reset_momentum(optimizer: keras.Optimizer) -> None:
    """Forget an optimizer's momentum, as at a restart.

    The means of earlier gradients, of SGD and RMSprop with momentum, Adam and its kin, become
    0. Means of squared gradients stay, and so do the rate and the count of updates: the
    schedule's rate is looked up by that count, by which Adam also corrects its bias, so
    that means of squares which began anew would make its updates several times too long. So the
    k-th of Adam's updates after a reset is shorter, by the factor `1 - beta_1**k` where slopes are
    alike. (In torch and Optax, which have a count for each, all of it begins anew.) An optimizer
    without momentum stays as it is.

    Args:
        optimizer: a Keras optimizer, built or not; also one that scales the loss of another.

    Raises:
        ScheduleError: no Keras optimizer.

    Example:
        >>> import keras
        >>> from cosanneal.adapters.keras import reset_momentum
        >>> weight = keras.Variable([1.0])
        >>> optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
        >>> for _ in range(2):
        ...     optimizer.apply([keras.ops.convert_to_tensor([0.5])], [weight])
        ...     reset_momentum(optimizer)
        >>> float(weight.numpy()[0])  # and 0.275 with the momentum
        0.5
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ScheduleError(
            f"Argument `optimizer` must be a Keras optimizer. Received: {shown(optimizer)}"
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in inner.variables:
        if variable.path.rpartition("/")[2].endswith("momentum"):
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))


_forget: Final = reset_momentum  # by another name, since an argument has this one


class ShrinkAndPerturb(keras.callbacks.Callback):
    """Shrinks the weights at every restart of a `fit`, and adds a share of fresh ones.

    `w = shrink * w + perturb * fresh`, as `shrink_and_perturb` has it.

    List it after the recorder, which then has recorded the weights before they shrink, and
    before BackupAndRestore and other callbacks that save the model: a resumed run then goes
    on bit for bit. After the last cycle the weights stay. A cycle that ends inside of an
    execution (`steps_per_execution`) is restarted after it.

    Args:
        recorder: the SnapshotRecorder of the same `fit`, whose schedule says when.
        fresh: as `shrink_and_perturb` has it; by default by the model's config.
        seed: an integer of at least 0, of the run.
        shrink: the share of the old weights, from 0 to 1.
        perturb: the share of the fresh ones, from 0 to 1.
        reset_momentum: forget the optimizer's momentum as well.

    Raises:
        ScheduleError: an argument that cannot be; or, when an epoch ends, a recorder that is
            listed after this callback or not at all.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training", 2020,
    arXiv:1910.08475, section 4.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
        >>> from cosanneal.adapters.keras import ShrinkAndPerturb
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule), 0.9), "mse")
        >>> recorder = SnapshotRecorder(tempfile.mkdtemp(), schedule)
        >>> both = [recorder, ShrinkAndPerturb(recorder, reset_momentum=True)]
        >>> x, y = np.ones((6, 2)), np.ones((6, 1))
        >>> history = model.fit(x, y, batch_size=2, epochs=2, callbacks=both, verbose=0)
        >>> [snapshot.step for snapshot in recorder.store.list()]
        [3, 6]
    """

    def __init__(
        self,
        recorder: SnapshotRecorder,
        fresh: keras.Model | Callable[[], keras.Model] | None = None,
        *,
        seed: int = 0,
        shrink: float = 0.8,
        perturb: float = 0.2,
        reset_momentum: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(recorder, SnapshotRecorder):
            raise ScheduleError(
                "Argument `recorder` must be the SnapshotRecorder of the same fit. "
                f"Received: {shown(recorder)}"
            )
        self.recorder: SnapshotRecorder = recorder
        self.fresh: keras.Model | Callable[[], keras.Model] | None = fresh
        self.shrink: float
        self.perturb: float
        self.shrink, self.perturb = check_shares(shrink, perturb)
        self.seed: int = check_restart(1, seed)[0]
        self.reset_momentum: bool = check_flag("reset_momentum", reset_momentum)
        self._done: int | None = None  # the updates up to which every restart was done

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Begin where the run stands; called by `fit`."""
        self._done = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Restart, if the recorder has just recorded a cycle; called by `fit`."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Restart, if the recorder has just recorded a cycle; called by `fit`.

        Raises:
            ScheduleError: the recorder is listed after this, or not at all.
        """
        self._look()
        # `model` has JAX's loop hand the count over.
        optimizer = self.recorder.counted(self.model)
        updates = int(array_of(optimizer.iterations))
        if updates != self.recorder.updates:
            raise ScheduleError(
                "The recorder must be listed before ShrinkAndPerturb, which would else change the "
                f"weights too late: callbacks=[recorder, ShrinkAndPerturb(recorder)]. Received: a "
                f"recorder that has seen {self.recorder.updates} of {updates} updates"
            )

    def _look(self) -> None:
        updates, before = self.recorder.updates, self._done
        self._done = updates
        if before is None or before == updates:
            return
        schedule = self.recorder.schedule
        ended = schedule.cycles_completed(before, updates)
        if not ended or updates == schedule.total_steps:
            return
        shrink_and_perturb(
            self.model,
            self.fresh,
            cycle=schedule.cycle_at(updates).index,
            seed=self.seed,
            shrink=self.shrink,
            perturb=self.perturb,
        )
        if self.reset_momentum:
            _forget(self.recorder.counted(self.model))


def _fresh(
    model: keras.Model,
    fresh: keras.Model | Callable[[], keras.Model] | None,
    cycle: int | None,
    seed: int,
) -> keras.Model:
    """The model with the fresh weights."""
    if isinstance(fresh, keras.Model):
        return fresh
    if fresh is not None and not callable(fresh):
        raise ScheduleError(
            "Argument `fresh` must be a keras.Model, or a function that builds one. "
            f"Received: {shown(fresh)}"
        )
    with _seeded(fresh_seed(*check_restart(cycle, seed))):
        if fresh is not None:
            built = fresh()
        else:
            try:
                built = keras.models.clone_model(model)
                if not built.built:
                    built.build_from_config(model.get_build_config())
            except Exception as error:
                raise ScheduleError(
                    "Argument `fresh` must be a function that builds the model, where its config "
                    f"makes none. Received: {type(model).__name__}, and {type(error).__name__}: "
                    f"{error}"
                ) from error
    if not isinstance(built, keras.Model) or not built.built:
        raise ScheduleError(
            "Argument `fresh` must be a keras.Model that is built, or a function that builds one. "
            f"Received: {shown(built) if fresh is not None else type(model).__name__}"
        )
    return built


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's random numbers, from which Keras takes its seeds, and numpy's; then as before."""
    state = np.random.get_state()
    try:
        with python_seeded(seed):
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
