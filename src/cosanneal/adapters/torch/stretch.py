"""Runs of updates at which nothing changes but the rate, and how rates are set in groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ...core.schedule import Schedule

# So many steps pay for the look-up of the curve that rules them.
SHORT: Final = 256


class Stretch:
    """Updates at which nothing changes but the rate of the one schedule of all groups.

    Args:
        schedule: the schedule.
        start: the first step.
        follow: whether to follow the schedule's curve to its end. The first stretch
            asks the schedule at every step, since there may not be a second.
        until: the step before which it ends in any case; None for none.
        base_lrs: the groups' initial rates, of which the ratios were made.
        ratios: each group's ratio to the schedule's rate.
        rates: the groups' rates: the very objects that they hold.
        tensors: what the groups hold in place of floats, where they do.
    """

    __slots__ = (
        "_rates",
        "alike",
        "base_lrs",
        "evaluate",
        "rate",
        "ratios",
        "schedule",
        "start",
        "stop",
        "tensors",
    )

    def __init__(
        self,
        schedule: Schedule,
        start: int,
        *,
        follow: bool,
        until: int | None,
        base_lrs: list[float | Tensor],
        ratios: list[float],
        rates: list[float],
        tensors: list[Tensor],
    ) -> None:
        self.schedule: Schedule = schedule
        self.base_lrs: list[float | Tensor] = base_lrs
        self.ratios: list[float] = ratios
        self.alike: bool = ratios.count(ratios[0]) == len(ratios)
        self.rate: float = rates[0]
        self._rates = rates
        self.tensors: list[Tensor] = tensors
        self.start: int = start
        self.stop: float = start + SHORT
        self.evaluate: Callable[[int], float] = schedule.rate
        if follow:
            segment = next(schedule.segments(start))
            stop = math.inf if segment.stop is None else segment.stop
            if stop > self.stop:
                self.stop, self.evaluate = stop, segment.evaluator()
        if until is not None:
            self.stop = min(self.stop, until)

    @property
    def rates(self) -> list[float]:
        """The groups' rates: the very objects that they hold, where they hold floats."""
        return [self.rate] * len(self.ratios) if self.alike else self._rates

    def fill(self, groups: list[dict[str, Any]], rate: float) -> bool:
        """Set all rates; False, and perhaps some set, where they are not those set before."""
        # A group that holds the very object that was put there was left alone, and there is
        # no need to look at what it holds.
        if len(groups) != len(self.ratios):
            return False
        if self.tensors:
            return self._fill_tensors(groups, rate)
        if self.alike:
            was, now = self.rate, rate * self.ratios[0]
            for group in groups:
                if group["lr"] is not was:
                    return False
                group["lr"] = now
            self.rate = now
            return True
        rates = [rate * ratio for ratio in self.ratios]
        # All are of one length; to have zip see to that takes a tenth of the time, of ten groups.
        for group, was, now in zip(groups, self._rates, rates):  # noqa: B905
            if group["lr"] is not was:
                return False
            group["lr"] = now
        self._rates = rates
        return True

    def _fill_tensors(self, groups: list[dict[str, Any]], rate: float) -> bool:
        tensors = self.tensors
        if any(group["lr"] is not held for group, held in zip(groups, tensors, strict=True)):
            return False
        self._rates = scaled(rate, self.ratios)
        self.rate = self._rates[0]
        device = tensors[0].device
        if device.type == "cpu" and not self.alike:
            for tensor, each in zip(tensors, self._rates, strict=True):
                tensor.fill_(each)  # in less time than making one tensor of the rates takes
            return True
        # Through float64, so that each tensor rounds the rate but once, to its own dtype.
        if self.alike:
            source = torch.full((), self.rate, dtype=torch.float64, device=device)
            sources = [source] * len(tensors)
        else:
            sources = list(torch.tensor(self._rates, dtype=torch.float64, device=device).unbind())
        torch._foreach_copy_(tensors, sources)
        return True

    def copies(self) -> list[float | Tensor]:
        """The rates, as floats or tensors as the groups hold them, that no group holds."""
        if not self.tensors:
            return list(self.rates)
        return [
            torch.full_like(tensor, rate)
            for tensor, rate in zip(self.tensors, self.rates, strict=True)
        ]


def fit_to_fill(tensors: list[Tensor], groups: int) -> bool:
    """Whether one update can fill all groups' rates: plain tensors of one device, none shared."""
    return (
        len({id(tensor) for tensor in tensors}) == groups
        and len({tensor.device for tensor in tensors}) == 1
        and all(type(tensor) is Tensor for tensor in tensors)
        and tensors[0].device.type != "mps"  # which has no float64
    )


def scaled(rate: float, ratios: list[float]) -> list[float]:
    """The rate at each ratio; where these are all alike it is one object, not as many."""
    if ratios.count(ratios[0]) == len(ratios):
        return [rate * ratios[0]] * len(ratios)
    return [rate * ratio for ratio in ratios]


def copied(rate: float | Tensor) -> float | Tensor:
    """A rate that a later update leaves as it is."""
    return rate.clone() if isinstance(rate, Tensor) else rate


def rounded(rate: float, group: dict[str, Any]) -> float:
    """A rate as the group can hold it."""
    lr = group["lr"]
    return float(torch.full_like(lr, rate)) if isinstance(lr, Tensor) else rate


def fill(group: dict[str, Any], rate: float) -> None:
    """Set a group's rate; one that is a tensor is filled in place, as captured graphs need."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
