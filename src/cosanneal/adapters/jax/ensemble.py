"""The snapshot ensemble of functions of params."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp

from ...core.errors import EnsembleError, SnapshotError
from ...core.keywords import takes_options
from ...ensemble.combined import Combination
from ...ensemble.ensemble import SnapshotEnsemble as Ensemble
from ...ensemble.options import EnsembleOptions
from ...snapshots.sources import Source
from ...snapshots.store import Snapshot
from .buffer import HeldSnapshots, SnapshotBuffer
from .model import JaxModel
from .shipped import checked_dtype, function_of, in_dtype


class SnapshotEnsemble(Ensemble[Any]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    Args:
        apply_fn: the model as a function `apply_fn(params, *x)`, jitted for
            speed. It should predict as in evaluation: no dropout. A dict goes in as
            one argument, but for labels in it ("labels", "label" or "y"), and so does
            another pytree; a tuple or list as several; and of a loader's `(x, y)` what
            stands first. It returns an array, or holds one: the first item of a tuple,
            as in `(logits, state)`; `logits` of a dict or a dataclass. `EnsembleOptions`
            says more.
        folder: the folder of the snapshots or its URL, or a buffer that holds some (see
            `snapshot_buffer`); or a list of folders, files, snapshots and buffers.
        like: params of the structure that was recorded; members get its pytree
            type, its devices and its kind of arrays. Only its structure is
            kept, so it may be donated later, and may be what `jax.eval_shape`
            gives; but of snapshots that are a part of the params the rest comes
            from it, and it is kept. A buffer knows it.
        statistics_fn: for `average_weights`, where the params hold running
            statistics: a function of what apply_fn gets that returns the
            params with the statistics moved by the batch `x` as training moves
            them, `momentum * old + (1 - momentum) * batch`; without dropout. It
            is called on several params, to find out what the statistics are, and
            the momentum of each, which so does not matter: the batch's own are
            what counts. A variance named `var` or `variance` is taken to be
            about the `mean` beside it, and gains that between the batches; of
            anything else that moves, the mean over batches is taken. A batch
            counts by the size of its first array.
        options: `last`, `members`, `outputs`, `output`, `class_axis` and `pooling`,
            as `cosanneal.ensemble.SnapshotEnsemble` has them.

    Over several processes (jax.distributed) all make the ensemble, with the folder in each
    one's reach, and call it alike. Members lie as `like` does; of an input in parts, which
    several processes share, each gets all rows, in order, as an array of its own. Labels
    are whole in each. Such members are not stacked, and their weights not averaged: that
    takes a `like` of one process.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.
        SnapshotError: a buffer of several runs, or one whose steps were counted anew.

    Example:
        >>> import tempfile
        >>> import jax, jax.numpy as jnp
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
        >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
        >>> folder = tempfile.mkdtemp()
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(folder, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step(params)
        >>> apply_fn = jax.jit(lambda params, x: x @ params["kernel"] + params["bias"])
        >>> ensemble = SnapshotEnsemble(apply_fn, folder, like=params, last=2)
        >>> x = jax.random.normal(jax.random.key(0), (50, 2))
        >>> ensemble.predict(x).shape
        (50, 3)
        >>> found = ensemble.average_weights(x, jnp.arange(50) % 3)
        >>> found.predict(x).shape  # of the one model, at its temperature
        (50, 3)
        >>> predictions = apply_fn(found.weights, x)

        With a module of flax that has BatchNorm, params are all of its
        variables, and the mean of their weights needs training data:

        >>> def statistics_fn(variables, x):
        ...     _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        ...     return {**variables, **updates}
        >>> def average(folder, variables, x_val, y_val, x_train):
        ...     ensemble = SnapshotEnsemble(
        ...         lambda variables, x: model.apply(variables, x, train=False),
        ...         folder,
        ...         like=variables,
        ...         statistics_fn=jax.jit(statistics_fn),
        ...     )
        ...     return ensemble.average_weights(x_val, y_val, train_data=x_train).weights

        And with nnx, where `graphdef, params = nnx.split(model)`:

        >>> def statistics_fn(params, x):
        ...     model = nnx.merge(graphdef, params)
        ...     model.set_attributes(use_running_average=False)
        ...     model(x)
        ...     return nnx.state(model)

        With Equinox, where `params = eqx.filter(model, eqx.is_array), state`,
        `static` is the rest of the model and `axis_name` that of its BatchNorm:

        >>> def statistics_fn(params, x):
        ...     arrays, state = params
        ...     model = eqx.nn.inference_mode(eqx.combine(arrays, static), False)
        ...     run = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        ...     return arrays, run(x, state)[1]

        And with Haiku, where `params, state` are what `init` of
        `hk.transform_with_state` gives, recorded as a tuple:

        >>> def statistics_fn(both, x):
        ...     params, state = both
        ...     return params, model.apply(params, state, None, x, is_training=True)[1]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    @takes_options(EnsembleOptions)
    def __init__(
        self,
        apply_fn: Callable[..., Any],
        folder: Source | SnapshotBuffer | Sequence[Source | SnapshotBuffer],
        like: Any = None,
        *,
        statistics_fn: Callable[..., Any] | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> None:
        held = HeldSnapshots.among(folder)
        buffers = [each for each in held if isinstance(each, HeldSnapshots)]
        if like is None and buffers:
            like = buffers[0].like
        if like is None:
            raise EnsembleError(
                "Argument `like` must be params of the members' structure, such as model.init "
                "gives, or the last of the run. Received: None; snapshots hold arrays by name, "
                "not the tree that apply_fn takes"
            )
        source = held if isinstance(folder, list | tuple) else held[0]
        model = JaxModel(apply_fn, like, statistics_fn)
        super().__init__(model, source, **options)
        for member in self.members:
            with contextlib.suppress(SnapshotError):  # which is said when it is loaded
                if member.metadata.get("rest"):
                    model.keep(like)
                    break

    def params(self, snapshot: Snapshot) -> Any:
        """A member's params, in the structure of `like`.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit `like`; the message names the first
                tensor that differs.
        """
        return self.model.export(self._members.load(snapshot))

    def as_function(
        self, *, stacked: bool = False, dtype: Any = None
    ) -> tuple[Callable[..., Any], Any]:
        """The ensemble as a pure function and the params of its members.

        The function takes these params and what `apply_fn` takes, and gives what `predict`
        gives for one batch: the prediction of the members that count, at their weights and
        temperature. It may be jitted, and exported by `jax.export`, also with a batch of any
        size. Sums are in the outputs' own dtype, but at least in float32: they agree with those
        of `predict`, which are in float64, to 1e-6 of numbers up to 1. No number is looked at:
        a NaN stays one.

        Args:
            stacked: whether the params are stacked along a first axis, and run by one
                vectorized map; by default they are a list, with those of each member.
            dtype: of the params, such as jnp.bfloat16, which halves the memory that float32
                takes: bfloat16, float16, float32 or float64. Floats of the input are then
                taken in it, and the prediction stays in the dtype in which it was pooled, at
                least float32. By default the params are in their own, and so is the
                prediction.

        Returns:
            The function and the params.

        Raises:
            EnsembleError: it is not known yet what the outputs are, since nothing was
                predicted; no such dtype; or a snapshot that does not fit.
            SnapshotError: a snapshot is damaged.

        Example:
            >>> import tempfile
            >>> import jax, jax.numpy as jnp
            >>> import cosanneal as ca
            >>> from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
            >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
            >>> folder = tempfile.mkdtemp()
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> with SnapshotRecorder(folder, schedule) as recorder:
            ...     for _ in range(6):
            ...         _ = recorder.step(params)
            >>> apply_fn = lambda params, x: x @ params["kernel"] + params["bias"]
            >>> ensemble = SnapshotEnsemble(
            ...     apply_fn, folder, like=params, outputs="logits", class_axis=-1
            ... )
            >>> predict, members = ensemble.as_function()
            >>> jax.jit(predict)(members, jnp.ones((5, 2))).shape
            (5, 3)

        Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
        """
        held = None if dtype is None else checked_dtype(dtype)
        weights = self._weights()
        combination = Combination.of(self._taken, weights, self._choices())
        params: Any = [
            self.params(each) if held is None else in_dtype(self.params(each), held)
            for each in weights
        ]
        if stacked:
            params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        apply_fn = cast(JaxModel, self.model).apply_fn
        return function_of(apply_fn, combination, stacked=stacked, dtype=held), params
