"""What else a cycle can give: weights before its end, means of its last ones, noise there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import cosanneal as ca

from .tasks import BEFORE, COLUMNS, MEANS, NOISY, Watch


class Watcher:
    """Weights of each cycle that no snapshot has, and noise in its last part.

    Nothing of the training is changed where there is no noise: weights are only read.

    Args:
        watch: what is wanted.
        model: that is trained, of several runs side by side.
        schedule: of it.
        samples: of how many samples each run's mean loss is.
        runs: the seeds of the runs; each has noise of its own.
    """

    def __init__(
        self,
        watch: Watch,
        model: nn.Module,
        schedule: ca.Schedule,
        samples: int,
        runs: Sequence[int],
    ) -> None:
        self.watch, self.model, self.schedule, self.samples = watch, model, schedule, samples
        self.generators = [torch.Generator().manual_seed(1000 * run + 500) for run in runs]
        self.found: dict[tuple[int, str], list[Tensor]] = {}
        self.sums: dict[tuple[int, str], tuple[int, list[Tensor]]] = {}
        # After which update what is copied, or added to a mean; and where there is noise.
        self.copied: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.added: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.noisy: set[int] = set()
        for cycle in schedule.cycles():
            end, length = cycle.start + cycle.length, cycle.length
            self.copied[end].append((cycle.index, "end"))
            for share in BEFORE:
                back = max(1, round(share * length))
                self.copied[end - back].append((cycle.index, f"before {share:g}"))
            for share in MEANS:
                for step in range(end - max(1, round(share * length)), end):
                    self.added[step + 1].append((cycle.index, f"mean {share:g}"))
            self.noisy |= set(range(end - max(1, round(NOISY * length)) + 1, end + 1))

    def after_update(self, updates: int) -> None:
        """Look at the weights after so many updates, before the rate changes.

        With a temperature T, `w += sqrt(2 * rate * T / samples) * N(0, 1)` comes first.
        """
        weights = [each.detach() for each in self.model.parameters()]
        if self.watch.noise and updates in self.noisy:
            rate = self.schedule.rate(updates - 1)
            scale = math.sqrt(2 * rate * self.watch.noise / self.samples)
            for each in weights:
                alone = each.numel() // len(self.generators)
                noise = [torch.randn(alone, generator=own) for own in self.generators]
                each.add_(torch.cat(noise).view_as(each), alpha=scale)
        for key in self.copied.get(updates, ()):
            self.found[key] = [each.clone() for each in weights]
        for key in self.added.get(updates, ()):
            count, sums = self.sums.get(key, (0, [each.double() * 0 for each in weights]))
            for total, each in zip(sums, weights, strict=True):
                total += each
            self.sums[key] = (count + 1, sums)

    def members(self) -> list[list[Tensor]]:
        """The weights of all `COLUMNS` of the first cycle, then of the next."""
        means = {
            key: [(total / count).float() for total in sums]
            for key, (count, sums) in self.sums.items()
        }
        found = self.found | means
        return [found[cycle.index, name] for cycle in self.schedule.cycles() for name in COLUMNS]

    def predictions(self, x: Tensor, classes: int, batch_size: int) -> list[Tensor]:
        """What each of the members predicts: probabilities, or of a regression values."""
        kept = [each.detach().clone() for each in self.model.parameters()]
        every = []
        with torch.no_grad():
            for member in [*self.members(), kept]:  # which the model has again at the end
                for ours, theirs in zip(self.model.parameters(), member, strict=True):
                    ours.copy_(theirs)
                outputs = torch.cat([self.model(part) for part in x.split(batch_size)])
                every.append(outputs.double().softmax(dim=-1).float() if classes else outputs)
        return every[:-1]
