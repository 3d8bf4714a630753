"""An ensemble of JAX whose members lie over several processes; started by tests, as a script."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, load_snapshot
from tests.shared.jax_ranked_run import begin, keys, laid

SAMPLES = 16


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(7).standard_normal((SAMPLES, 4), np.float32)
    return x, (x.sum(1) > 0).astype(int) + (x[:, 0] > 0)


def member(seed: int) -> dict[str, Any]:
    drawn = np.random.default_rng(seed)
    return {"w": drawn.standard_normal((4, 4), np.float32), "b": drawn.standard_normal(4)}


def over_all(seed: int) -> dict[str, Any]:
    given = member(seed)
    return {
        "w": laid(given["w"], "a", "b"),
        "b": laid(given["b"].astype(np.float32)),
        "keys": keys(4, "a"),
    }


def apply(params: Any, x: Any) -> Any:
    return x @ params["w"] + params["b"]


def said(do: Callable[[], Any]) -> str:
    """The error that something is refused by."""
    try:
        do()
    except ca.EnsembleError as error:
        return str(error)
    return "none"


def main() -> None:
    """Predict in all ways, and write down what was found."""
    warnings.simplefilter("ignore", UserWarning)  # few samples
    work, rank = Path(sys.argv[1]), begin()
    with SnapshotRecorder(work / "run", ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(3):
            recorder.step(over_all(seed))
    numbers, y = data()
    x = laid(numbers, ("a", "b"))

    def ensemble() -> Any:
        return SnapshotEnsemble(jax.jit(apply), work / "run", like=over_all(0), outputs="logits")

    found: dict[str, Any] = {
        mode: np.asarray(ensemble().predict(x, mode=mode)).tolist()
        for mode in ("stream", "resident", "auto")
    }
    held = ensemble()
    held.predict(x, mode="resident")
    found["auto, held"] = np.asarray(held.predict(x, mode="auto")).tolist()
    found["host"] = np.asarray(ensemble().predict(numbers)).tolist()
    found["batches"] = np.asarray(ensemble().predict(x, batch_size=8)).tolist()
    found["loader"] = np.asarray(ensemble().predict([(x[:8],), (x[8:],)])).tolist()
    results = {
        "predicted": found,
        "classes": np.asarray(ensemble().predict_classes(x)).tolist(),
        "members": [np.asarray(each).tolist() for each in ensemble().member_predictions(x)],
        "fitted": [ensemble().fit(x, y, select=each).to_dict() for each in ("last", "greedy")],
        "evaluated": ensemble().evaluate(x, y),
    }
    last = load_snapshot(over_all(0), recorder.store.list()[-1])
    results["loaded"] = [
        bool(last[name].sharding == over_all(0)[name].sharding) for name in ("w", "b", "keys")
    ]
    results["refused"] = {
        "stacked": said(lambda: ensemble().predict(x, mode="stacked")),
        "labels": said(lambda: ensemble().fit(x, laid(y, ("a", "b")))),
        "average": said(lambda: ensemble().average_weights(x, y, barrier=99.0)),
    }
    (work / f"results-{rank}.json").write_text(json.dumps(results, default=str))


if __name__ == "__main__":
    main()
