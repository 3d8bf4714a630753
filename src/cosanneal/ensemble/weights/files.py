"""The mean of several snapshots as one file of weights, without holding any of them in memory."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.atomic import replacing
from ...core.errors import EnsembleError, MissingExtraError
from ...core.paths import local_path
from ...snapshots.export import check_target
from ...snapshots.file import encode_header, first_mismatch, plan_header
from ...snapshots.finite import all_finite
from ...snapshots.part import rest_mismatch
from ...snapshots.reader import numpy_dtype
from ...snapshots.sources import names_of
from ...snapshots.store import Snapshot

# A multiple of every element's size.
_CHUNK_BYTES: Final = 1 << 18


def average_snapshots(
    snapshots: Iterable[Snapshot],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, ...]:
    """Write the mean of snapshots' tensors as one safetensors file, which has its name when whole.

    `mean = (x_1 + ... + x_n) / n`, in float64, rounded once to the tensor's own dtype

    A piece of each snapshot is in memory at a time, however large they are. An
    element on which all agree stays as it is, bit for bit. Integers and bools
    (counters, indices, masks) have no mean: the newest snapshot's are taken.
    Running statistics, such as BatchNorm's, are averaged like weights, which
    makes them near to those of the averaged weights, not equal: re-estimate
    them on training data.

    Args:
        snapshots: at least one; all of the same tensors.
        path: the file to write. Its metadata say what was averaged; the mean of
            parts of the weights is a part, with the digests of what they leave out.
        overwrite: whether it may replace a file.
        progress: called with the number of bytes read since it was last called.

    Returns:
        The names of the integer and bool tensors on which the snapshots differ.

    Raises:
        EnsembleError: no snapshots; tensors that differ (the first is named), or
            that are not finite; the file exists, would pass for a snapshot, or
            cannot be written.
        SnapshotError: a snapshot is damaged.
        MissingExtraError: bfloat16 or float8, and ml_dtypes is not installed.

    Example:
        >>> from cosanneal.snapshots import SnapshotStore
        >>> def average_last(folder, count):
        ...     return average_snapshots(SnapshotStore(folder).list()[-count:], "mean.safetensors")

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization" (2018), section 3.
    """
    members = sorted(snapshots, key=lambda snapshot: (snapshot.step, snapshot.cycle))
    if not members:
        raise EnsembleError("Argument `snapshots` must hold at least one. Received: none")
    path = local_path(path, error=EnsembleError)
    check_target(path, overwrite, what="an average", error=EnsembleError)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(snapshot.open()) for snapshot in members]
        layout = readers[-1].layout
        for snapshot, reader in zip(members, readers, strict=True):
            mismatch = first_mismatch(reader.layout, layout, owner=members[-1].path.name)
            if mismatch is not None:
                raise EnsembleError(
                    f"Snapshots must have the same tensors to be averaged. Received: "
                    f"{snapshot.path}, unlike the newest: {mismatch}; average those of one model"
                )
        rest = members[-1].metadata["rest"]
        for snapshot in members:
            other = snapshot.metadata["rest"]
            if other != rest:
                differing_rest = rest_mismatch({**(other or {}), **(rest or {})}, other or {})
                raise EnsembleError(
                    "Snapshots that are parts must leave out the same to be averaged. Received: "
                    f"{snapshot.path}, unlike the newest in {differing_rest!r}; average those of "
                    "one run"
                )
        dtypes = {name: _averaged_dtype(dtype) for name, (_, dtype) in layout.items()}
        averaged = [
            {"name": name, "step": each.step, "digest": each.metadata["digest"]}
            for each, name in names_of(members).items()
        ]
        header, order = plan_header(
            layout,
            {
                "averaged": json.dumps(averaged),
                "framework": members[-1].metadata["framework"],
                "taken_from_newest": json.dumps(
                    sorted(name for name, dtype in dtypes.items() if dtype is None)
                ),
                **({} if rest is None else {"rest": json.dumps(rest)}),
            },
        )
        differing = []
        with replacing(path, error=EnsembleError) as file:
            file.write(encode_header(header))
            for name in order:
                differs = False
                # The same part of the tensor in every snapshot, part after part.
                chunks = (reader.chunks(name, _CHUNK_BYTES) for reader in readers)
                for parts in zip(*chunks, strict=True):
                    dtype = dtypes[name]
                    for i, part in enumerate(parts):
                        if not all_finite(part, layout[name][1]) and not readers[i].is_meant(name):
                            raise _nonfinite(members[i], name)
                    if dtype is None:
                        file.write(parts[-1])
                        differs |= any(part != parts[-1] for part in parts)
                    else:
                        file.write(_mean([np.frombuffer(part, dtype) for part in parts]).data)
                    if progress is not None:
                        progress(sum(map(len, parts)))
                if differs:
                    differing.append(name)
            # It may have come meanwhile.
            check_target(path, overwrite, what="an average", error=EnsembleError)
    return tuple(differing)


def _nonfinite(snapshot: Snapshot, name: str) -> EnsembleError:
    return EnsembleError(
        f"The snapshots must be finite to be averaged. Received: {snapshot.path} with a NaN or an "
        f"infinity in its tensor {name!r}, as of a run that diverged; leave it out of `snapshots`"
    )


def _mean(parts: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """The bytes of the mean of arrays of floats."""
    first = parts[0]
    # A power of two, which costs no digit and keeps the sum in range.
    scale = 0.5 ** len(parts).bit_length()
    total = np.zeros(first.shape)
    same = np.ones(first.shape, bool)
    # Infinities are those of a mask.
    with np.errstate(invalid="ignore"):
        for part in parts:
            total += part.astype(np.float64) * scale
            same &= part == first
        mean = _rounded(total / (len(parts) * scale), first.dtype)
    return np.where(same, first, mean).view(np.uint8)


def _rounded(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in another dtype, rounded to nearest, once."""
    if dtype.isbuiltin != 1:
        # ml_dtypes goes by way of float32, which would round twice. Rounded to
        # odd there, a value stays on its side of every tie of the second time.
        near = values.astype(np.float32)
        wide = near.astype(np.float64)
        inexact = np.isfinite(values) & (wide != values)
        bits = near.view(np.uint32)
        bits -= inexact & (np.abs(wide) > np.abs(values))
        bits |= inexact
        return near.astype(dtype)
    return values.astype(dtype)


def _averaged_dtype(name: str) -> np.dtype[Any] | None:
    """The dtype of a tensor's floats; None where they are none."""
    if name == "complex64":
        return np.dtype(np.float32)  # of its two parts in turn
    if "float" not in name:
        return None
    dtype = numpy_dtype(name)
    if dtype is None:
        raise MissingExtraError.for_extra(
            "cli", package="ml_dtypes", needed_by=f"Averaging tensors of {name}"
        )
    return dtype
