"""From snapshots to one prediction, and what it is worth."""

from .average import average_snapshots as average_snapshots
from .evidence import Comparison as Comparison
from .evidence import bootstrap_interval as bootstrap_interval
from .evidence import compare_scores as compare_scores
from .metrics import Reliability as Reliability
from .metrics import adaptive_calibration_error as adaptive_calibration_error
from .metrics import auroc as auroc
from .metrics import brier_score as brier_score
from .metrics import calibration_error as calibration_error
from .metrics import coverage as coverage
from .metrics import error_rate as error_rate
from .metrics import gaussian_nll as gaussian_nll
from .metrics import log_loss as log_loss
from .metrics import reliability as reliability
from .metrics import rmse as rmse
from .metrics import sample_scores as sample_scores
from .pooling import Pool as Pool
from .pooling import ValuePool as ValuePool
from .pooling import pool as pool

__all__ = [
    "Comparison",
    "Pool",
    "Reliability",
    "ValuePool",
    "adaptive_calibration_error",
    "auroc",
    "average_snapshots",
    "bootstrap_interval",
    "brier_score",
    "calibration_error",
    "compare_scores",
    "coverage",
    "error_rate",
    "gaussian_nll",
    "log_loss",
    "pool",
    "reliability",
    "rmse",
    "sample_scores",
]
