"""Has Jupyter run the tutorials, and writes what comes out into them.

python docs/run_tutorials.py [NAME ...]
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).parent / "tutorials"
SECONDS = 300  # for a cell, on the slowest machine
COLOURS = 64  # of a figure; so it is a third as large, and looks the same


def smaller(picture: str) -> str:
    """A PNG, as a notebook holds it, of few colours."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def run(path: Path) -> None:
    """Run one from an empty folder; the file changes only when all of it has run."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise SystemExit(f"{path.name}, {cell.id} warns: {output.text}")
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    # Without this machine's versions.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", help="such as from-scratch; by default all of them")
    chosen = parser.parse_args().names or sorted(each.stem for each in TUTORIALS.glob("*.ipynb"))
    # Of so small networks, threads only wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Which tqdm says where Jupyter has no widgets.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    for name in chosen:
        run(TUTORIALS / f"{name}.ipynb")
        print(f"{name} has run")  # noqa: T201 - what it is for
