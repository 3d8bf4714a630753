"""The benchmarks are no part of the library: they are imported from the repository itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
