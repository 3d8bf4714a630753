"""The running statistics of normalization layers, estimated anew from data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import torch
from torch import Tensor, nn

from ...core.errors import EnsembleError
from ...ensemble.arrays import narrow, widen
from ...ensemble.model import Batch
from ...ensemble.weights.moments import Moments
from .state import eager, plain_name

_STATISTICS: Final = ("running_mean", "running_var")


def moving_layers(
    model: nn.Module, members: Iterable[Callable[[], Mapping[str, Tensor]]]
) -> list[str]:
    """The layers with running statistics that are not the same in all members: these are frozen.

    Args:
        model: their structure.
        members: each loads one's tensors, by the plain model's names.
    """
    layers = _normalizations(model)
    names = {
        layer: [plain_name(prefix + name) for name in _STATISTICS]
        for layer, (prefix, _) in layers.items()
    }
    first: dict[str, Tensor] | None = None
    moving: set[str] = set()
    for load in members if layers else ():
        weights = load()
        if first is None:
            first = {name: weights[name] for every in names.values() for name in every}
        for layer, every in names.items():
            if not all(torch.equal(first[name], weights[name]) for name in every):
                moving.add(layer)
    return [layer for layer in layers if layer in moving]


def estimate(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    layers: Sequence[str],
    batches: Iterable[Batch],
    run: Callable[[Batch], object],
) -> dict[str, Tensor]:
    """Weights with the running statistics of the data, as if all had come in one batch.

    Args:
        model: a module that has the weights; it has them again afterwards.
        weights: by the plain model's names.
        layers: as `moving_layers` calls them.
        batches: of the training data.
        run: runs the module on a batch.
    """
    known = _normalizations(model)
    # A layer that stands in several places has moments of all of them.
    found = {known[name][1]: _Seen(known[name][1]) for name in layers}
    eagerly = eager(model)
    if eagerly is None:
        raise EnsembleError(
            "A model with compiled parts must be run by torch 2.6 or newer for its statistics to "
            f"be estimated. Received: torch {torch.__version__}; give the ensemble the model "
            "without torch.compile"
        )
    with ExitStack() as stack:
        stack.enter_context(eagerly)
        for layer, seen in found.items():
            stack.callback(layer.register_forward_pre_hook(seen.look, with_kwargs=True).remove)
            for name in _STATISTICS:
                # Without its own a layer goes by its batch's, in evaluation mode too.
                stack.callback(setattr, layer, name, getattr(layer, name))
                setattr(layer, name, None)
            if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                # It looks here, and not at what it has.
                stack.callback(setattr, layer, "track_running_stats", True)
                layer.track_running_stats = False
        for batch in batches:
            run(batch)
    estimated = dict(weights)
    for prefix, layer in map(known.__getitem__, layers):
        for statistic, value in zip(_STATISTICS, found[layer].values(), strict=False):
            name = plain_name(prefix + statistic)
            estimated[name] = narrow(value, weights[name])
    return estimated


def _normalizations(model: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """The layers with running statistics, with what the names of their tensors begin with.

    A layer that stands in several places is there under each of its names.
    """
    return {
        f"{name}." * bool(name) + type(layer).__name__: (f"{name}." if name else "", layer)
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.modules.batchnorm._NormBase)
        and getattr(layer, "running_mean", None) is not None
    }


class _Seen:
    """The running statistics that a layer would have of the inputs it has seen.

    A layer of BatchNorm has the mean and the variance over all samples and
    positions; one of InstanceNorm the mean, over the samples, of each sample's own.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._instances = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
        # Of each channel's numbers; of each sample's mean, and of its variance.
        self._moments, self._means, self._variances = Moments(), Moments(), Moments()
        self._axes = getattr(layer, "_get_no_batch_dim", lambda: None)()

    def look(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """Take in what a layer is given."""
        x = args[0] if args else kwargs["input"]
        if self._instances and x.ndim == self._axes:
            x = x[None]  # one sample alone
        count = x.numel() // x.shape[1] if x.numel() else 0
        if self._instances and math.prod(x.shape[2:]) < 2:
            raise EnsembleError(
                "Argument `train_data` must give samples of at least two positions, for a layer "
                f"of InstanceNorm to normalize by. Received: an input of shape {tuple(x.shape)}"
            )
        if count < 2:
            raise EnsembleError(
                "Argument `train_data` must give batches of at least two samples, for a layer to "
                f"normalize by. Received: an input of shape {tuple(x.shape)}; give another "
                "train_batch_size, or a loader with drop_last=True"
            )
        x = widen(x)
        if self._instances:
            variances, means = torch.var_mean(x, [*range(2, x.ndim)], correction=1)
            self._means.update(len(x), means.mean(0), 0.0)
            self._variances.update(len(x), variances.mean(0), 0.0)
        else:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
            self._moments.update(count, mean, variance)

    def values(self) -> tuple[Tensor, ...]:
        """The mean and the variance; none where nothing was seen."""
        if self._instances:
            return (self._means.mean, self._variances.mean) if self._means.count else ()
        if not self._moments.count:
            return ()
        return self._moments.mean, self._moments.variance(correction=1)
