"""How figures are saved, and what they need."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from cosanneal import CosannealError, CyclicCosine
from cosanneal.report import plot_schedule, save_figure


@pytest.fixture
def figure() -> Figure:
    return plot_schedule(CyclicCosine(0.1, total_steps=100, num_cycles=2))


class TestSaveFigure:
    @pytest.mark.parametrize(
        ("name", "start"),
        [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.b.pdf", b"%PDF")],
    )
    def test_the_suffix_decides_the_format(
        self, name: str, start: bytes, figure: Figure, tmp_path: Path
    ) -> None:
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("name", ["a.jpeg", "a", "png", ".png", "a.png.tmp"])
    def test_another_suffix_is_refused_with_the_known_ones(
        self, name: str, figure: Figure, tmp_path: Path
    ) -> None:
        with pytest.raises(CosannealError, match=r"one of \.png, \.svg, \.pdf") as caught:
            save_figure(figure, tmp_path / name)
        assert name in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_it_takes_the_place_of_an_earlier_file(self, figure: Figure, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("old")
        save_figure(figure, str(path))
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_midway_leaves_the_folder_as_it_was(
        self,
        failure: type[BaseException],
        figure: Figure,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "a.png"
        path.write_text("old")

        def fail(file: Any, **_: Any) -> None:
            file.write(b"half a picture")
            file.flush()
            # The half written so far lies beside the target, not in it.
            assert len(list(tmp_path.iterdir())) == 2
            raise failure

        monkeypatch.setattr(figure, "savefig", fail)
        with pytest.raises(failure):
            save_figure(figure, path)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_text() == "old"

    def test_a_failure_of_the_move_leaves_the_folder_as_it_was(
        self, figure: Figure, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.png"
        path.mkdir()
        with pytest.raises(CosannealError, match=r"a\.png could not be written: Is a directory"):
            save_figure(figure, path)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_missing_folder_is_named(self, figure: Figure, tmp_path: Path) -> None:
        with pytest.raises(CosannealError, match=r"a\.png could not be written: No such file"):
            save_figure(figure, tmp_path / "missing" / "a.png")

    @pytest.mark.skipif(sys.platform == "win32", reason="no such modes there")
    def test_the_file_has_the_mode_of_any_other_new_file(
        self, figure: Figure, tmp_path: Path
    ) -> None:
        (tmp_path / "other").touch()
        save_figure(figure, tmp_path / "a.png")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("matplotlib", "MissingExtraError matplotlib ModuleNotFoundError"),
        ("numpy", "MissingExtraError numpy ModuleNotFoundError"),
        ("jinja2", "MissingExtraError jinja2 ModuleNotFoundError"),
        ("markupsafe", "MissingExtraError markupsafe ModuleNotFoundError"),
        ("matplotlib._path", "ModuleNotFoundError matplotlib._path None"),
    ],
)
def test_a_missing_package_is_told_from_a_broken_one(missing: str, expected: str) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
try:
    import cosanneal.report
except ImportError as error:
    cause = type(error.__cause__).__name__ if error.__cause__ else None
    print(type(error).__name__, error.name, cause)
    print("cosanneal[plot]" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    told, has_command = done.stdout.splitlines()
    assert told == expected
    assert has_command == str(expected.startswith("MissingExtraError"))
