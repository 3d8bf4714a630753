"""The pages' code for Lightning and for what else this session alone has runs as it is printed."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

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


# What torch's exporter itself uses of torch.
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_the_page_of_ensembles_ships_onnx_for_batches_of_any_size() -> None:
    names = run_page("start/torch.md")
    for title in ("Predicting", "Choosing", "Shipping", "ONNX"):
        names = run_page("ensembles.md", names, under=title)
    wanted = names["ensemble"].predict(names["x"])
    assert wanted.std() > 0.1
    torch.testing.assert_close(
        torch.from_numpy(names["shipped"]), wanted[names["test"]], rtol=0, atol=1e-5
    )
    session = onnxruntime.InferenceSession("ensemble.onnx")
    (taken,) = session.get_inputs()
    for rows in (1, 11):
        (found,) = session.run(None, {taken.name: names["x"][:rows].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), wanted[:rows], rtol=0, atol=1e-5)


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("engines")} == {
        *("start/lightning.md", "start/transformers.md", "ensembles.md"),
    }
