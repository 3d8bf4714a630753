"""Runs the benchmarks, and writes what they measured.

    python -m benchmarks.runner [NAME ...]

Each benchmark is a module of this folder with a function `measure()` that
yields a `Figure` of `harness`, and runs alone too: `python -m benchmarks.NAME`.
It has a process of its own. A peer that is not installed is left out, a
benchmark whose framework is not installed, or that needs a device where there
is none, is skipped, and both are said.

Written are benchmarks/results.json (a benchmark that is not run keeps what it
had), a plot of each benchmark in docs/images, docs/performance.md and
docs/performance-tables.md.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.harness import RESULTS, Skipped, lacking, show

BENCHMARKS = tuple(
    sorted(
        file.stem
        for file in Path(__file__).parent.glob("*.py")
        if file.stem not in ("harness", "runner", "performance", "on_device")
    )
)
_PACKAGES = (
    *("numpy", "scipy", "safetensors", "torch", "timm", "transformers"),
    *("jax", "optax", "orbax-checkpoint", "keras", "tensorflow", "tensorflow-cpu"),
    *("onnx", "onnxruntime", "onnxscript", "tf2onnx"),
)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    found = {"processor": processor, "cores": str(os.cpu_count()), "system": platform.system()}
    found["python"] = platform.python_version()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    if shutil.which(query[0]):
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        devices = done.stdout.strip().splitlines() if done.returncode == 0 else []
        found |= {"device": devices[0]} if devices else {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_data(name: str) -> None:
    """Run one benchmark; the last line printed is what it measured, or why it could not."""
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        print(json.dumps(f"{lacking(error)} is not installed"))
        return
    try:
        print(json.dumps([figure.summary() for figure in module.measure()]))
    except Skipped as reason:
        print(json.dumps(str(reason)))


def main(names: Sequence[str]) -> int:
    """Run the benchmarks of these names, or all; 1 where a goal was missed."""
    # Here, so that the process of a benchmark has no matplotlib in it.
    from benchmarks.performance import main as write_page

    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(f"No such benchmark: {', '.join(unknown)}. There are {', '.join(BENCHMARKS)}")
        return 2
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    met = True
    for name in names or BENCHMARKS:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", f"from benchmarks.runner import as_data; as_data({name!r})"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)")
        if done.returncode:
            met = False
            print("  failed, for the reason above")
            continue
        figures = json.loads(done.stdout.splitlines()[-1])
        if isinstance(figures, str):
            print(f"  skipped: {figures}")
            continue
        known[name] = {"machine": machine(), "figures": figures}
        met &= show(figures)
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_page()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
