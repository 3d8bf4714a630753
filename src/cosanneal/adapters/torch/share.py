"""Loaders that deal the samples of a dataset out to the processes of torch.distributed."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, SequentialSampler

from ...core.errors import EnsembleError
from ...snapshots.ranks import Ranks, Together
from .ranks import DefaultGroup, are_several


def share_of(x: Any, name: str = "x") -> LoaderShare | None:
    """This process' share of a dataset, where `x` is a loader that deals it out; None if not.

    All processes must ask.

    Raises:
        EnsembleError: in every process, a loader of which it cannot be known which samples it
            gives, or loaders that leave some out.
    """
    if not are_several():
        return None
    # Those of accelerate have one of torch's within.
    loader = x if isinstance(x, DataLoader) else getattr(x, "base_dataloader", None)
    if not isinstance(loader, DataLoader):
        return None
    by_batches = hasattr(loader.batch_sampler, "process_index")  # of accelerate
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if not by_batches and not hasattr(sampler, "num_replicas"):
        return None
    dataset: Any = loader.dataset
    ranks = Together(DefaultGroup(), EnsembleError)

    def indices() -> list[int]:
        batch_sampler: Any = loader.batch_sampler
        dealt = batch_sampler.batch_sampler.sampler if by_batches else None
        if by_batches and type(dealt) is not SequentialSampler:
            kind = type(dealt).__name__
            raise EnsembleError(
                f"Argument `{name}` must not shuffle, where a prepared loader gives each process "
                f"a share of the samples. Received: one with a {kind}; make it with shuffle=False"
            )
        if batch_sampler is None:
            return [int(i) for i in loader.sampler]
        return [int(i) for batch in batch_sampler for i in batch]

    return LoaderShare(ranks.agreed(indices), len(dataset), name)


class LoaderShare:
    """What this process has of a dataset; see `cosanneal.ensemble.predict.share.Share`.

    Args:
        indices: of the samples that its loader gives, in order.
        samples: how many the dataset has.
        name: what an error calls the loader.

    Raises:
        EnsembleError: in every process, where datasets are of several lengths, or some
            samples are nowhere.
    """

    def __init__(self, indices: list[int], samples: int, name: str) -> None:
        self._group, self._name = DefaultGroup(), name
        self.ranks: Ranks = Together(self._group, EnsembleError)
        said = [json.loads(each) for each in self._group.everyones(json.dumps([samples, indices]))]
        sizes = [each[0] for each in said]
        self._counts = [len(each[1]) for each in said]
        # Some are dealt out twice, so that all processes have as many.
        known, places = np.unique(np.concatenate([each[1] for each in said]), return_index=True)
        if set(sizes) != {samples} or not np.array_equal(known, np.arange(samples)):
            there = f"datasets of {sizes} samples" if len(set(sizes)) > 1 else ""
            raise EnsembleError(
                f"Argument `{name}` must deal every sample of one dataset out to some process, so "
                "that rows can be put in order. Received: "
                + (there or f"{len(known)} of {samples} samples; make it without drop_last")
            )
        self._places = torch.from_numpy(places)

    def whole(self, rows: Any) -> Any:
        """The rows of all processes in the order of the dataset, none twice."""
        if isinstance(rows, np.ndarray) and rows.dtype.kind not in "biufc":
            return self._texts(rows)
        tensor = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
        self._check(len(tensor), f"{tensor.dtype}, a row of shape {tuple(tensor.shape[1:])}")
        width = math.prod(tensor.shape[1:]) * tensor.element_size()
        if not width:
            found = tensor.new_empty((len(self._places), *tensor.shape[1:]))
            return found.numpy() if isinstance(rows, np.ndarray) else found
        flat = tensor.contiguous().reshape(-1).view(torch.uint8).reshape(-1, width)
        gathered = torch.cat(self._group.gathered(flat, self._counts))
        ordered = gathered[self._places.to(gathered.device)].reshape(-1).view(tensor.dtype)
        found = ordered.reshape(-1, *tensor.shape[1:]).to(tensor.device)
        return found.numpy() if isinstance(rows, np.ndarray) else found

    def _texts(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Labels that are no numbers."""
        given = rows.tolist()
        failure = "" if all(isinstance(each, str) for each in given) else f"labels of {rows.dtype}"
        self._check(len(rows), str(rows.dtype.kind), failure)
        said = self._group.everyones(json.dumps(given))
        found = [each for some in said for each in json.loads(some)]
        whole: np.ndarray[Any, Any] = np.array(found, "O" if rows.dtype.kind == "O" else None)
        return whole.take(self._places.numpy())

    def _check(self, count: int, layout: str, failure: str = "") -> None:
        """Refuse, in every process, what cannot be put together.

        Args:
            count: the number of rows of this process.
            layout: their dtype, and the shape of one.
            failure: what else is wrong here.
        """
        if not failure and count != self._counts[self._group.rank]:
            failure = f"{count} rows for {self._counts[self._group.rank]} samples"
        said = [json.loads(one) for one in self._group.everyones(json.dumps([layout, failure]))]
        failures = [f"{each[1]} of rank {rank}" for rank, each in enumerate(said) if each[1]]
        if failures:
            raise EnsembleError(
                f"Argument `{self._name}` must give a row for each of the samples of its sampler, "
                "and labels that are numbers or texts, where each process has a share. Received: "
                + failures[0]
            )
        for rank, (other, _) in enumerate(said):
            if other != said[0][0]:
                raise EnsembleError(
                    "The outputs and labels of all processes must be of one dtype, and of one "
                    "shape but for the number of rows. "
                    f"Received: {other} of rank {rank}, after {said[0][0]}"
                )
