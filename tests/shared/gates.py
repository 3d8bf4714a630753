"""What holds a disk back until a test lets it go."""

from __future__ import annotations

import threading


class Gate:
    """Holds back every fsync while it is closed."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def close(self) -> None:
        self.reached.clear()
        self.open.clear()
