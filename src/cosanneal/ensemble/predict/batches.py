"""A model's input, batch by batch, as often as there are members."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_numpy, check_count

# Numbers of an array by which it is known again, where it has more.
_LOOKED_AT: Final = 4096


class Batches:
    """The batches of an input, each a tuple of a model's arguments.

    Args:
        x: an array, or a tuple of arrays for a model of several arguments, with
            the samples along their first axes; or an iterable of batches (but
            no list): each an array, or a tuple or list whose first item is the input (an
            array, or a tuple or list of them), as data loaders give
            `(x, y)`. What follows the input is not looked at, but by `labels`.
        batch_size: of arrays, so many samples at a time; by default all at once.
        arrays: the framework's kinds of array, as `isinstance` takes them.
        convert: makes one of them of an array of another kind, in a loader's
            batch.
        training: whether they are training data: a loader may then give others
            in every pass, and arrays are cut into batches of about one size,
            of which none is larger.
        name: what an error calls the input.
        pick: the numbers at some places of an array in its flat order, where
            the array's own indexing does not always give them.

    Raises:
        EnsembleError: no such input.
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
    ) -> None:
        size_name = "train_batch_size" if training else "batch_size"
        if batch_size is not None:
            batch_size = check_count(size_name, batch_size)
        self._arrays, self._convert = arrays, convert
        self._training, self._name, self._pick = training, name, pick or _picked
        self._loader: Any = None
        self._arguments: tuple[Any, ...] = ()
        self._prints: list[bytes] = []  # of the first pass' batches
        self._passes = 0
        # A list may be meant for either: several arguments, or several batches.
        loader = isinstance(x, Iterable) and not isinstance(x, tuple | list | str | dict)
        if not loader or hasattr(x, "__array__"):
            self._arguments = x if isinstance(x, tuple) else (x,)
            self._samples = count_samples(self._arguments, arrays, name)
            if training and not self._samples:
                raise EnsembleError(
                    f"Argument `{name}` must have at least one sample. Received: none"
                )
            self._size = batch_size or max(self._samples, 1)
            return
        if batch_size is not None:
            raise EnsembleError(
                f"Argument `{size_name}` must be left out where `{name}` gives batches. "
                f"Received: {size_name}={batch_size} and {shown(x)}"
            )
        self._loader = x

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """One pass over the batches, which must be the same in every pass."""
        if self._loader is None:
            starts = list(range(0, max(self._samples, 1), self._size))
            if self._training:
                starts = [i * self._samples // len(starts) for i in range(len(starts))]
            ends = [*starts[1:], self._samples]
            for start, end in zip(starts, ends, strict=True):
                yield tuple(each[start:end] for each in self._arguments)
            return
        for _, arguments in self._loaded():
            yield arguments

    def labels(self) -> NDArray[Any]:
        """What follows the input in every batch, in one array; that takes a pass of its own.

        Raises:
            EnsembleError: batches without labels.
        """
        if self._loader is None:
            raise EnsembleError(
                "Argument `y_val` must be given where `x_val` is no loader of (x, y). "
                "Received: arrays, and no y_val"
            )
        found: list[NDArray[Any]] = []
        for item, arguments in self._loaded():
            if not isinstance(item, tuple | list) or len(item) < 2:
                raise EnsembleError(
                    "Argument `x_val` must give batches of (x, y) where `y_val` is left out. "
                    f"Received: a batch that is a {type(item).__name__} without labels"
                )
            labels = as_numpy(item[1])
            samples = len(arguments[0])
            if labels.shape[:1] != (samples,):
                raise EnsembleError(
                    "Argument `x_val` must give batches with a label for each sample. Received: "
                    f"{samples} samples, and as labels {shown(item[1])}"
                )
            if found and labels.shape[1:] != found[0].shape[1:]:
                raise EnsembleError(
                    "Argument `x_val` must give labels of one shape, but for the number of "
                    f"samples. Received: {labels.shape} in batch {len(found)}, after "
                    f"{found[0].shape}; pad the batches to one length or size"
                )
            found.append(labels)
        return np.concatenate(found)

    def _loaded(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """One pass over a loader: what it gives, and the arguments in it."""
        first, count = self._passes == 0, 0
        if not first and isinstance(self._loader, Iterator):
            raise EnsembleError(
                f"Argument `{self._name}` must give its batches more than once. Received: "
                f"{shown(self._loader)}, which is over after one pass; give the loader itself"
                + (", or predict with mode='resident', which takes one pass" * (not self._training))
            )
        self._passes += 1
        for item in self._loader:
            arguments = self._input(item)
            seen = _print(arguments, self._pick) if not self._training else b""
            if first:
                self._prints.append(seen)
            elif not self._training and (count >= len(self._prints) or seen != self._prints[count]):
                raise self._unlike(count)
            count += 1
            yield item, arguments
        if not count:
            raise EnsembleError(
                f"Argument `{self._name}` must give at least one batch. "
                f"Received: {shown(self._loader)}"
            )
        if not self._training and count != len(self._prints):
            raise self._unlike(count)

    def _input(self, item: Any) -> tuple[Any, ...]:
        given = item[0] if isinstance(item, tuple | list) and item else item
        arguments = tuple(given) if isinstance(given, tuple | list) else (given,)
        if not arguments or not all(
            isinstance(each, self._arrays) or hasattr(each, "__array__") for each in arguments
        ):
            raise EnsembleError(
                f"Argument `{self._name}` must give batches that are arrays, or tuples or lists "
                f"that begin with the input. Received: a {type(item).__name__} with {shown(given)}"
            )
        arguments = tuple(
            each if isinstance(each, self._arrays) else self._convert(each) for each in arguments
        )
        count_samples(arguments, self._arrays, self._name)
        return arguments

    def _unlike(self, batch: int) -> EnsembleError:
        return EnsembleError(
            "Argument `x` must give the same batches in every pass, since each member has a pass "
            f"of its own. Received: another batch {batch} than before; turn shuffling and random "
            "augmentation off, or predict with mode='resident', which takes one pass"
        )


def count_samples(arguments: tuple[Any, ...], arrays: Any, name: str = "x") -> int:
    """The number of samples in a model's arguments, which lie along their first axes.

    Args:
        arguments: what the model takes.
        arrays: the framework's kinds of array, as `isinstance` takes them.
        name: what an error calls them.

    Raises:
        EnsembleError: arguments of another kind, none, or of differing lengths.
    """
    if not arguments or not all(isinstance(each, arrays) and each.ndim for each in arguments):
        kinds = ", ".join(type(each).__name__ for each in arguments)
        choices = arrays if isinstance(arrays, tuple) else (arrays,)
        known = " or ".join(each.__name__ for each in choices)
        raise EnsembleError(
            f"Argument `{name}` must be an array ({known}) with the samples along its first axis, "
            "a tuple of such (a model's arguments), or a loader of batches. "
            f"Received: {kinds or 'an empty tuple'}"
        )
    sizes = [len(each) for each in arguments]
    if len(set(sizes)) != 1:
        raise EnsembleError(
            f"The arrays of `{name}` must have the same number of samples. Received: {sizes}"
        )
    return sizes[0]


def _print(arguments: tuple[Any, ...], pick: Callable[[Any, NDArray[np.intp]], Any]) -> bytes:
    """What a batch is known by: its shapes, and its numbers, or many of them."""
    found = hashlib.blake2b(digest_size=16)
    for each in arguments:
        size = math.prod(each.shape)
        numbers = pick(each, _places(size)) if size > _LOOKED_AT else each
        found.update(repr(tuple(each.shape)).encode())
        numbers = as_numpy(numbers)
        # Of Python's objects, such as a text's, an array holds where they lie.
        known = repr(numbers.tolist()).encode() if numbers.dtype.hasobject else numbers.tobytes()
        found.update(known)
    return found.digest()


def _picked(array: Any, places: NDArray[np.intp]) -> Any:
    flat = array if hasattr(array, "reshape") else as_numpy(array)
    return flat.reshape(-1)[places]


@functools.lru_cache(maxsize=8)
def _places(length: int) -> NDArray[np.intp]:
    """Where to look at an array.

    At random: places at equal distances would be the same border of every image.
    """
    return np.sort(np.random.default_rng(length).integers(length, size=_LOOKED_AT))
