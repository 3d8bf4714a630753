"""An ensemble in one file of StableHLO, as jax.export has it, and that file run again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from numpy.typing import NDArray

from ...core.atomic import arriving
from ...core.errors import EnsembleError, MissingExtraError, plural
from ...ensemble.example import check_example
from ...ensemble.structure import described, leaves
from .ensemble import SnapshotEnsemble

FORMATS: Final = ("stablehlo",)


def export_ensemble(
    ensemble: SnapshotEnsemble, path: str | os.PathLike[str], x: Any, *, dtype: Any = None
) -> None:
    """Write an ensemble as one file, for batches of any size.

    It is the function of `ensemble.as_function()` with the members' params in it, as
    `jax.export.deserialize` reads it, for the platform on which it is written. The file has
    its name when it is whole and durable; a file of that name is replaced.

    Args:
        ensemble: one that has predicted.
        path: the file.
        x: an example input, an array of shape (samples, ...); a tuple of such, of a function of
            several beside the params; or a dict of such, which is one argument. The file takes
            what has the dtypes of these.
        dtype: of the members' params, as `as_function` has it, such as jnp.bfloat16; by default
            they are in their own.

    Raises:
        EnsembleError: no such input or dtype; JAX cannot export the function for a batch of any
            size; or as `as_function`.
        MissingExtraError: the package flatbuffers, by which JAX writes, is not installed.

    Example:
        >>> import os, tempfile
        >>> import jax.numpy as jnp, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
        >>> from cosanneal.adapters.jax.export import export_ensemble, run_export
        >>> params, folder = {"kernel": jnp.eye(3)}, tempfile.mkdtemp()
        >>> with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        ...     _ = recorder.step(params)
        >>> ensemble = SnapshotEnsemble(lambda params, x: x @ params["kernel"], folder, params)
        >>> x = 9 * jnp.eye(3)
        >>> predicted = ensemble.predict(x)
        >>> export_ensemble(ensemble, os.path.join(folder, "ensemble.stablehlo"), x)
        >>> (found,) = run_export(os.path.join(folder, "ensemble.stablehlo"), x[:2])
        >>> bool(abs(found - predicted[:2]).max() < 1e-6)
        True
    """
    function, params = ensemble.as_function(dtype=dtype)
    check_example(x, _is_array, "an array")
    (size,) = export.symbolic_shape("batch")
    shapes = [
        jax.tree.map(lambda each: jax.ShapeDtypeStruct((size, *each.shape[1:]), each.dtype), each)
        for each in _arguments(x)
    ]
    with arriving(path, error=EnsembleError) as file:
        try:
            exported = export.export(jax.jit(lambda *x: function(params, *x)))(*shapes)
        except (OSError, EnsembleError):
            raise
        except Exception as error:
            line = next(iter(str(error).strip().splitlines()), "")
            raise EnsembleError(
                "The model must be one that jax.export takes with a batch of any size. Received: "
                f"one that it refuses: {type(error).__name__}: {line}"
            ) from error
        try:
            data = exported.serialize()
        except ModuleNotFoundError as error:
            if error.name != "flatbuffers":
                raise
            raise MissingExtraError(
                "Writing StableHLO needs the package 'flatbuffers', which is not installed. "
                "Install it with: python -m pip install flatbuffers",
                name=error.name,
            ) from error
        file.write_bytes(data)


def run_export(path: str | os.PathLike[str], x: Any) -> list[NDArray[Any]]:
    """What a file that `export_ensemble` wrote gives for a batch.

    Args:
        path: the file.
        x: the batch, of shape (samples, ...), of any number of samples; or a tuple or a dict of
            several, as for `export_ensemble`.

    Returns:
        The outputs, in the order of the ensemble's, as arrays of numpy.

    Raises:
        EnsembleError: no such input, or another than the file takes.
    """
    check_example(x, _is_array, "an array")
    loaded = export.deserialize(bytearray(Path(path).read_bytes()))
    given = _arguments(x)
    taken, keywords = jax.tree.unflatten(loaded.in_tree, loaded.in_avals)
    if jax.tree.structure((given, keywords)) != loaded.in_tree:
        raise EnsembleError(
            f"Argument `x` must be what the file takes: {_form(taken)}. Received: {_form(given)}"
        )
    return [np.asarray(each) for each in leaves(loaded.call(*given))]


def _arguments(x: Any) -> tuple[Any, ...]:
    """What the function takes beside the params, as JAX' arrays."""
    given = x if isinstance(x, tuple) else ({**x},) if isinstance(x, Mapping) else (x,)
    made: tuple[Any, ...] = jax.tree.map(jnp.asarray, given)
    return made


def _form(arguments: tuple[Any, ...]) -> str:
    """What some arguments are, for a message."""
    only = arguments[0] if len(arguments) == 1 else None
    return described(only) if isinstance(only, dict) else plural(len(arguments), "array")


def _is_array(thing: object) -> bool:
    return isinstance(thing, jax.Array | np.ndarray)
