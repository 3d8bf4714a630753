"""Snapshots: one self-describing safetensors file each, in a folder that is the truth."""

from .reader import SnapshotReader as SnapshotReader
from .store import Snapshot as Snapshot
from .store import SnapshotStore as SnapshotStore
