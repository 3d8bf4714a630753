"""The pages of the site: their code is run, their links are links, their messages are ours."""

from __future__ import annotations

import ast
import re
from urllib.parse import urlsplit

import pytest

from tests.shared.pages import DOCS, ELSEWHERE, PAGES, blocks

ROOT = DOCS.parent
# Not the site's: the note on how it is made, what is made of it, and what the build writes.
NO_PAGES = {"README.md", "reference/_commands.md"}
ALL = sorted(
    name
    for page in DOCS.rglob("*.md")
    if not (name := page.relative_to(DOCS).as_posix()).startswith("_build") and name not in NO_PAGES
)
# What a block may be that is not run: commands, files of other programs, and what cannot be
# installed with us, which the page must say.
NOT_RUN = {"", "bash", "console", "json", "py", "text", "yaml"}


def languages(text: str) -> set[str]:
    fences = re.findall(r"^ *```([\w+-]*)[^\n]*$", text, re.MULTILINE)
    return set(fences[::2])


def test_every_page_with_code_is_run_by_a_session() -> None:
    assert len(ALL) > 20
    with_code = {page for page in ALL if blocks(page)}
    notebooks = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.ipynb")}
    assert with_code | notebooks == PAGES.keys() | ELSEWHERE


@pytest.mark.parametrize("page", ALL)
def test_code_is_python_that_runs_or_says_what_it_is(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    fences = {each for each in languages(text) if not each.startswith("{")}
    assert fences <= {"python", *NOT_RUN}
    assert text.count("```py\n") == text.count("This block is not run by our tests")


@pytest.mark.parametrize("page", ALL)
def test_a_page_begins_with_its_title_and_what_it_is(page: str) -> None:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    if lines[0] != "```{include} ../CHANGELOG.md":
        assert re.fullmatch(r"# \S.*", lines[0])
        assert lines[1] == ""
        assert re.match(r"[A-Z`\[]", lines[2])


@pytest.mark.parametrize("page", ALL)
def test_outer_links_have_the_form_of_one(page: str) -> None:
    for link in re.findall(r"\]\((\w+:[^)]*)\)", (DOCS / page).read_text(encoding="utf-8")):
        parts = urlsplit(link)
        assert parts.scheme == "https"
        assert re.fullmatch(r"([\w-]+\.)+[a-z]+", parts.netloc)
        assert not re.search(r"\s", link)


def sentences() -> list[str]:
    """The texts of the source, with what is put into them left out, and parts joined."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                )
    return found


def messages(text: str) -> list[str]:
    return re.findall(r"^### (.*)$", text, re.MULTILINE)


def test_messages_are_those_of_the_code() -> None:
    ours = sentences()
    page = messages((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(page) > 15
    assert [message for message in page if not any(message in text for text in ours)] == []


def test_a_message_that_nobody_says_would_be_found() -> None:
    assert messages("# A\n\n### so\n") == ["so"]
    assert not any("the moon must be full" in text for text in sentences())


def test_the_version_of_torch_to_install_is_the_one_that_was_tested() -> None:
    text = (DOCS / "versions.md").read_text(encoding="utf-8")
    said = {*re.findall(r"torch==([\d.]+\d)|PyTorch ([\d.]+\d) among", text)}
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (tested,) = re.findall(r"^torch==(.*)$", constraints, re.MULTILINE)
    assert said == {(tested, ""), ("", tested)}


def test_the_reference_has_every_public_name() -> None:
    text = "".join(
        page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md"))
    )
    shown = set(re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.MULTILINE))
    missing = public_names() - shown
    assert not missing


def public_names() -> set[str]:
    """Every name that a public package's `__init__` gives out, from its text alone."""
    source = ROOT / "src" / "cosanneal"
    packages = {
        "cosanneal": source / "__init__.py",
        **{
            f"cosanneal.{name}": source.joinpath(*name.split("."), "__init__.py")
            for name in (
                *("presets", "snapshots", "ensemble", "report", "study"),
                *("adapters.torch", "adapters.keras", "adapters.jax"),
            )
        },
    }
    found = set()
    for package, file in packages.items():
        names = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level == (1 if package else 0)
            for alias in node.names
            if alias.asname == alias.name or package == "cosanneal.presets"
        }
        assert len(names) > 2
        found |= {f"{package}.{name}" for name in names}
    for trainer in ("lightning", "transformers"):
        text = (source / "adapters" / f"{trainer}.py").read_text(encoding="utf-8")
        (listed,) = re.findall(r"^__all__ = (\[.*\])$", text, re.MULTILINE)
        found |= {f"cosanneal.adapters.{trainer}.{name}" for name in ast.literal_eval(listed)}
    return found - {"cosanneal.__version__", "cosanneal.presets"}
