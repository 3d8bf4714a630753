"""What writes the ensembles of each framework, which is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import CosannealError

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
        write: `write(path, x, format)` writes it.
        run: `run(path, x, format)` gives the outputs of what was written.
        arrays: makes arrays of numpy of a prediction.
    """

    ensemble: Any
    write: Callable[[Path, NDArray[Any], str], None]
    run: Callable[[Path, NDArray[Any], str], list[NDArray[Any]]]
    arrays: Callable[[Any], list[NDArray[Any]]]


def of_torch(build: Callable[[], Any], text: str, folder: str, options: Any) -> Shipping:
    """That of a function that builds a module."""
    from ..adapters.torch import SnapshotEnsemble
    from ..adapters.torch.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    model = build()
    from torch.nn import Module

    _check(isinstance(model, Module), "a torch.nn.Module", "torch", model, text)
    ensemble = SnapshotEnsemble(model, folder, **options)
    return Shipping(
        ensemble,
        lambda path, x, format: export_ensemble(ensemble, path, x, format=format),  # noqa: A006
        lambda path, x, format: run_export(path, x, format=format),  # noqa: A006
        lambda found: [each.detach().cpu().numpy() for each in leaves(found)],
    )


def of_keras(build: Callable[[], Any], text: str, folder: str, options: Any) -> Shipping:
    """That of a function that builds a model; it is built for each member."""
    import numpy as np

    from ..adapters.keras import SnapshotEnsemble
    from ..adapters.keras.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    model = build()
    from keras import Model
    from keras.ops import convert_to_numpy

    _check(isinstance(model, Model), "a keras.Model", "keras", model, text)
    ensemble = SnapshotEnsemble(build, folder, **options)
    return Shipping(
        ensemble,
        lambda path, x, format: export_ensemble(ensemble, path, format=format),  # noqa: A006, ARG005
        lambda path, x, format: run_export(path, x, format=format),  # noqa: A006
        lambda found: [np.asarray(convert_to_numpy(each)) for each in leaves(found)],
    )


def of_jax(build: Callable[[], Any], text: str, folder: str, options: Any) -> Shipping:
    """That of a function that gives the apply function and params."""
    import numpy as np

    from ..adapters.jax import SnapshotEnsemble
    from ..adapters.jax.export import export_ensemble, run_export
    from ..ensemble.structure import leaves

    made = build()
    known = isinstance(made, tuple) and len(made) == 2 and callable(made[0])
    _check(known, "the apply function and params, a tuple of two,", "jax", made, text)
    apply_fn, params = made
    ensemble = SnapshotEnsemble(apply_fn, folder, like=params, **options)
    return Shipping(
        ensemble,
        lambda path, x, format: export_ensemble(ensemble, path, x),  # noqa: A006, ARG005
        lambda path, x, format: run_export(path, x),  # noqa: A006, ARG005
        lambda found: [np.asarray(each) for each in leaves(found)],
    )


SHIPPINGS: Final = {"torch": of_torch, "keras": of_keras, "jax": of_jax}


def _check(known: bool, what: str, framework: str, made: object, text: str) -> None:
    if not known:
        raise CosannealError(
            f"The function of --model must return {what} for snapshots of {framework}. "
            f"Received: {type(made).__name__} from {text}"
        )
