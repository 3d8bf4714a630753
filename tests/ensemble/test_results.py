"""The results document: built beside the library's own functions, written, read, refused."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal import CosannealError
from cosanneal.core.errors import EnsembleError, SnapshotError
from cosanneal.ensemble import (
    Choice,
    ConformalPredictor,
    analyze,
    analyze_uncertainty,
    apply_temperature,
    calibration_error,
    compare_scores,
    fit,
    fit_temperature,
    folder_results,
    log_loss,
    ood_detection,
    pool,
    read_results,
    reliability,
    risk_coverage,
    sample_scores,
    set_coverage,
    set_size,
    uncertainty,
    write_results,
)
from cosanneal.ensemble.results import check_results
from cosanneal.snapshots import SnapshotStore
from tests.shared.documents import analysis_of, bare, members_of, record_folder, whole


def test_the_analysis_is_what_the_functions_say() -> None:
    p, y = members_of(4, 2000)
    choice = fit(p[:, :1000], y[:1000], select="weights")
    p, y = p[:, 1000:], y[1000:]
    found = analyze(p, y, choice=choice)
    assert found["samples"] == 1000
    assert [row["name"] for row in found["members"]] == ["0", "1", "2", "3"]
    np.testing.assert_allclose(found["correlation"], np.corrcoef(p.reshape(4, -1)), atol=1e-12)
    classes = p.argmax(-1)
    differ = [[float(np.mean(a != b)) for b in classes] for a in classes]
    assert found["disagreement"] == differ
    before = sum(w * member for w, member in zip(choice.weights, p, strict=True))
    after = apply_temperature(before, choice.temperature)
    for name, prediction in (("before", before), ("after", after)):
        expected = reliability(prediction, y)
        diagram = found["reliability"][name]
        np.testing.assert_allclose(diagram["confidence"], expected.confidence, rtol=1e-12)
        np.testing.assert_allclose(diagram["accuracy"], expected.accuracy, rtol=1e-12)
        assert diagram["count"] == expected.counts.tolist()
        assert diagram["ece"] == pytest.approx(calibration_error(prediction, y), rel=1e-9)
    for field, other in (("comparisons", p[-1]), ("comparisons_with_mean", pool(p))):
        for row in found[field]:
            both = [sample_scores(row["metric"], each, y) for each in (after, other)]
            expected_row = compare_scores(*both)
            assert row["difference"] == pytest.approx(expected_row.difference, rel=1e-9)
            assert row["interval"] == pytest.approx(expected_row.interval, rel=1e-6)
    assert found["choice"] == choice.to_dict()
    check_results(bare(analysis=found))


@pytest.mark.parametrize("select", ["last", "greedy", "auto"])
def test_a_gain_that_is_the_temperatures_alone_is_no_gain_of_the_ensemble(select: Any) -> None:
    p, y = members_of(1, 4000)
    sure = p[0] ** 3 / (p[0] ** 3).sum(-1, keepdims=True)
    choice = fit([sure[:2000]] * 3, y[:2000], select=select)
    found = analyze([sure[2000:]] * 3, y[2000:], choice=choice)
    heat = fit_temperature(sure[:2000], y[:2000])
    assert choice.last_alone is not None
    assert choice.last_alone.temperature == pytest.approx(heat, rel=1e-9)
    at = found["last_calibrated"]["log_loss"]
    assert at == pytest.approx(log_loss(apply_temperature(sure[2000:], heat), y[2000:]), rel=1e-9)
    assert at < 0.8 * found["members"][-1]["log_loss"]
    rows = {row["metric"]: row for row in found["comparisons_with_last_calibrated"]}
    assert rows["log_loss"]["difference"] == pytest.approx(0, abs=1e-9)
    (raw,) = (row for row in found["comparisons"] if row["metric"] == "log_loss")
    assert raw["interval"][1] < -0.1
    text = " ".join(str(choice).split())
    assert "last snapshot alone with its own temperature" in text
    check_results(bare(analysis=found))
    # What was saved before this was kept has none, and neither has what has no temperature.
    old = choice.to_dict()
    assert Choice.from_dict(old) == choice
    old.pop("last_alone")
    plain = fit([sure[:2000]] * 3, y[:2000], select=select, temperature=False)
    for without in (Choice.from_dict(old), plain):
        assert without.last_alone is None
        part = analyze([sure[2000:]] * 3, y[2000:], choice=without)
        assert not [name for name in part if "last_calibrated" in name]
        assert "its own temperature" not in str(without)


def test_without_a_choice_the_mean_of_all_is_compared() -> None:
    p, y = members_of(3, 300)
    found = analyze(p, y, names=["a", "b", "c"])
    assert found["choice"] is None
    assert found["chosen"] is None
    assert found["comparisons_with_mean"] == []
    assert list(found["reliability"]) == ["before"]
    assert found["reliability"]["before"]["ece"] == found["ensembles"][-1]["ece"]


def test_one_member_and_one_that_does_not_vary() -> None:
    p, y = members_of(1, 50)
    found = analyze(p, y)
    assert found["ensembles"] == found["comparisons"] == []
    assert found["correlation"] == [[pytest.approx(1.0)]]
    check_results(bare(analysis=found))
    even = np.full((50, 4), 0.25)
    found = analyze([even, p[0]], y)
    assert found["correlation"][0] == [None, None]
    check_results(bare(analysis=found))


@pytest.mark.filterwarnings("ignore:The ensemble was chosen")
@pytest.mark.parametrize("class_axis", [1, None])
def test_dense_outputs_and_outcomes(class_axis: int | None) -> None:
    p, y = members_of(3, 400)
    if class_axis is None:
        p, y = p[..., 0], (y == 0).astype(int)
    else:
        p, y = np.moveaxis(p.reshape(3, 80, 5, 4), -1, 2), y.reshape(80, 5)
    choice = fit(p[:, :60], y[:60], class_axis=class_axis) if class_axis is None else None
    found = analyze(p, y, class_axis=class_axis, choice=choice)
    assert found["samples"] == (400 if class_axis is None else 80)
    check_results(bare(analysis=found))


def test_the_uncertainty_is_what_the_functions_say() -> None:
    p, y = members_of(4, 2000)
    choice = fit(p[:, :1000], y[:1000], select="weights")
    assert choice.temperature != 1
    held_out, strange = (p[:, :1000], y[:1000]), members_of(4, 300, seed=3)[0][:, :, ::-1] ** 0.2
    strange = strange / strange.sum(-1, keepdims=True)
    p, y = p[:, 1000:], y[1000:]
    found = analyze_uncertainty(
        p, y, choice=choice, held_out=held_out, ood=strange, risk=0.03, coverage=0.7, alpha=0.2
    )
    check_results(bare(uncertainty=found))
    assert (found["samples"], found["members"]) == (1000, 4)
    parts = uncertainty(p, choice.weights)
    for name in ("entropy", "expected_entropy", "mutual_information", "variation_ratio"):
        assert found[name] == pytest.approx(getattr(parts, name).mean(), rel=1e-12)
    selective = found["selective"]
    assert (selective["risk"], selective["coverage"]) == (0.03, 0.7)
    for row, name, each in zip(
        selective["rows"], ("prediction", "last"), (choice.apply(p), p[-1]), strict=True
    ):
        curve = risk_coverage(each, y)
        assert row["model"] == name
        assert (row["aurc"], row["augrc"]) == (curve.aurc, curve.augrc)
        assert row["coverage_at_risk"] == curve.coverage_at_risk(0.03)
        assert row["risk_at_coverage"] == curve.risk_at_coverage(0.7)
        assert len(row["risks"]) == 200
        assert (row["coverages"][0], row["coverages"][-1]) == (0.001, 1)
        assert row["risks"][-1] == curve.risk[-1]
    assert [row["method"] for row in found["conformal"]] == ["lac", "aps", "raps"]
    for row in found["conformal"]:
        made = ConformalPredictor.fit(
            choice.apply(held_out[0]), held_out[1], 0.2, method=row["method"]
        )
        sets = made.predict(choice.apply(p))
        assert row["coverage"] == set_coverage(sets, y)
        assert row["size"] == set_size(sets)
        assert (row["alpha"], row["labels"]) == (0.2, made.labels)
    outside = uncertainty(strange, choice.weights)
    detected = ood_detection(parts.mutual_information, outside.mutual_information)
    assert found["ood"]["samples"] == 300
    (row,) = (row for row in found["ood"]["rows"] if row["score"] == "mutual_information")
    assert row == {"score": "mutual_information", **detected}
    sure = -choice.apply(p).max(-1), -choice.apply(strange).max(-1)
    assert found["ood"]["rows"][0] == {"score": "max_probability", **ood_detection(*sure)}


@pytest.mark.parametrize("samples", [1, 8, 9, 44, 45])
def test_few_samples_calibrate_what_they_can(samples: int) -> None:
    p, y = members_of(2, samples)
    found = analyze_uncertainty(p, y, held_out=(p, y))
    check_results(bare(uncertainty=found))
    methods = [row["method"] for row in found["conformal"]]
    assert methods == ["lac", "aps", "raps"][: 0 if samples < 9 else 2 if samples < 45 else 3]
    alone = analyze_uncertainty(p[:1], y)
    check_results(bare(uncertainty=alone))
    assert alone["mutual_information"] == 0
    assert [row["model"] for row in alone["selective"]["rows"]] == ["prediction"]


@pytest.mark.parametrize("class_axis", [1, None])
def test_the_uncertainty_of_dense_outputs_and_outcomes(class_axis: int | None) -> None:
    p, y = members_of(3, 400)
    if class_axis is None:
        p, y = p[..., 0], (y == 0).astype(int)
    else:
        p, y = np.moveaxis(p.reshape(3, 80, 5, 4), -1, 2), y.reshape(80, 5)
    found = analyze_uncertainty(p, y, class_axis=class_axis, held_out=(p, y), ood=p[:, :7])
    check_results(bare(uncertainty=found))
    assert len(found["conformal"]) == 3
    if class_axis is None:  # one axis holds outcomes, whatever the class axis
        assert analyze_uncertainty(p, y, held_out=(p, y), ood=p[:, :7]) == found


def test_the_uncertainty_is_of_the_labels_that_count() -> None:
    flat, labels = members_of(3, 400)
    p, y = np.moveaxis(flat.reshape(3, 80, 5, 4), -1, 2), labels.reshape(80, 5)
    keep = np.random.default_rng(5).random((80, 5)) < 0.7
    # Which of the reported labels count says nothing of the calibration's.
    found = analyze_uncertainty(p, y, class_axis=1, mask=keep, held_out=(p, y), ood=p[:, :7])
    counted = keep.reshape(-1)
    expected = analyze_uncertainty(
        flat[:, counted], labels[counted], held_out=(flat, labels), ood=flat[:, :35]
    )
    assert found.pop("samples") == keep.any(axis=1).sum()
    assert expected.pop("samples") == keep.sum()
    assert (found["ood"].pop("samples"), expected["ood"].pop("samples")) == (7, 35)
    assert found == expected


def test_arguments_that_do_not_fit_are_refused() -> None:
    p, y = members_of(3, 2000)
    with pytest.raises(EnsembleError, match="at least one member"):
        analyze([], y)
    with pytest.raises(EnsembleError, match=r"a name for each of 3 members. Received: 2"):
        analyze(p, y, names=["a", "b"])
    choice = fit(p, y, names=["a", "b", "c"])
    with pytest.raises(EnsembleError, match="made among these members"):
        analyze(p, y, names=["a", "b", "d"], choice=choice)
    with pytest.raises(EnsembleError, match="class_axis=1"):
        analyze(p, y, choice=choice, class_axis=1)


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    document = whole()
    write_results(document, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == document
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_is_not_finite_is_null_where_it_may_be(tmp_path: Path) -> None:
    document = whole()
    document["run"]["loss"][3] = math.nan
    document["interpolations"][0] |= {"barrier": math.inf, "losses": [math.inf] * 11}
    document["demo"] = {"curves": [math.nan]}
    write_results(document, tmp_path / "a.json")
    found = read_results(tmp_path / "a.json")
    assert found["run"]["loss"][3] is None
    assert found["interpolations"][0]["barrier"] is None
    assert found["demo"] == {"curves": [None]}
    document["analysis"]["members"][1]["log_loss"] = math.inf
    with pytest.raises(EnsembleError, match=r"in 'analysis\.members\[1\]\.log_loss': must be a fi"):
        write_results(document, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


# A path, what is put there, and what the error says.
WRONG: list[tuple[str, Any, str]] = [
    ("version", 2, "must have version 1.*newer"),
    ("version", True, "must have version 1"),
    ("format", "other", "must be a dict whose 'format' is"),
    ("title", None, "in 'title': must be a string"),
    ("demo", [1], "in 'demo': must be a dict"),
    ("run.rate.2", -1.0, r"in 'run.rate\[2\]': must be a finite number of at least 0"),
    ("run.rate.2", None, r"in 'run.rate\[2\]': must be a finite number of at least 0"),
    ("run.rate", [], "in 'run.rate': must be a list of at least one"),
    ("run.loss", [1.0], "in 'run.loss': must be null or a list of 1000 losses"),
    ("run.cycle_ends", [5, 5], r"in 'run.cycle_ends\[1\]': must be a step"),
    ("run.cycle_ends", [1000], r"in 'run.cycle_ends\[0\]': must be a step"),
    ("run.extra", 1, "in 'run.extra': no such field is known"),
    ("run", {"loss": None, "cycle_ends": []}, "in 'run.schedule': the field is missing"),
    ("run", [], "in 'run': must be a dict"),
    ("analysis.samples", 0, "in 'analysis.samples': must be an integer of at least 1"),
    ("analysis.members", [], "in 'analysis.members': must be a list of at least one"),
    ("analysis.members.0.error", 1.5, r"members\[0\].error': must be a finite number from 0 to 1"),
    ("analysis.members.0.name", 3, r"in 'analysis.members\[0\].name': must be a string"),
    ("analysis.members.0.name", "other", "in 'analysis.choice': must be one among the members"),
    ("analysis.ensembles.0.last", 3, r"in 'analysis.ensembles\[0\].last': must be 2"),
    ("analysis.choice", None, "in 'analysis.chosen': must be there where 'choice' is"),
    ("analysis.choice.candidates", [], "in 'analysis.choice.candidates': must be a list of at"),
    ("choice", analysis_of(2)["choice"], "in 'choice': must be that of 'analysis'"),
    ("analysis.choice.version", 9, "in 'analysis.choice': .*version 1"),
    ("analysis.choice.temperature", 0, "in 'analysis.choice': in 'temperature'"),
    ("analysis.comparisons.0.metric", "f1", r"comparisons\[0\].metric': must be one of"),
    ("analysis.comparisons.0.interval", [1], r"comparisons\[0\].interval': must be two"),
    ("analysis.correlation.1", [1], r"in 'analysis.correlation\[1\]': must be a list of 5"),
    ("analysis.correlation.1.1", 7, r"correlation\[1\]\[1\]': .* from -1 to 1 or null"),
    ("analysis.disagreement", [], "in 'analysis.disagreement': must be a list of 5 lists"),
    ("analysis.reliability.before.count", [], "must be a list of as many as 'count'"),
    ("analysis.reliability.after.ece", "x", "in 'analysis.reliability.after.ece': must be a fin"),
    ("uncertainty.samples", 0, "in 'uncertainty.samples': must be an integer of at least 1"),
    ("uncertainty.entropy", None, "in 'uncertainty.entropy': must be a finite number"),
    ("uncertainty.mutual_information", -1e-9, "mutual_information': must be .* of at least 0"),
    ("uncertainty.variation_ratio", 1.1, "variation_ratio': must be a finite number from 0 to 1"),
    ("uncertainty.more", 1, "in 'uncertainty.more': no such field is known"),
    ("uncertainty.selective", [], "in 'uncertainty.selective': must be a dict"),
    ("uncertainty.selective.rows", [], "selective.rows': must be a list of at least one row"),
    ("uncertainty.selective.rows.0.model", "last", "rows': must be those of 'prediction' and"),
    ("uncertainty.members", 1, "rows': must be those of 'prediction' and, of several members"),
    ("uncertainty.selective.rows.1.aurc", 2, r"rows\[1\].aurc': must be .* from 0 to 1"),
    ("uncertainty.selective.rows.0.risks", [0.1], r"rows\[0\].risks': must be a list of as many"),
    ("uncertainty.selective.rows.0.coverages.3", 0, r"coverages\[3\]': must be greater than the"),
    ("uncertainty.selective.rows.0.coverages", [], r"rows\[0\].risks': must be a list of as"),
    ("uncertainty.conformal.0.method", "top", r"conformal\[0\].method': must be one of 'lac', "),
    ("uncertainty.conformal.1.coverage", 1.5, r"conformal\[1\].coverage': must be .* from 0 to 1"),
    ("uncertainty.ood.rows", [], "in 'uncertainty.ood.rows': must be a list of at least one row"),
    ("uncertainty.ood.rows.0.fpr95", None, r"rows\[0\].fpr95': must be a finite number from 0"),
    ("interpolations.0.losses", [1], r"in 'interpolations\[0\].losses': must be a list of as"),
    ("interpolations.0.shares", [1], r"in 'interpolations\[0\].shares': must be a list of at"),
    ("interpolations.0.statistics", 1, r"interpolations\[0\].statistics': must be true or false"),
    ("average.error", None, "in 'average.error': must be a finite number"),
    ("average.members", [1], "in 'average.members': must be a list of names"),
    ("average.allowed", -1, "in 'average.allowed': must be a finite number of at least 0"),
    ("average.picked_on", 0, "in 'average.picked_on': must be an integer of at least 1"),
    ("average.refused", "a barrier", "in 'average.error': no such field"),
    ("analysis.passes.1.passes", 0.5, r"passes\[1\].passes': must be a .* of at least 1"),
    ("analysis.passes.1.error", 1.5, r"passes\[1\].error': must be a finite number from 0 to 1"),
    ("analysis.passes.1.care", 0.0, "passes': must be a list by rising care"),
    ("analysis.passes.11.care", 0.99, "passes': must be a list by rising care, up to 1, which"),
    ("analysis.passes", [], "passes': must be a list by rising care"),
    ("analysis.choice.budget.care", 0.31, "passes': .*which has that of the choice"),
    ("comparison.rows.0.test_nll.std", -1, r"test_nll.std': must be .* or null"),
    ("comparison.rows.0.model", 1, r"in 'comparison.rows\[0\].model': must be a string"),
    ("comparison.note", 1, "in 'comparison.note': must be a string"),
    ("comparison.seeds", 0, "in 'comparison.seeds': must be an integer of at least 1"),
    ("study.rows", [], "in 'study.rows': must be a list of at least one row"),
    ("study.rows.1.best", 1, r"in 'study.rows\[1\].best': must be a dict"),
    ("study.rows.1.cycles", 0, r"in 'study.rows\[1\].cycles': must be an integer"),
    ("snapshots", [], "in 'snapshots': must be a list of at least one snapshot"),
    ("run.rate.2", 10**400, r"in 'run.rate\[2\]': must be a finite number"),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return whole(budget=1.5)


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_bad_field_is_named(
    document: dict[str, Any], tmp_path: Path, path: str, value: Any, message: str
) -> None:
    bad = copy.deepcopy(document)
    *parents, last = path.split(".")
    at: Any = bad
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[int(last) if isinstance(at, list) else last] = value
    with pytest.raises(EnsembleError, match=message):
        check_results(bad)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(bad))
    with pytest.raises(EnsembleError, match=rf"^{re.escape(str(file))}(:| could).*{message}"):
        read_results(file)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(EnsembleError, match="could not be read: No such file"):
        read_results(file)
    for text in ("", "{", "[" * 100_000, "\udcff"):
        file.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(EnsembleError, match="could not be read: it is no JSON"):
            read_results(file)
    for text in ("[]", "null", "{}"):
        file.write_text(text)
        with pytest.raises(EnsembleError, match="must be a dict whose 'format'"):
            read_results(file)


def test_a_refused_average_has_no_score() -> None:
    part = {"members": ["a", "b"], "refused": "a barrier of 3", "barrier": 3.0, "ensemble": None}
    check_results(bare(average=part))


def test_an_average_may_say_what_is_allowed(document: dict[str, Any]) -> None:
    average = {**document["average"], "allowed": 0.01, "picked_on": 500}
    assert check_results(document | {"average": average})["average"] == average
    del average["barrier"]
    with pytest.raises(EnsembleError, match=r"in 'average\.barrier': the field is missing"):
        check_results(document | {"average": average})


def test_a_folder_says_what_its_headers_hold(tmp_path: Path) -> None:
    record_folder(tmp_path / "run")
    found = check_results(folder_results(tmp_path / "run"))
    assert found["title"] == "Snapshots in run"
    assert found["run"]["updates"] == 40
    assert found["run"]["cycle_ends"] == [9, 19, 29, 39]
    assert [row["step"] for row in found["snapshots"]] == [10, 20, 30, 40]
    assert found["snapshots"][0]["metrics"] == {"val_loss": None, "note": "<b>&", "epoch": 0}
    assert found["snapshots"][1]["metrics"]["val_loss"] == 1 / 20
    assert "choice" not in found
    write_results(found, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == found


def test_the_choice_beside_the_snapshots_is_read_and_compared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record_folder(folder)
    snapshots = SnapshotStore(folder).list()
    p, y = members_of(4, 1500)
    names = [each.path.name for each in snapshots]
    digests = [each.metadata["digest"] for each in snapshots]
    choice = fit(p, y, names=names, digests=digests)
    choice.save(folder / "ensemble.json")
    assert check_results(folder_results(folder))["choice"] == choice.to_dict()
    fit(p, y, names=names).save(folder / "ensemble.json")
    with pytest.raises(EnsembleError, match=r"must be of snapshots.*fit the ensemble again"):
        folder_results(folder)
    fit(p, y, names=names, digests=["0" * 64, *digests[1:]]).save(folder / "ensemble.json")
    with pytest.raises(EnsembleError, match=r"another, by its digest; fit the ensemble again"):
        folder_results(folder)
    fit(p[:3], y, names=names[:3], digests=digests[:3]).save(folder / "ensemble.json")
    with pytest.raises(EnsembleError, match=r"no newer snapshots .*fit the ensemble again"):
        folder_results(folder)
    choice.save(folder / "ensemble.json")
    snapshots[0].path.unlink()
    with pytest.raises(EnsembleError, match=r"Received: no cycle-0000.*fit the ensemble again"):
        folder_results(folder)
    (folder / "ensemble.json").write_text("{")
    with pytest.raises(EnsembleError, match=r"ensemble.json could not be read: it is no JSON"):
        folder_results(folder)


def test_folders_without_whole_snapshots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"at least one snapshot. Received: none, no folder"):
        folder_results(tmp_path / "missing")
    with pytest.raises(SnapshotError, match=r"Received: none$"):
        folder_results(tmp_path)
    (tmp_path / "results.json").touch()
    with pytest.raises(SnapshotError, match=r"it has a results.json: give that"):
        folder_results(tmp_path)
    record_folder(tmp_path)
    newest = SnapshotStore(tmp_path).list()[-1].path
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(CosannealError, match=rf"{newest.name} could not be read"):
        folder_results(tmp_path)


def test_more_members_than_fit_into_a_block_correlate_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_at_once = analysis_of(6)["correlation"]
    monkeypatch.setattr("cosanneal.ensemble.score.analysis._NUMBERS", 1000)
    np.testing.assert_allclose(analysis_of(6)["correlation"], whole_at_once, rtol=0, atol=1e-14)


def test_a_number_that_no_document_may_hold_is_named_by_its_field(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    snapshot = {"name": "a", "cycle": 0, "step": 1, "rate": 0.1, "metrics": {"loss": 1}}
    for text, message in (
        ("NaN", "must be a finite number"),
        ("1e999", "must be a finite number"),
        (str(10**400), "must be a finite number of at most 308 digits"),
        ("[" * 600 + "]" * 600, "must be nested at most 64 deep"),
    ):
        whole = json.dumps(bare(snapshots=[snapshot])).replace('"loss": 1', f'"loss": {text}')
        file.write_text(whole)
        with pytest.raises(EnsembleError, match=rf"in 'snapshots\[0\]\.metrics\.loss.*{message}"):
            read_results(file)


def test_documents_choices_and_figures_are_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    choice = fit([[[0.9, 0.1]] * 1000], [0] * 1000)
    choice.save("~/choice.json")
    assert Choice.load(tmp_path / "choice.json") == choice
    document = {"format": "cosanneal.results", "version": 1, "title": "Two"}
    write: Callable[[str], None] = functools.partial(write_results, document)
    for each in (choice.save, Choice.load, read_results, write):
        with pytest.raises(EnsembleError, match=r"a URL, which is taken for folders"):
            each("gs://bucket/x")
    assert [path.name for path in tmp_path.iterdir()] == ["choice.json"]
