"""What writes the ensembles of each framework, which is imported when it is asked for."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import CosannealError
from .samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What can be written of the snapshots of each framework.
FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "torch": ("onnx", "pt2"),
    "keras": ("keras", "onnx", "savedmodel"),
    "jax": ("stablehlo",),
}


@dataclass(frozen=True, slots=True)
class Shipping:
    """An ensemble of a framework, and how it is written.

    Args:
        ensemble: the ensemble.
        take: makes of samples what the model takes.
        write: `write(path, x, format)` writes it, of such.
        run: `run(path, x, format)` gives the outputs of what was written.
        arrays: makes arrays of numpy of a prediction.
    """

    ensemble: Any
    take: Callable[[Samples], Any]
    write: Callable[[Path, Any, str], None]
    run: Callable[[Path, Any, str], list[NDArray[Any]]]
    arrays: Callable[[Any], list[NDArray[Any]]]


def of_torch(
    build: Callable[[], Any],
    text: str,
    folder: str,
    options: Any,
    samples: Samples,
    dtype: str | None,
) -> Shipping:
    """That of a function that builds a module."""
    from ..adapters.torch import SnapshotEnsemble
    from ..adapters.torch.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    model = build()
    import torch
    from torch.nn import Module

    _check(isinstance(model, Module), "a torch.nn.Module", "torch", model, text)
    forward = _whole(model.forward, samples)
    if forward is None:
        _refuse_labels(samples)
    ensemble = SnapshotEnsemble(model, folder, forward=forward, **options)
    held = None if dtype is None else getattr(torch, dtype)
    return Shipping(
        ensemble,
        Samples.given,
        lambda path, x, format: export_ensemble(  # noqa: A006
            ensemble, path, x, format=format, dtype=held
        ),
        lambda path, x, format: run_export(path, x, format=format),  # noqa: A006
        lambda found: [each.detach().cpu().numpy() for each in leaves(found)],
    )


def of_keras(
    build: Callable[[], Any],
    text: str,
    folder: str,
    options: Any,
    samples: Samples,
    dtype: str | None,
) -> Shipping:
    """That of a function that builds a model; it is built for each member."""
    import numpy as np

    from ..adapters.keras import SnapshotEnsemble
    from ..adapters.keras.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    model = build()
    from keras import Model
    from keras.ops import convert_to_numpy

    _check(isinstance(model, Model), "a keras.Model", "keras", model, text)
    take = partial(_of_inputs, getattr(model, "input", None), getattr(model, "inputs", None) or [])
    take(samples)  # or it is said before anything is read
    ensemble = SnapshotEnsemble(build, folder, **options)
    return Shipping(
        ensemble,
        take,
        lambda path, x, format: export_ensemble(  # noqa: A006, ARG005
            ensemble, path, format=format, dtype=dtype
        ),
        lambda path, x, format: run_export(path, x, format=format),  # noqa: A006
        lambda found: [np.asarray(convert_to_numpy(each)) for each in leaves(found)],
    )


def of_jax(
    build: Callable[[], Any],
    text: str,
    folder: str,
    options: Any,
    samples: Samples,
    dtype: str | None,
) -> Shipping:
    """That of a function that gives the apply function and params."""
    import numpy as np

    from ..adapters.jax import SnapshotEnsemble
    from ..adapters.jax.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    made = build()
    known = isinstance(made, tuple) and len(made) == 2 and callable(made[0])
    _check(known, "the apply function and params, a tuple of two,", "jax", made, text)
    _refuse_labels(samples)
    apply_fn, params = made
    ensemble = SnapshotEnsemble(apply_fn, folder, like=params, **options)
    return Shipping(
        ensemble,
        Samples.given,
        lambda path, x, format: export_ensemble(  # noqa: A006, ARG005
            ensemble, path, x, dtype=dtype
        ),
        lambda path, x, format: run_export(path, x),  # noqa: A006, ARG005
        lambda found: [np.asarray(each) for each in leaves(found)],
    )


def _refuse_labels(samples: Samples) -> None:
    """Refuse inputs with names under which `predict` has labels."""
    from ..ensemble.predict.batches import LABEL_NAMES

    for name in samples.names:
        if name in LABEL_NAMES:
            raise CosannealError(
                "Options --input and --shape must have none of the names "
                f"{', '.join(LABEL_NAMES)}, under which an ensemble takes labels. "
                f"Received: {name}; leave labels out, and give an input another name"
            )


def _whole(forward: Callable[..., Any], samples: Samples) -> Callable[[Any, Any], Any] | None:
    """How a module is run that takes named inputs as one dict, and not by keyword."""
    if not samples.names:
        return None
    with contextlib.suppress(ValueError):  # which says nothing of its arguments
        signature = inspect.signature(forward)
        try:
            signature.bind(**samples.given())
        except TypeError:
            with contextlib.suppress(TypeError):
                signature.bind(samples.given())
                return lambda model, batch: model(batch)
    return None


def _of_inputs(form: Any, inputs: Sequence[Any], samples: Samples) -> Any:
    """Samples in the form in which a Keras model takes its inputs, where it says so.

    Args:
        form: its inputs, as it was built of them; None where they are not known.
        inputs: the same, in a list.
        samples: the samples.

    Raises:
        CosannealError: others than it has, or such as the command line cannot give.
    """
    if not inputs:
        return samples.given()
    named = isinstance(form, Mapping)
    names = [*form] if named else [each.name for each in inputs]
    flat = form.values() if named else form if isinstance(form, list | tuple) else inputs
    if any(isinstance(each, Mapping | list | tuple) for each in flat):
        raise CosannealError(
            "The model of --model must take an array, a list or a dict of arrays. Received: one "
            f"that takes nested inputs, {', '.join(names)}; build it of a list of them"
        )
    given = samples.names or (() if named and len(names) > 1 else names)
    if {*given} != {*names} or len(samples.arrays) != len(names):
        came = ", ".join(samples.names) or f"{len(samples.arrays)} without a name"
        raise CosannealError(
            f"Options --input and --shape must be given for each of the model's inputs: "
            f"{', '.join(names)}{', by name' if named else ''}. Received: {came}"
        )
    by_name = dict(zip(given, samples.arrays, strict=True))
    if named:
        return {name: by_name[name] for name in names}
    return [by_name[name] for name in names] if len(names) > 1 else samples.arrays[0]


SHIPPINGS: Final = {"torch": of_torch, "keras": of_keras, "jax": of_jax}


def _check(known: bool, what: str, framework: str, made: object, text: str) -> None:
    if not known:
        raise CosannealError(
            f"The function of --model must return {what} for snapshots of {framework}. "
            f"Received: {type(made).__name__} from {text}"
        )
