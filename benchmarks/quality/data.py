"""The data sets, from the files of installed packages; their digests are checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Where Debian's package puts them; `dpkg -x` of it, without R, is enough.
MLBENCH: Final = Path("/usr/lib/R/site-library/mlbench/data")
MLBENCH_VARIABLE: Final = "MLBENCH_DATA"

_MLBENCH_DIGESTS: Final = {
    "Vowel": "6577f9ca304153797ec7621d79020b010d160c425da2007639b9e6a2b23fb127",
    "Vehicle": "ea993a1fe72b2611a609101aa6ebee43b6a9dd07c329c9acd1a184ba971a2710",
    "DNA": "df941ad89a49f705a29bf38e52c91dc34029539cedb13fa24f803f1224278c9e",
    "Sonar": "e75dbab91efeba53ff00d13281977619a9e584bd2ccff48550e8a252f7c49cd4",
    "Ionosphere": "1e72974db40749e025434dbb45c815c826d3cce7c1b324fd07ee89aee44e08b7",
    "Ozone": "3c43847325bdea47f28e8231d3d7e14915982aa73275bbefbed75e5e6dc18c5f",
    "Servo": "0548307e62373828d69687cf41b8f214a95bf4d4895ce987a9807a9e2a4682c8",
}
_TEXT_DIGEST: Final = "efcc63d1a838d2134e9078ff3e2d7c6b66098f891425d381cef4879fe3ca390f"

# Windows of so many characters; so many windows in a row stay on one side of a split.
WINDOW: Final = 24
_WINDOWS_TOGETHER: Final = 20
_RARE: Final = 100


class DataError(RuntimeError):
    """A data set that is not there, or is not the one that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set.

    Args:
        x: of shape (samples, features); of a text the character numbers (windows, characters).
        y: class numbers of shape (samples,), of a text (windows, characters); or of a regression
            the values (samples,), in float64.
        classes: how many classes there are; 0 for a regression.
        groups: samples of one number stay on one side of a split; None if each is its own.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    classes: int
    groups: NDArray[np.int64] | None = None


def checked(content: bytes, digest: str, what: str, advice: str) -> bytes:
    """The content, if its SHA-256 is the one that was measured with.

    Raises:
        DataError: it is another one.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise DataError(
            f"{what} must have the SHA-256 {digest}, for the results to be comparable. "
            f"Received: {found}; {advice}"
        )
    return content


def mlbench(name: str, target: str, *, without: tuple[str, ...] = ()) -> Data:
    """A table of R's package mlbench; factors become one column for each level.

    Rows with a missing value are left out, after the columns `without`.

    Raises:
        DataError: the file is not there, or is another one.
    """
    folder = Path(os.environ.get(MLBENCH_VARIABLE, MLBENCH))
    path = folder / f"{name}.rda"
    advice = (
        "take Debian's package r-cran-mlbench 2.1 (`apt-get download r-cran-mlbench`, "
        f"`dpkg -x` it), and name its folder of .rda files in {MLBENCH_VARIABLE}"
    )
    if not path.is_file():
        raise DataError(f"The data set {name} must be at {path}. Received: no file; {advice}")
    content = checked(path.read_bytes(), _MLBENCH_DIGESTS[name], str(path), advice)
    import rdata

    parsed = rdata.parser.parse_data(content)
    table = rdata.conversion.convert(parsed, default_encoding="utf-8")[name]
    table = table.drop(columns=list(without)).dropna()
    truth = table.pop(target)
    columns = []
    for column in table:
        values = table[column]
        if hasattr(values, "cat"):
            codes = values.cat.codes.to_numpy()
            columns += [codes == code for code in range(len(values.cat.categories))]
        else:
            columns.append(values.to_numpy())
    x = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    if hasattr(truth, "cat"):
        codes = truth.cat.codes.to_numpy().astype(np.int64)
        return Data(x=x, y=codes, classes=len(truth.cat.categories))
    return Data(x=x, y=truth.to_numpy().astype(np.float64), classes=0)


def scikit(load: str) -> Data:
    """One of scikit-learn's own data sets, such as "load_wine"."""
    from sklearn import datasets

    x, y = getattr(datasets, load)(return_X_y=True)
    x = np.asarray(x, dtype=np.float64)
    if np.issubdtype(y.dtype, np.integer):
        return Data(x=x, y=y.astype(np.int64), classes=int(y.max()) + 1)
    return Data(x=x, y=y.astype(np.float64), classes=0)


def text() -> Data:
    """The characters of scikit-learn's descriptions of its data sets, and the next of each.

    In lower case; characters that are seen less than 100 times are one.

    Raises:
        DataError: they are those of another version.
    """
    folder = files("sklearn.datasets") / "descr"
    texts = sorted((each for each in folder.iterdir() if each.name.endswith(".rst")), key=str)
    content = checked(
        b"".join(each.read_bytes() for each in texts),
        _TEXT_DIGEST,
        "The text of sklearn/datasets/descr/*.rst",
        "install scikit-learn==1.9.1",
    )
    characters = np.array(list(content.decode("utf-8").lower()))
    known, numbers, counts = np.unique(characters, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= _RARE)
    renumbered = np.full(len(known), len(kept), dtype=np.int64)
    renumbered[kept] = np.arange(len(kept))
    sequence = renumbered[numbers]
    windows = (len(sequence) - 1) // WINDOW
    x = sequence[: windows * WINDOW].reshape(windows, WINDOW)
    y = sequence[1 : windows * WINDOW + 1].reshape(windows, WINDOW)
    groups = np.arange(windows, dtype=np.int64) // _WINDOWS_TOGETHER
    return Data(x=x, y=y, classes=len(kept) + 1, groups=groups)


LOADERS: Final[dict[str, Callable[[], Data]]] = {
    "digits": lambda: scikit("load_digits"),
    "vowel": lambda: mlbench("Vowel", "Class"),
    "breast_cancer": lambda: scikit("load_breast_cancer"),
    "sonar": lambda: mlbench("Sonar", "Class"),
    "diabetes": lambda: scikit("load_diabetes"),
    "servo": lambda: mlbench("Servo", "Class"),
    "text": text,
    "vehicle": lambda: mlbench("Vehicle", "Class"),
    "dna": lambda: mlbench("DNA", "Class"),
    "ionosphere": lambda: mlbench("Ionosphere", "Class"),
    "wine": lambda: scikit("load_wine"),
    # The day of the month says nothing, and the temperature at El Monte is often missing.
    "ozone": lambda: mlbench("Ozone", "V4", without=("V2", "V9")),
}
