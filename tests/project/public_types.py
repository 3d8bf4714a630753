"""What another's type checker knows of the library: `pyright --verifytypes`, all of it.

    python tests/project/public_types.py

Prints what is not known and is no exception, and the exceptions that are not needed any more; the
exit code says whether there is anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

# Keras exports its classes by a decorator without types, so that nobody knows what these are
# derived from; all that they have by themselves is known.
OF_KERAS: Final = {
    "cosanneal.adapters.keras.SnapshotRecorder",
    "cosanneal.adapters.keras.ShrinkAndPerturb",
    "cosanneal.adapters.keras.perturbation.ShrinkAndPerturb",
    "cosanneal.adapters.keras.perturbation.ShrinkAndPerturb.__init__",
    "cosanneal.adapters.keras.perturbation.ShrinkAndPerturb.recorder",
    "cosanneal.adapters.keras.recorder.SnapshotRecorder",
    "cosanneal.adapters.keras.stacked.StackedModel",
}


def unknown(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """The public names whose types are not wholly known, and why, from pyright's report."""
    symbols = report["typeCompleteness"]["symbols"]
    assert len(symbols) > 1000, "the package was not found"
    return {
        each["name"]: [said["message"] for said in each["diagnostics"]]
        for each in symbols
        if each["isExported"] and (not each["isTypeKnown"] or each["isTypeAmbiguous"])
    }


def main() -> int:
    """Ask pyright; 1 where there is anything to say."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "cosanneal"]
    done = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"], capture_output=True, text=True, check=False
    )
    try:
        found = unknown(json.loads(done.stdout))
    except ValueError:
        print(done.stdout, done.stderr, file=sys.stderr)
        return 1
    for name in sorted(found.keys() - OF_KERAS):
        print(name, *found[name], sep="\n    ")
    surplus = sorted(OF_KERAS - found.keys())
    for name in surplus:
        print(f"{name} is known by now: it is no exception any more")
    return 1 if surplus or found.keys() - OF_KERAS else 0


if __name__ == "__main__":
    sys.exit(main())
