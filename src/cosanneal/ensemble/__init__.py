"""From snapshots to one prediction, and what it is worth."""

from .average import average_snapshots as average_snapshots
from .metrics import error_rate as error_rate
from .metrics import log_loss as log_loss

__all__ = ["average_snapshots", "error_rate", "log_loss"]
