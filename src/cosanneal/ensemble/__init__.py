"""From snapshots to one prediction, and what it is worth."""

from .choose.calibration import apply_temperature as apply_temperature
from .choose.calibration import calibrated_log_loss as calibrated_log_loss
from .choose.calibration import fit_temperature as fit_temperature
from .choose.choice import Candidate as Candidate
from .choose.choice import Choice as Choice
from .choose.choice import fit as fit
from .choose.selection import HeldOut as HeldOut
from .choose.selection import Selection as Selection
from .choose.selection import last_scores as last_scores
from .choose.selection import select_greedy as select_greedy
from .choose.selection import select_last as select_last
from .choose.selection import select_weights as select_weights
from .ensemble import SnapshotEnsemble as SnapshotEnsemble
from .findings import analyze as analyze
from .findings import folder_results as folder_results
from .model import Model as Model
from .predict.pooling import Pool as Pool
from .predict.pooling import ValuePool as ValuePool
from .predict.pooling import pool as pool
from .results import read_results as read_results
from .results import write_results as write_results
from .score.analysis import Equivalent as Equivalent
from .score.analysis import correlation as correlation
from .score.analysis import deep_ensemble_equivalent as deep_ensemble_equivalent
from .score.analysis import disagreement as disagreement
from .score.analysis import scores_by_cycles as scores_by_cycles
from .score.evidence import Comparison as Comparison
from .score.evidence import bootstrap_interval as bootstrap_interval
from .score.evidence import compare_scores as compare_scores
from .score.metrics import Reliability as Reliability
from .score.metrics import adaptive_calibration_error as adaptive_calibration_error
from .score.metrics import auroc as auroc
from .score.metrics import brier_score as brier_score
from .score.metrics import calibration_error as calibration_error
from .score.metrics import coverage as coverage
from .score.metrics import error_rate as error_rate
from .score.metrics import gaussian_nll as gaussian_nll
from .score.metrics import log_loss as log_loss
from .score.metrics import reliability as reliability
from .score.metrics import rmse as rmse
from .score.metrics import sample_scores as sample_scores
from .weights.averaging import AveragedWeights as AveragedWeights
from .weights.barrier import Interpolation as Interpolation
from .weights.barrier import interpolate as interpolate
from .weights.files import average_snapshots as average_snapshots
from .weights.means import Soup as Soup
from .weights.means import average_weights as average_weights
from .weights.means import exponential_weights as exponential_weights
from .weights.means import greedy_soup as greedy_soup
from .weights.means import interpolate_weights as interpolate_weights
from .weights.means import lawa as lawa

__all__ = [
    "AveragedWeights",
    "Candidate",
    "Choice",
    "Comparison",
    "Equivalent",
    "HeldOut",
    "Interpolation",
    "Model",
    "Pool",
    "Reliability",
    "Selection",
    "SnapshotEnsemble",
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
