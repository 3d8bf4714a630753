"""Whether labels belong to the samples: by what they bear out of what the members claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..labels import Labels
from ..score.evidence import mean_and_error
from ..score.metrics import row_scores
from ..score.normal import normal_quantile

# A probability below this counts as this, so that no single sample decides.
_LEAST: Final = 1e-3

# Labels that bear out less than this share of what is claimed, and nothing that is told from
# chance, are asked about; at these levels.
_SHARE: Final = 0.2
_LEVELS: Final = (0.005, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Belonging:
    """What labels bear out of a prediction, beside labels of other samples.

    With `p` the plain mean of the members, at least 0.001, and `f` the classes' frequencies in
    the labels: borne out is `log p[y] - sum(f log p)`, whose mean is 0 if labels and samples have
    nothing to do with each other; claimed is `sum(p log p) - sum(f log p)`, which it would be on
    average if the labels came as `p` says.

    Args:
        borne: of each sample, what is borne out.
        claimed: of each sample, what is claimed.
        counts: how much each sample counts; None where all count the same.
        loss: the log-loss of the choice, or of the plain mean where nothing was chosen.
        frequencies: that of always giving the labels' class frequencies.
    """

    borne: NDArray[np.float64]
    claimed: NDArray[np.float64]
    counts: NDArray[np.float64] | None
    loss: float
    frequencies: float

    @property
    def doubtful(self) -> bool:
        """Whether nothing is borne out that is told from chance, and too little of the claim."""
        few, chance = (normal_quantile(1 - level) for level in _LEVELS)
        borne, error = mean_and_error(self.borne, self.counts)
        short, short_error = mean_and_error(self.borne - _SHARE * self.claimed, self.counts)
        return borne <= chance * error and short < -few * short_error


def belonging_of(
    rows: NDArray[np.float64], y: Labels, chosen: NDArray[np.float64] | None
) -> Belonging:
    """What labels bear out of rows of probabilities.

    Args:
        rows: the plain mean of the members, one row for each label.
        y: the labels.
        chosen: the rows of the choice; None where nothing was chosen.
    """
    targets = y.targets
    if targets is None:
        counted = np.bincount(y.classes, weights=y.weights, minlength=rows.shape[1])
    else:
        counted = (targets if y.weights is None else targets * y.weights[:, None]).sum(axis=0)
    f = counted / counted.sum()
    logs = np.log(np.maximum(rows, _LEAST))
    other = logs @ f
    known = f[f > 0]
    return Belonging(
        borne=y.per_sample(y.expected(logs) - other),
        claimed=y.per_sample(np.einsum("ij,ij->i", rows, logs) - other),
        counts=y.sample_weights(),
        loss=y.mean(row_scores("log_loss", rows if chosen is None else chosen, y)),
        frequencies=-float(known @ np.log(known)),
    )
