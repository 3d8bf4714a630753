"""What a published project has beside its code: it is there, and says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read(name))
    return found


def test_who_cites_it_finds_the_license_and_the_papers() -> None:
    found = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert f'license = "{found["license"]}"' in read("pyproject.toml")
    assert all(each["url"] in read("docs/design.md") for each in found["references"])


def test_before_a_commit_ruff_runs_at_the_version_of_the_tests() -> None:
    (ruff,) = [each for each in load(".pre-commit-config.yaml")["repos"] if "ruff" in each["repo"]]
    assert f"\nruff=={ruff['rev'].removeprefix('v')}\n" in read("constraints.txt")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_may_only_read_unless_a_job_says_more(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.search(r"@v\d", step.get("uses", "@v1"))
        if "permissions" in job:  # such a job runs no code of the repository
            assert name in ("publish", "deploy")
            assert all("run" not in step for step in job["steps"])
            assert all("checkout" not in step["uses"] for step in job["steps"])


def test_a_release_is_published_without_a_token_and_with_attestations() -> None:
    text = read(".github/workflows/release.yml")
    assert "secrets." not in text
    assert "password" not in text
    publish = yaml.safe_load(text)["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["needs"] == "build"
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@v")
    assert publish["steps"][-1]["with"] == {"attestations": True}


def test_the_site_is_taken_from_where_it_is_built() -> None:
    (place,) = re.findall(r'pages = \("docs", "(.*)"\)', read("noxfile.py"))
    assert f"cp -r {place} " in read(".readthedocs.yaml")
    assert f"path: {place}\n" in read(".github/workflows/pages.yml")


def test_the_changelog_has_the_form_that_others_have() -> None:
    titles = re.findall(r"^#+ .*$", read("CHANGELOG.md"), re.MULTILINE)
    assert titles[:2] == ["# Changelog", "## [Unreleased]"]
    kinds = "Added|Changed|Deprecated|Removed|Fixed|Security"
    assert all(re.fullmatch(rf"### ({kinds}): .+", title) for title in titles[2:])


def test_the_versions_that_are_said_to_be_supported_are_those_of_pyproject() -> None:
    bounds = dict(re.findall(r'"(\w+)>=([\d.]+)"', read("pyproject.toml")))
    page = read("docs/versions.md")
    for name, title in (
        *(("torch", "PyTorch"), ("keras", "Keras"), ("lightning", "Lightning")),
        *(("transformers", "transformers"), ("numpy", "numpy")),
    ):
        assert f"| {title} | {bounds[name]} and newer" in page
    assert f"{bounds['jax']}, {bounds['optax']} and newer" in page
    assert f"TensorFlow {bounds['tensorflow']}" in page
