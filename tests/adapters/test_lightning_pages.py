"""The pages' code for Lightning and transformers runs as it is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared.pages import pages_of, run_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Of a machine's cores and accelerators, and of what it uses itself, Lightning has much to say.
@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning")
def test_lightning() -> None:
    names = run_page("start/lightning.md")
    assert len(names["ensemble"]) == 4
    right = names["probabilities"].argmax(1) == names["y"][names["test"]]
    assert right.float().mean() > 0.75


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("engines")} == {"start/lightning.md", "start/transformers.md"}
