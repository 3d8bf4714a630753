"""What `cosanneal evaluate` says of the members' uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cosanneal.ensemble import analyze_uncertainty
from cosanneal.report.page import write_report
from tests.shared.calling import Command
from tests.shared.documents import bare, members_of

EVALUATE = Command("evaluate")
call, json_of, error_of = EVALUATE.call, EVALUATE.json_of, EVALUATE.error_of

TEST = ("--predictions", "test/m*.npy", "--labels", "test/y.npy")
VALIDATION = ("--validation-predictions", "val/m*.npy", "--validation-labels", "val/y.npy")
OOD = ("--ood", "ood/m*.npy")

Data = dict[str, tuple[NDArray[Any], NDArray[Any]]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    found = {"val": members_of(4, 1200), "test": members_of(4, 400, seed=1)}
    strange, y = members_of(4, 300, seed=2)
    strange = strange**0.2
    found["ood"] = strange / strange.sum(-1, keepdims=True), y
    for part, (p, y) in found.items():
        Path(part).mkdir()
        np.save(f"{part}/y.npy", y)
        for i, member in enumerate(p):
            np.save(f"{part}/m{i}.npy", member)
    return found


def test_the_document_has_what_the_function_finds(data: Data) -> None:
    p, y = data["test"]
    assert json_of(*TEST)["uncertainty"] == analyze_uncertainty(p, y)
    found = json_of(*TEST, *OOD, "--risk", 0.02, "--seed", 3)["uncertainty"]
    assert found == analyze_uncertainty(p, y, ood=data["ood"][0], risk=0.02, seed=3)
    found = json_of(*TEST, *VALIDATION, "--alpha", 0.25, "--no-temperature")
    weights = [member["weight"] for member in found["choice"]["members"]]
    assert found["uncertainty"]["conformal"][0]["alpha"] == 0.25
    assert found["uncertainty"]["mutual_information"] < analyze_uncertainty(p, y)["entropy"]
    assert sum(weights) == pytest.approx(1)


def test_files_of_logits_and_outcomes(data: Data) -> None:
    p, y = data["test"]
    Path("other").mkdir()
    for i in range(4):
        for part in ("test", "ood"):
            np.save(f"other/{part}{i}.npy", np.log(data[part][0][i]))
            np.save(f"other/one-{part}{i}.npy", data[part][0][i, :, 0])
    np.save("other/y.npy", (y == 0).astype(int))
    found = json_of(
        *("--predictions", "other/test*.npy", "--labels", "test/y.npy"),
        *("--logits", "--ood", "other/ood*.npy"),
    )["uncertainty"]
    expected = analyze_uncertainty(p, y, ood=data["ood"][0])
    assert found["entropy"] == pytest.approx(expected["entropy"], rel=1e-9)
    assert found["ood"]["rows"][3]["auroc"] == pytest.approx(expected["ood"]["rows"][3]["auroc"])
    found = json_of(
        *("--predictions", "other/one-test*.npy", "--labels", "other/y.npy", "--outcomes"),
        *("--ood", "other/one-ood*.npy"),
    )["uncertainty"]
    happened = (y == 0).astype(int)
    assert found == analyze_uncertainty(
        p[..., 0], happened, class_axis=None, ood=data["ood"][0][..., 0]
    )


@pytest.mark.usefixtures("data")
def test_the_tables_read_well_in_80_columns() -> None:
    result = call(*TEST, *VALIDATION, *OOD)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    document = json_of(*TEST, *VALIDATION, *OOD)["uncertainty"]
    rows = document["selective"]["rows"]

    def cells(start: str) -> list[str]:
        (line,) = (line for line in lines if line.strip().startswith(start))
        return line.strip().removeprefix(start).split()

    assert cells("Entropy, nats") == [f"{document['entropy']:.4f}"]
    assert cells("of it, mutual information") == [f"{document['mutual_information']:.4f}"]
    assert cells("AURC, %") == [f"{100 * row['aurc']:.3f}" for row in rows]
    shares = [f"{100 * row['coverage_at_risk']:.2f}" for row in rows]
    assert cells("Coverage at 5 % error, %") == shares
    told = " ".join(" ".join(lines).split())
    assert "AURC is the mean error rate over all shares of the surest; 0 is best." in told
    assert "mutual information is the part of it that is there because the members differ." in told
    assert "LAC has the fewest classes on average, APS has more where a sample is hard" in told
    lac, _, raps = document["conformal"]
    for name, row in (("LAC", lac), ("RAPS", raps)):
        assert cells(name) == ["90", f"{100 * row['coverage']:.2f}", f"{row['size']:.2f}"]
    assert any(line.strip().startswith("Told from 300 others by") for line in lines)
    (row,) = (each for each in document["ood"]["rows"] if each["score"] == "max_probability")
    shares = [f"{100 * row[name]:.2f}" for name in ("auroc", "aupr", "fpr95")]
    assert cells("max probability") == shares
    bare_lines = call(*TEST).stdout
    assert "Sets of classes" not in bare_lines
    assert "Told from" not in bare_lines
    one = call("--predictions", "test/m0.npy", *TEST[2:])
    assert "AURC, %" in one.stdout
    assert "The AURC is" in one.stdout
    assert "mutual information" not in one.stdout
    assert "Last member" not in one.stdout


@pytest.mark.usefixtures("data")
def test_the_report_has_it_too(tmp_path: Path) -> None:
    result = call(*TEST, *VALIDATION, *OOD, "--report", "page.html")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "page_files" / "risk_coverage.png").is_file()
    part = json_of(*TEST, *VALIDATION, *OOD)["uncertainty"]
    write_report(bare(uncertainty=part), tmp_path / "alone.html")


def test_what_does_not_fit_is_refused(data: Data) -> None:
    p, _ = data["ood"]
    assert error_of(*TEST, "--ood", "ood/m1.npy") == (
        "Options --predictions and --ood must match the same members. Received: 4 files and 1"
    )
    Path("fewer").mkdir()
    for i in range(4):
        few = p[i, :, :3]
        np.save(f"fewer/m{i}.npy", few / few.sum(-1, keepdims=True))
    assert error_of(*TEST, "--ood", "fewer/*.npy") == (
        "Options --predictions and --ood must be of the same classes. Received: shapes (400, 4) "
        "and (300, 3)"
    )
    assert "none*.npy', which matches none" in error_of(*TEST, "--ood", "none*.npy")
    np.save("ood/m2.npy", np.log(p[2]))
    assert error_of(*TEST, *OOD).startswith("ood/m2.npy: The probabilities must be between 0 and 1")
    assert error_of(*TEST, *VALIDATION, "--alpha", 1) == (
        "Option --alpha must be a number between 0 and 1. Received: --alpha=1.0"
    )
