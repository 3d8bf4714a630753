"""A Keras model as an ensemble takes it: members are loaded into a copy of it, if there can be one.

A copy is made from the model's config where all that it consists of is Keras' own,
so that the config says everything. Other models are lent: they hold the members'
weights during a pass, and afterwards their own again.
"""

from __future__ import annotations

import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_numpy
from ...ensemble.calls import explained_call
from ...ensemble.model import Batch, Forward, Pick, Weights, check_forward, free_host_memory
from ...ensemble.predict.batches import (
    BATCH_SIZE,
    LABEL_NAMES,
    Batches,
    Whole,
    bucket,
    map_arrays,
    rows_of,
)
from ...ensemble.predict.outputs import Reading
from ...ensemble.structure import map_leaves
from ...snapshots.file import Layout
from ...snapshots.ranks import ALONE
from .calls import noting_calls
from .capture import ModelCapture
from .dtypes import built_in, rebuilt_in
from .names import array_of, input_names, named_weights
from .outputs import output_names, said_outputs
from .ranks import are_several, is_of_several
from .replicas import on_one_device, put_values, refuse_scope, values_of
from .stacked import StackedModel
from .statistics import estimate, moving_layers

# A model that is lent must not be lent twice, also not by two ensembles.
_LOCK: Final = threading.Lock()
_LOCKS: Final = weakref.WeakKeyDictionary[Any, threading.RLock]()


