"""From snapshots to one prediction, and what it is worth."""

from .analysis import Equivalent as Equivalent
from .analysis import Interpolation as Interpolation
from .analysis import correlation as correlation
from .analysis import deep_ensemble_equivalent as deep_ensemble_equivalent
from .analysis import disagreement as disagreement
from .analysis import interpolate as interpolate
from .analysis import scores_by_cycles as scores_by_cycles
from .average import average_snapshots as average_snapshots
from .calibration import apply_temperature as apply_temperature
from .calibration import calibrated_log_loss as calibrated_log_loss
from .calibration import fit_temperature as fit_temperature
from .choice import Candidate as Candidate
from .choice import Choice as Choice
from .choice import fit as fit
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
from .results import analyze as analyze
from .results import folder_results as folder_results
from .results import read_results as read_results
from .results import write_results as write_results
from .selection import HeldOut as HeldOut
from .selection import Selection as Selection
from .selection import last_scores as last_scores
from .selection import select_greedy as select_greedy
from .selection import select_last as select_last
from .selection import select_weights as select_weights
from .weights import Soup as Soup
from .weights import average_weights as average_weights
from .weights import exponential_weights as exponential_weights
from .weights import greedy_soup as greedy_soup
from .weights import interpolate_weights as interpolate_weights
from .weights import lawa as lawa

__all__ = [
    "Candidate",
    "Choice",
    "Comparison",
    "Equivalent",
    "HeldOut",
    "Interpolation",
    "Pool",
    "Reliability",
    "Selection",
    "Soup",
    "ValuePool",
    "adaptive_calibration_error",
    "analyze",
    "apply_temperature",
    "auroc",
    "average_snapshots",
    "average_weights",
    "bootstrap_interval",
    "brier_score",
    "calibrated_log_loss",
    "calibration_error",
    "compare_scores",
    "correlation",
    "coverage",
    "deep_ensemble_equivalent",
    "disagreement",
    "error_rate",
    "exponential_weights",
    "fit",
    "fit_temperature",
    "folder_results",
    "gaussian_nll",
    "greedy_soup",
    "interpolate",
    "interpolate_weights",
    "last_scores",
    "lawa",
    "log_loss",
    "pool",
    "read_results",
    "reliability",
    "rmse",
    "sample_scores",
    "scores_by_cycles",
    "select_greedy",
    "select_last",
    "select_weights",
    "write_results",
]
