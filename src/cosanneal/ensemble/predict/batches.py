"""A model's input, batch by batch, as often as there are members."""

from __future__ import annotations

import copy
import functools
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, plural, shown
from ..arrays import as_numpy, check_count
from ..structure import described, leaves, map_leaves, named_leaves, parts
from .share import Share, Shared

# The names under which labels stand in a dict batch.
LABEL_NAMES: Final = ("labels", "label", "y")
# Samples at a time, of arrays. Fewer cost time where samples are small (three times as much at
# 32 of 20 numbers each), and more cost memory and save none.
BATCH_SIZE: Final = 256
# Numbers of an array by which it is known again, where it has more.
_LOOKED_AT: Final = 4096
# What holds no array, and is not looked into.
_PLAIN: Final = (str, bytes, int, float, complex, np.generic, type(None))


@dataclass(frozen=True)
class Whole:
    """A batch as a loader gave it, for the user's own function to run the model on.

    Args:
        given: the batch.
    """

    given: Any


class Batches:
    """The batches of an input, each what a model is given for some samples.

    An input is an array, with the samples along its first axis; or arrays in a
    structure: a dict of inputs by name, a tuple of a model's several arguments, a
    record. It is cut into batches. Nested lists of numbers are arrays, and arrays of
    other frameworks are converted. Or it is an iterable of batches, such as a data
    loader: each is an input, or a tuple or list that begins with one, as in `(x, y)` or
    `(x, y, sample_weight)`. Further entries of these are not looked at. A list is
    taken for batches where it holds nothing but dicts, or tuples.

    Labels are what stands second in `(x, y)`; and of a dict, a named tuple or another
    record what is called "labels", "label" or "y". They are taken out of a dict before
    it goes into the model; of a named tuple, what stands before them does. Without
    such names, one of two or three fields is read as `(x, y)` is, where a loader gives
    it, and any other is one argument. What else is in a loader's batch, such as texts,
    numbers or None, is passed on as it is.

    A batch is a tuple of arguments, or a dict of them. With `whole` it is a `Whole` of what
    the loader gave, with the labels, or of a cut through all of the arrays; no more than
    that these are converted.

    Args:
        x: the input.
        batch_size: of arrays, so many samples at a time; by default `usual_size`, in
            batches of about one size.
        arrays: the framework's kinds of array, as `isinstance` takes them.
        convert: makes one of them of an array of another kind, or of a nested list of
            numbers; one that it cannot convert, it gives back or raises a TypeError or
            ValueError of.
        training: whether they are training data: a loader may then give others
            in every pass, and arrays are all in one batch by default, or cut into
            batches of about one size, of which none is larger.
        name: what an error calls the input.
        pick: the numbers at some places of an array in its flat order, where
            the array's own indexing does not always give them.
        cut: the samples of an array from one place to another, likewise.
        take: the samples of an array at some places, likewise.
        whole: whether batches are given as they come.
        label_names: the names of labels.
        lists: whether a list of arrays is several arguments, as a tuple is.
        usual_size: samples at a time where nothing is said; None for all at once.
        share: what a loader gives of all samples, where each of several processes has a part.
        rows: makes a batch of the samples at some places of another, which is a tuple or a
            dict of arrays, where that is less work than the whole one, or gives None. It may
            have more samples after them: where batches of every size are compiled, `bucket`
            says how many it should have. By default there is no way.
        linked: whether a model's outputs depend on the batches before, so that none may be left
            out.

    Raises:
        EnsembleError: no such input.

    Attributes:
        are_linked: whether a model's outputs depend on the batches before.
        shared: what makes the results of all samples of those of these batches.
    """

    def __init__(
        self,
        x: Any,
        *,
        batch_size: int | None,
        arrays: Any,
        convert: Callable[[Any], Any],
        training: bool = False,
        name: str = "x",
        pick: Callable[[Any, NDArray[np.intp]], Any] | None = None,
        cut: Callable[[Any, int, int], Any] | None = None,
        take: Callable[[Any, NDArray[np.intp]], Any] | None = None,
        whole: bool = False,
        label_names: Collection[str] = LABEL_NAMES,
        lists: bool = False,
        usual_size: int | None = BATCH_SIZE,
        share: Share | None = None,
        rows: Callable[[Any, NDArray[np.intp]], Any] | None = None,
        linked: bool = False,
    ) -> None:
        size_name = "train_batch_size" if training else "batch_size"
        if batch_size is not None:
            batch_size = check_count(size_name, batch_size)
        self._arrays, self._convert, self._whole = arrays, convert, whole
        self._label_names, self._training, self._name = label_names, training, name
        self._pick, self._cut = pick or _picked, cut or _sliced
        self._take = take or (lambda array, places: array[places])
        self.shared: Shared = Shared(share)
        if training and share is not None:
            raise EnsembleError(
                f"Argument `{name}` must give every process the same samples, since each estimates "
                "the statistics by itself. Received: a loader of this process' share of them; give "
                "arrays, or a loader without a distributed sampler"
            )
        self._rows = rows
        self.are_linked: bool = linked
        self._loader: Any = None
        self._prints: list[bytes] = []  # of the first pass' batches
        self._passes = 0
        if isinstance(x, list) and lists and not _is_nested_list(x) and not _is_of_batches(x):
            x = tuple(x)
        if _is_loader(x):
            if batch_size is not None:
                raise EnsembleError(
                    f"Argument `{size_name}` must be left out where `{name}` gives batches. "
                    f"Received: {size_name}={batch_size} and {shown(x)}"
                )
            self._loader = x
            return
        x = map_leaves(self._prepared, x, _is_nested_list)
        self._samples = self._count(x)
        if training and not self._samples:
            raise EnsembleError(f"Argument `{name}` must have at least one sample. Received: none")
        self._batch, self._labels = self._read(x, loaded=False)
        self._check_input(self._batch, x)
        self._evenly = training or batch_size is None
        usual = self._samples if training or usual_size is None else usual_size
        self._size = max(batch_size or usual, 1)

    def __iter__(self) -> Iterator[Any]:
        """One pass over the batches, which must be the same in every pass."""
        if self._loader is not None:
            for _, batch in self._loaded():
                yield batch
            return
        starts = list(range(0, max(self._samples, 1), self._size))
        if len(starts) == 1:
            yield map_leaves(self._taken, self._batch)
            return
        if self._evenly:
            starts = [i * self._samples // len(starts) for i in range(len(starts))]
        for start, end in zip(starts, [*starts[1:], self._samples], strict=True):
            part = functools.partial(self._part, start=start, end=end)
            yield map_leaves(part, self._batch)

    @property
    def are_cut(self) -> bool:
        """Whether they are of arrays, and no loader's."""
        return self._loader is None

    @property
    def samples(self) -> int | None:
        """How many samples arrays have; None of a loader, which does not say."""
        return None if self._loader is not None else self._samples

    def at(self, places: NDArray[np.intp]) -> Batches | None:
        """The batches of the samples of arrays at some places, in order, without their labels.

        None where an array lets nothing be taken of it, such as a nested tensor.
        """
        found = copy.copy(self)
        try:
            found._batch = map_leaves(lambda leaf: self._take(leaf, places), self._batch)
        except (TypeError, IndexError, RuntimeError, NotImplementedError):
            return None
        found._samples, found._labels = len(places), {}
        return found

    def some(self, batch: Any, places: NDArray[np.intp]) -> Any:
        """The samples of a batch at some places, in order, and maybe others after them.

        Args:
            batch: one of these, of which `rows_of` knows the number of samples.
            places: one at least.

        Returns:
            A batch; None where the whole one is to be run.
        """
        return None if self._rows is None else self._rows(batch, places)

    def labels(
        self,
        of: Callable[[Any], Any] | None = None,
        titles: tuple[str, str] = ("x_val", "y_val"),
    ) -> NDArray[Any] | list[NDArray[Any]]:
        """The labels: of arrays in one; of a loader those of each batch, by a pass of their own.

        Args:
            of: makes the array of what is given as labels, where that is none.
            titles: what an error calls the input, and the labels.

        Raises:
            EnsembleError: batches without labels.
        """
        x, y = titles
        if self._loader is None:
            if not self._labels:
                raise EnsembleError(
                    f"Argument `{y}` must be given where `{x}` is no loader of (x, y), and no "
                    f"dict with {self._known_names}. Received: arrays, and no {y}"
                )
            return self._checked_labels(self._labels, self._samples, of, x)
        found: list[NDArray[Any]] = []
        for given, batch in self._loaded():
            if not given:
                came = batch.given if isinstance(batch, Whole) else batch
                raise EnsembleError(
                    f"Argument `{x}` must give batches of (x, y), or dicts with "
                    f"{self._known_names}, where `{y}` is left out. Received: {described(came)} "
                    f"without labels; have it give them so, or give those of all as `{y}`"
                )
            found.append(self._checked_labels(given, samples_of(batch), of, x))
        return found

    def _checked_labels(
        self,
        given: Mapping[str, Any],
        samples: int | None,
        of: Callable[[Any], Any] | None,
        title: str,
    ) -> NDArray[Any]:
        """The labels under the one name there is, with as many rows as there are samples."""
        self._check_names(given)
        ((_, labels),) = given.items()
        found = as_numpy(labels if of is None else of(labels))
        if not found.ndim or samples not in (None, len(found)):
            there = "samples" if samples is None else plural(samples, "sample")
            raise EnsembleError(
                f"Argument `{title}` must give batches with a label for each sample. Received: "
                f"{there}, and as labels {shown(labels)}"
            )
        return found

    def _loaded(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """One pass over a loader: the labels, by name, and the batch for the model."""
        first, count = self._passes == 0, 0
        if not first and isinstance(self._loader, Iterator):
            raise EnsembleError(
                f"Argument `{self._name}` must give its batches more than once. Received: "
                f"{shown(self._loader)}, which is over after one pass; give the loader itself"
                + (", or predict with mode='resident', which takes one pass" * (not self._training))
            )
        self._passes += 1
        for item in self._loader:
            batch, labels = self._read(item, loaded=True)
            batch = map_leaves(self._taken, batch, None if self._whole else _is_nested_list)
            self._check_input(batch, item)
            seen = _print(batch, self._pick) if not self._training else b""
            if first:
                self._prints.append(seen)
            elif not self._training and (count >= len(self._prints) or seen != self._prints[count]):
                raise self._unlike(count)
            count += 1
            yield labels, batch
        if not count:
            raise EnsembleError(
                f"Argument `{self._name}` must give at least one batch. "
                f"Received: {shown(self._loader)}"
            )
        if not self._training and count != len(self._prints):
            raise self._unlike(count)

    def _read(self, item: Any, *, loaded: bool) -> tuple[Any, dict[str, Any]]:
        """The batch for the model in what is given, and the labels beside it, by name.

        Args:
            item: an input, or a loader's batch.
            loaded: whether a tuple or list begins with the input, and is not one itself.
        """
        given, labels = item, {}
        while loaded and type(given) in (tuple, list) and len(given) == 1:
            (given,) = given
        if isinstance(given, Mapping):
            labels = {name: given[name] for name in self._label_names if name in given}
            if labels or not isinstance(given, dict):
                given = {name: given[name] for name in given if name not in labels}
        elif isinstance(given, tuple | list):
            fields: tuple[str, ...] = getattr(given, "_fields", ())
            places = [i for i, name in enumerate(fields) if name in self._label_names]
            labels = {fields[i]: given[i] for i in places}
            if labels:
                before = tuple(given[: places[0]]) or tuple(given[places[-1] + 1 :])
                given = before if len(before) > 1 else before[0] if before else ()
            elif loaded and given and not _is_record(given) and not _is_nested_list(given):
                labels = {"y": given[1]} if len(given) > 1 else {}
                given = given[0]
        elif not hasattr(given, "shape"):
            labels = {name: getattr(given, name, None) for name in self._label_names}
        labels = {name: each for name, each in labels.items() if each is not None}
        if self._whole:
            return Whole(item), labels
        self._check_names(labels)
        if isinstance(given, Mapping):
            return given, labels
        several = type(given) in (tuple, list) and not _is_nested_list(given)  # of numbers
        return (tuple(given) if several else (given,)), labels

    def _check_input(self, batch: Any, item: Any) -> None:
        """Refuse a batch without arrays, but where the user's function knows what to do of it."""
        if not self._whole and all(isinstance(each, _PLAIN) for each in leaves(batch)):
            raise EnsembleError(
                f"Argument `{self._name}` must give batches that are arrays, dicts of them, or "
                "tuples or lists that begin with the input. "
                f"Received: a {type(item).__name__} with {shown(batch)}"
            )

    def _check_names(self, labels: Mapping[str, Any]) -> None:
        if len(labels) > 1:
            names = " and ".join(map(repr, labels))
            raise EnsembleError(
                f"Argument `{self._name}` must hold labels under one of the names "
                f"{self._known_names}. Received: {names}; take all but one out"
            )

    @property
    def _known_names(self) -> str:
        return " or ".join(map(repr, self._label_names))

    def _prepared(self, leaf: Any) -> Any:
        """A leaf of the input as an array that can be cut."""
        if isinstance(leaf, list):
            try:
                return np.asarray(leaf)
            except ValueError as error:
                raise EnsembleError(
                    f"The nested lists of `{self._name}` must be of one length each. "
                    f"Received: {shown(leaf)}; pad them, or give batches by a loader"
                ) from error
        if isinstance(leaf, np.ndarray) or not _is_array(leaf):
            return leaf
        return leaf if isinstance(leaf, self._arrays) else as_numpy(leaf)

    def _taken(self, leaf: Any) -> Any:
        """A leaf of a batch in the framework's kind of array, if it can be one."""
        if isinstance(leaf, self._arrays) or not (_is_array(leaf) or isinstance(leaf, list)):
            return leaf
        try:
            found = self._convert(leaf)
        except (TypeError, ValueError):
            return leaf
        return found if isinstance(found, self._arrays) else leaf

    def _part(self, leaf: Any, start: int, end: int) -> Any:
        return self._taken(self._cut(leaf, start, end))

    def _count(self, x: Any) -> int:
        """The number of samples in arrays, along their first axes."""
        sizes = []
        for path, each in named_leaves(x):
            usable = _is_array(each) and len(each.shape)
            if usable and not isinstance(each, self._arrays):
                usable = isinstance(self._taken(each[:0]), self._arrays)
            if not usable:
                raise self._no_array(path, each)
            sizes.append(int(each.shape[0]))
        if not sizes or isinstance(x, list):
            raise self._no_array("", x)
        if len(set(sizes)) != 1:
            raise EnsembleError(
                f"The arrays of `{self._name}` must have the same number of samples. "
                f"Received: {sizes}"
            )
        return sizes[0]

    def _no_array(self, path: str, received: Any) -> EnsembleError:
        choices = self._arrays if isinstance(self._arrays, tuple) else (self._arrays,)
        known = " or ".join(each.__name__ for each in dict.fromkeys((*choices, np.ndarray)))
        kind = type(received).__name__
        if hasattr(received, "dtype"):
            kind += f" of {received.dtype} and shape {tuple(received.shape)}"
        hint = ""
        if isinstance(received, list):
            hint = "; give several arguments as a tuple, and several batches by a loader"
        elif path:
            hint = f" as {self._name}{path}; take it out, or give batches by a loader"
        return EnsembleError(
            f"Argument `{self._name}` must be an array ({known}) with the samples along its first "
            "axis, a tuple (a model's arguments) or a dict of such, or a loader of batches. "
            f"Received: {'nothing' if parts(received) == {} else kind}{hint}"
        )

    def _unlike(self, batch: int) -> EnsembleError:
        return EnsembleError(
            "Argument `x` must give the same batches in every pass, since each member has a pass "
            f"of its own. Received: another batch {batch} than before; turn shuffling and random "
            "augmentation off, or predict with mode='resident', which takes one pass"
        )


def samples_of(batch: Any) -> int | None:
    """How many samples a batch has: the one length of its arguments' first axes, if it is one.

    None where it is not known: of structures, as the arrays in them need not have a row for
    each sample (such as the nodes of some graphs); of several lengths; or of none.
    """
    if not isinstance(batch, tuple):
        return None
    lengths = {int(each.shape[0]) if _is_array(each) and len(each.shape) else -1 for each in batch}
    found = lengths.pop() if len(lengths) == 1 else -1
    return None if found < 0 else found


def rows_of(batch: Any) -> int | None:
    """How many samples a batch has, of which some can be taken: also of a dict of arrays.

    None where it is no tuple and no dict of arrays, or where these differ in length.
    """
    return samples_of(tuple(batch.values()) if type(batch) is dict else batch)


def map_arrays(take: Callable[[Any], Any], batch: Any) -> Any:
    """A batch that is a tuple or a dict of arrays, with something else of each."""
    if isinstance(batch, dict):
        return {name: take(each) for name, each in batch.items()}
    return tuple(take(each) for each in batch)


def bucket(places: NDArray[np.intp], samples: int) -> NDArray[np.intp] | None:
    """Places of samples, the first of them again until there are as many as one of a few sizes.

    The sizes are a half, a quarter and an eighth of the least power of two that holds all
    samples, so that three sizes of batches are compiled at most, and unlike batches share them.

    Args:
        places: the places; one at least.
        samples: how many samples there are.

    Returns:
        The places; None where they are more than the greatest size.

    Example:
        >>> bucket(np.array([3, 5, 6]), 20).tolist()
        [3, 5, 6, 3]
    """
    whole = 1 << (samples - 1).bit_length()
    sizes = [size for size in (whole // 8, whole // 4, whole // 2) if len(places) <= size < samples]
    if not sizes:
        return None
    return np.concatenate([places, np.repeat(places[:1], sizes[0] - len(places))])


def arrays_of(batch: Any) -> list[Any]:
    """The arrays in a batch, in its own order."""
    return [each for each in leaves(batch) if _is_array(each)]


def _is_array(leaf: Any) -> bool:
    return (
        hasattr(leaf, "__array__") and hasattr(leaf, "shape") and not isinstance(leaf, np.generic)
    )


def _is_loader(x: Any) -> bool:
    """Whether an input is batches, and not arrays."""
    if isinstance(x, list):
        return _is_of_batches(x)
    containers = (tuple, str, bytes, Mapping)
    return isinstance(x, Iterable) and not isinstance(x, containers) and not hasattr(x, "__array__")


def _is_of_batches(x: list[Any]) -> bool:
    return bool(x) and (
        all(isinstance(each, Mapping) for each in x) or all(isinstance(each, tuple) for each in x)
    )


def _is_record(x: tuple[Any, ...] | list[Any]) -> bool:
    """Whether a named tuple is one input, such as a graph, and no `(x, y)` or `(x, y, weight)`."""
    return hasattr(x, "_fields") and len(x) > 3


def _is_nested_list(node: Any) -> bool:
    """Whether something is a list, or lists within one, of numbers or texts."""
    if type(node) is not list or not all(isinstance(each, (list, *_PLAIN)) for each in node):
        return False
    while type(node) is list and node:
        node = node[0]
    return isinstance(node, str | bool | int | float | complex | np.generic)


def _print(batch: Any, pick: Callable[[Any, NDArray[np.intp]], Any]) -> bytes:
    """What a batch is known by: its names and shapes, and its numbers, or many of them."""
    found = hashlib.blake2b(digest_size=16)
    for path, each in named_leaves(batch):
        found.update(path.encode())
        if isinstance(each, _PLAIN):
            found.update(repr(each).encode())
        elif _is_array(each):
            size = math.prod(each.shape)
            found.update(repr(tuple(each.shape)).encode())
            try:
                numbers = as_numpy(pick(each, _places(size)) if size > _LOOKED_AT else each)
            except (TypeError, RuntimeError, ValueError):  # such as a sparse tensor
                continue
            # Of Python's objects, such as a text's, an array holds where they lie.
            known = (
                repr(numbers.tolist()).encode() if numbers.dtype.hasobject else numbers.tobytes()
            )
            found.update(known)
        else:  # which may say of itself where it lies
            found.update(type(each).__name__.encode())
    return found.digest()


def _sliced(array: Any, start: int, end: int) -> Any:
    return array[start:end]


def _picked(array: Any, places: NDArray[np.intp]) -> Any:
    flat = array if hasattr(array, "reshape") else as_numpy(array)
    return flat.reshape(-1)[places]


@functools.lru_cache(maxsize=8)
def _places(length: int) -> NDArray[np.intp]:
    """Where to look at an array.

    At random: places at equal distances would be the same border of every image.
    """
    return np.sort(np.random.default_rng(length).integers(length, size=_LOOKED_AT))