class KerasModel:
    """A Keras model that members can be loaded into; see `cosanneal.ensemble.Model`.

    Args:
        model: the model, built; or a function that builds one, which the
            members are then loaded into.
        forward: runs the model on a batch as it comes; by default its input is taken
            out of the batch, as `Batches` says.

    Raises:
        EnsembleError: neither.
    """

    framework = "numpy"
    ranks = ALONE

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        forward: Forward[keras.Model] | None = None,
    ) -> None:
        self.forward: Forward[keras.Model] | None = check_forward(forward)
        lent = isinstance(model, keras.Model)
        refuse_scope()
        with _in_this_process():
            source = model if lent or not callable(model) else _built(model)
        if not isinstance(source, keras.Model) or not source.built:
            raise EnsembleError(
                "Argument `model` must be a keras.Model that is built, or a function that builds "
                f"one. Received: {type(source).__name__}; build a model by calling it on a batch"
            )
        self.model: keras.Model = source
        self.given: keras.Model | Callable[[], keras.Model] = model
        self._is_checked = forward is None  # whether forward runs what it is given
        with _in_this_process():
            copied = _copied(source) if lent else source
        self.lent: bool = copied is None
        self._target = source if copied is None else copied
        self._derived = _Derived(self._target)
        if are_several():
            self._derived.sync()  # without which a variable has no value while its model is trained
            _check_reach(self._target)
        if self.lent and self._derived.stateful:
            raise EnsembleError(
                "Argument `model` must be a function that builds the model, where layers keep a "
                "state from batch to batch that could not be put back. Received: a model with "
                f"{self._derived.stateful[0].name!r}"
            )
        with _LOCK:
            self._lock = _LOCKS.setdefault(self._target, threading.RLock())

    def __reduce__(self) -> tuple[Any, ...]:
        return KerasModel, (self.given, self.forward)

    def layout(self) -> Layout:
        return {
            name: (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
            for name, variable in named_weights(self.model).items()
        }

    def same_as(self, other: Any) -> bool:
        same = isinstance(other, KerasModel) and other.given is self.given
        return same and other.forward is self.forward

    def place(self) -> object:
        return None  # what is kept of the members lies in the host's memory, or follows Keras

    def own(self) -> ModelCapture:
        return ModelCapture(self.model)

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, np.ndarray) or bool(ops.is_tensor(thing))

    def output_names(self) -> Sequence[str]:
        return output_names(self.model)

    def says_outputs(self, output: Any = None) -> Reading | None:
        return said_outputs(self.model, output)

    def load(self, tensors: Mapping[str, Any]) -> Weights:
        return dict(tensors)

    @contextmanager
    def running(self, pick: Pick) -> Iterator[Callable[[Weights, Batch], Any]]:
        with self._given() as give:

            def run(weights: Weights, batch: Batch) -> Any:
                give(weights)
                return keras.tree.map_structure(_as_array, pick(_of_any(self._run, batch)))

            yield run

    def stack(self, members: Sequence[Callable[[], Weights]], pick: Pick) -> Callable[[Batch], Any]:
        weights = [load() for load in members]
        stacked = {name: np.stack([each[name] for each in weights]) for name in weights[0]}
        self._derived.refuse_stacked(stacked)
        refused: list[EnsembleError] = []

        def picked(returned: Any) -> Any:
            try:
                return pick(returned)
            except EnsembleError as error:
                refused.append(error)
                raise

        with _in_this_process():
            model = StackedModel(self._target, stacked, picked, self.forward)

        def all_of(batch: Batch) -> Any:
            return model.predict_on_batch(self._input(batch))

        def run(batch: Batch) -> Any:
            refused.clear()
            try:
                return _of_any(all_of, batch, axis=1)
            except Exception as error:
                if refused:  # of which Keras and TensorFlow make others
                    raise refused[0] from error
                raise

        return run

    def batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        if isinstance(x, keras.utils.PyDataset):  # which has no end of its own
            x = _Sequence(x)
        # Where nothing is said, as many samples at a time as the model is made for; of one with
        # a state, which goes on from one batch to the next, all.
        size, stateful = _fixed_size(self.model), bool(self._derived.stateful)
        return Batches(
            x,
            batch_size=batch_size,
            arrays=(np.ndarray, type(ops.convert_to_tensor(0))),
            convert=as_numpy,
            training=training,
            name=name,
            whole=self.forward is not None,
            label_names=[each for each in LABEL_NAMES if each not in input_names(self.model)],
            lists=True,
            usual_size=size if size is not None or stateful else BATCH_SIZE,
            take=_at,
            rows=_rows if size is None else None,
            linked=stateful,
        )

    def join(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def wait(self, outputs: Any) -> None:
        """They are numpy's: there already."""

    def free_memory(self) -> int | None:
        return free_host_memory()

    def running_statistics(self, members: object) -> Sequence[str]:  # noqa: ARG002
        return moving_layers(self.model)

    def estimate(
        self, weights: Weights, layers: Sequence[str], batches: Iterable[Batch]
    ) -> Weights:
        # Not as compiled before, which knows the layers as they were.
        forward = self.forward or (lambda model, x: model(x, training=False))
        with self._given() as give:
            give(weights)
            self._target.predict_function = None  # which forward may call
            try:
                return estimate(
                    self._target,
                    weights,
                    layers,
                    batches,
                    lambda batch: forward(self._target, self._input(batch)),
                )
            finally:
                self._target.predict_function = None

    def same_randomness(self) -> AbstractContextManager[object]:
        return nullcontext()

    def export(self, weights: Weights) -> list[Any]:
        names = {id(variable): name for name, variable in named_weights(self.model).items()}
        return [weights[names[id(variable)]] for variable in self.model.weights]

    def _input(self, batch: Batch) -> Any:
        """A batch as the model takes it, or `forward`."""
        if isinstance(batch, Whole):  # in containers of its own, which forward may write to
            return map_leaves(lambda leaf: leaf, batch.given)
        return batch[0] if isinstance(batch, tuple) and len(batch) == 1 else batch

    def _run(self, batch: Batch) -> Any:
        if self.forward is None:
            given = self._input(batch)
            with explained_call(
                self._target.call,
                (given,),
                {},
                title=f"{type(self._target).__name__}.call",
                way="one argument, also of several inputs",
                remedy="the ensemble forward=lambda model, batch: model(**batch), or model(*batch)",
            ):
                return self._target.predict_on_batch(given)
        no_gradients = nullcontext()
        if keras.backend.backend() == "torch":
            no_gradients = sys.modules["torch"].no_grad()
        with ExitStack() as stack:
            stack.enter_context(no_gradients)
            called = (
                None
                if self._is_checked or self.lent
                else stack.enter_context(noting_calls(self._target))
            )
            output = self.forward(self._target, self._input(batch))
        if called == []:
            raise EnsembleError(
                "Argument `forward` must run the model that it is given, which has a member's "
                "weights. Received: a function that runs none of its layers; let it call its first "
                "argument, and no other model"
            )
        self._is_checked = True
        return output

    def another(self, dtype: str | None = None) -> keras.Model:
        """A model of the same structure with weights of its own.

        Args:
            dtype: in which its layers compute; by default in their own.

        Raises:
            EnsembleError: there can be none.
        """
        refuse_scope()
        with _in_this_process(), built_in(dtype):
            if not isinstance(self.given, keras.Model):
                made: keras.Model = self.given()
                return made
            made = None if self.lent else _copied(self.model)
            if made is not None and dtype is not None:
                made = rebuilt_in(made, dtype)
        if made is None:
            raise EnsembleError(
                "Argument `model` of the ensemble must be a function that builds the model, where "
                "its config may not say all of it, for several of them. Received: a model with "
                "layers that are not Keras' own, or with a vocabulary; give such a function"
            )
        return made

    @contextmanager
    def holding(self, weights: Weights) -> Iterator[keras.Model]:
        """The model, or its copy, as long as it has some weights."""
        with self._given() as give:
            give(weights)
            yield self._target

    @contextmanager
    def _given(self) -> Iterator[Callable[[Weights], None]]:
        """What gives the model some weights; one that is lent has its own again afterwards."""
        refuse_scope()
        with self._lock, on_one_device(self._target):
            if self.lent:
                self._derived.sync()  # with the weights of a training that goes on
            own: dict[str, list[NDArray[Any]]] | None = None
            present: Weights = None

            def give(weights: Weights) -> None:
                nonlocal own, present
                if weights is present:
                    return
                if self._derived.stateful and present is not None:
                    raise EnsembleError(
                        "A model that keeps a state from batch to batch must be run member by "
                        "member. Received: another mode; give mode='stream'"
                    )
                if self.lent and own is None:
                    variables = named_weights(self._target)
                    own = {name: values_of(variable) for name, variable in variables.items()}
                present = None
                self._derived.put(weights)
                present = weights

            try:
                yield give
            finally:
                if own is not None:
                    self._derived.put_back(own, put_values)


def _fixed_size(model: keras.Model) -> int | None:
    """The one number of samples that a model takes; None where it takes any."""
    sizes = [each.shape[0] for each in getattr(model, "inputs", None) or ()]
    return int(sizes[0]) if sizes and sizes[0] is not None else None


@contextmanager
def _in_this_process() -> Iterator[None]:
    """Have what is built meanwhile lie in this process alone, where Keras has several."""
    distribution = keras.distribution.distribution() if are_several() else None
    if distribution is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _check_reach(model: keras.Model) -> None:
    """Refuse to put members into a model that lies over several processes."""
    for name, variable in named_weights(model).items():
        if is_of_several(variable.value):
            raise EnsembleError(
                "Argument `model` of an ensemble must be a function that builds the model in this "
                "process, where layers are not Keras' own and weights lie over several processes. "
                f"Received: a model with {name!r} over several; give a function that sets no "
                "distribution of its own, and is called without one"
            )


def _of_any(run: Callable[[Batch], Any], batch: Batch, axis: int = 0) -> Any:
    """What is run for a batch, whose samples lie along an axis of the output.

    TensorFlow with oneDNN, as it is on some processors, has the shapes of no samples wrong: so for
    none of them one is run, and left out.
    """
    if keras.backend.backend() != "tensorflow" or rows_of(batch) != 0:
        return run(batch)
    none = (*[slice(None)] * axis, slice(0))
    return map_leaves(lambda leaf: leaf[none], run(map_arrays(_one_of, batch)))


def _one_of(array: Any) -> NDArray[Any]:
    """One sample as those that an array has none of."""
    none = as_numpy(array)
    return np.full((1, *none.shape[1:]), "" if none.dtype.kind in "OSU" else 0, none.dtype)


def _assign(variable: Any, value: Any) -> None:
    variable.assign(value)


class _Derived:
    """Puts weights into a model, with what its layers make of them.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        layers = [model, *model._flatten_layers(include_self=False)]
        self.stateful = [layer for layer in layers if getattr(layer, "stateful", False)]
        # As Normalization does of the mean and the variance that it was adapted to.
        self._finalized = [each for each in layers if callable(getattr(each, "finalize_state", 0))]
        self._latest: list[Any] | None = None if self._finalized else []

    def sync(self) -> None:
        """On JAX, give the model's variables what its functions have returned."""
        if hasattr(self._model, "jax_state_sync"):
            self._model.jax_state_sync()

    def put(self, weights: Mapping[str, Any], assign: Callable[[Any, Any], None] = _assign) -> None:
        """Put weights in place, and have derived anew what is derived."""
        for name, variable in named_weights(self._model).items():
            if name in weights:
                assign(variable, weights[name])
        for layer in self.stateful:
            layer.reset_state()
        values = [array_of(each) for layer in self._finalized for each in layer.weights]
        if self._latest is None or not all(map(np.array_equal, values, self._latest)):
            for layer in self._finalized:
                layer.finalize_state()
            # What was compiled has the old values in it.
            self._model.predict_function = None
            self._latest = values

    def put_back(
        self, weights: Mapping[str, Any], assign: Callable[[Any, Any], None] = _assign
    ) -> None:
        """Put weights in place, whatever interrupts come meanwhile; these are raised afterwards."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self.sync()  # or what a pass that was interrupted left would come afterwards
                self.put(weights, assign)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def refuse_stacked(self, stacked: Mapping[str, NDArray[Any]]) -> None:
        """Refuse members that differ in what a layer derives of its weights, or keep a state."""
        names = {id(variable): name for name, variable in named_weights(self._model).items()}
        for layer in self._finalized:
            for weight in layer.weights:
                values = stacked[names[id(weight)]]
                if not (values == values[:1]).all():
                    raise EnsembleError(
                        "The members must agree on what a layer derives of its weights, for "
                        f"mode='stacked'. Received: members that differ in {names[id(weight)]!r}; "
                        "give mode='resident'"
                    )
        if self.stateful:
            raise EnsembleError(
                "The model must keep no state from batch to batch, for mode='stacked'. Received: "
                f"one with {self.stateful[0].name!r}; give mode='stream'"
            )
        if self._finalized:
            self.put({name: values[0] for name, values in stacked.items()})


def put_in_place(model: keras.Model, weights: Mapping[str, Any]) -> None:
    """Put weights, all or some, into a model of the user's."""
    derived = _Derived(model)
    derived.sync()
    derived.put_back(weights)


def _built(build: Callable[[], Any]) -> Any:
    """What a function builds: another each time, for it is written to and not put back."""
    first, second = build(), build()
    shared = {id(each) for each in getattr(first, "weights", ())}
    if first is second or any(id(each) in shared for each in getattr(second, "weights", ())):
        raise EnsembleError(
            "The function that builds the model must build another each time. Received: one that "
            "returns the same, or with the same weights; give the model itself"
        )
    return first


def _copied(model: keras.Model) -> keras.Model | None:
    """A copy of a model from its config; None where the config may not say all."""
    for layer in model._flatten_layers():
        kind = type(layer)
        asset = hasattr(kind, "save_assets")  # such as a vocabulary, which no config has
        other = not kind.__module__.startswith("keras.") or isinstance(layer, keras.layers.Lambda)
        if other or asset or {"call", "__call__"} & vars(layer).keys():
            return None
    state = random.getstate()  # from which Keras takes the seeds of the copy's layers
    try:
        copied = keras.models.clone_model(model)
    except Exception:  # for which there is the way without a copy
        return None
    finally:
        random.setstate(state)
    if [(name, each.shape, each.dtype) for name, each in named_weights(copied).items()] != [
        (name, each.shape, each.dtype) for name, each in named_weights(model).items()
    ]:
        return None  # such as a layer with weights that were added later
    copied.run_eagerly, copied.jit_compile = model.run_eagerly, model.jit_compile
    return copied


def _rows(batch: Batch, places: NDArray[np.intp]) -> Batch | None:
    """Some samples of a batch as one of a few sizes, where that is less than the whole."""
    at = bucket(places, rows_of(batch) or 0)
    return None if at is None else map_arrays(lambda array: _at(array, at), batch)


def _at(array: Any, places: NDArray[np.intp]) -> Any:
    """The samples of an array at some places."""
    return array[places] if isinstance(array, np.ndarray) else ops.take(array, places, axis=0)


class _Sequence:
    """The batches of a PyDataset, as an iterable that ends."""

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return (self._dataset[i] for i in range(len(self._dataset)))


def _as_array(output: Any) -> Any:
    """What `forward` returns as `predict_on_batch` would give it."""
    return ops.convert_to_numpy(output) if ops.is_tensor(output) else output
