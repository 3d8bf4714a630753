"""A real browser, headless; `pytest tests/browser` fails where none is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared.needed import left_out

NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return left_out("browser", ("playwright",), collection_path, config)


def find_browser() -> str:
    """The browser of $CHROME, or one of its usual names.

    Raises:
        RuntimeError: there is none.
    """
    wanted = os.environ.get("CHROME")
    for name in (wanted,) if wanted else NAMES:
        if found := shutil.which(name):
            return found
    looked_for = f"$CHROME, {wanted}" if wanted else ", ".join(NAMES)
    raise RuntimeError(
        f"The tests of the page need Chromium or Chrome. Looked for: {looked_for}. Install it "
        "(Debian: apt-get install chromium), or give its path in $CHROME"
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    path = find_browser()
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    with sync_playwright() as playwright:
        # The profile is a new empty one.
        launched = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
        )
        yield launched
        launched.close()
