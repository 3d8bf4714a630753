"""One adapter for each framework; importing it is the opt-in.

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder, SnapshotEnsemble
"""
