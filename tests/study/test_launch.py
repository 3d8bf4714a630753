"""A study's runs: through any executor, resumed, refused, and where one fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.core.errors import EnsembleError, StudyError
from cosanneal.core.schedule import Schedule
from cosanneal.study import Run, read_study, run, sentences
from tests.shared.processes import ROOT
from tests.shared.scripts import EXAMPLES, run_example
from tests.shared.studied import dying, train


class AtOnce(Executor):
    """Keeps to the contract of `submit` and to nothing else."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def study(folder: Path, function: Any = train, **given: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        **{"total_steps": 60, "max_lr": 0.1, "num_cycles": (1, 2, 3), "seeds": 2},
        **{"executor": AtOnce(), "progress": [].append},
    }
    return run(function, folder=folder, **settings | given)


def without_times(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in each.items() if k != "seconds"} for each in results["runs"]]


def test_every_executor_gives_the_same_and_is_left_open(tmp_path: Path) -> None:
    lines: list[str] = []
    at_once = study(tmp_path / "a", progress=lines.append)
    assert [(each["seed"], each["cycles"]) for each in at_once["runs"]] == [
        (seed, cycles) for seed in (0, 1) for cycles in (1, 2, 3)
    ]
    assert len(lines) == 6
    assert sum(", 3 cycles, seed 1: error " in line for line in lines) == 1
    assert lines[-1].startswith("run 6 of 6, ")
    with ThreadPoolExecutor(3) as threads:
        assert without_times(study(tmp_path / "b", executor=threads)) == without_times(at_once)
        assert threads.submit(int).result() == 0
    in_processes = study(tmp_path / "c", executor=None, workers=2)
    assert without_times(in_processes) == without_times(at_once)
    assert read_study(tmp_path / "c" / "results.json") == in_processes


def test_what_is_done_is_not_done_again_and_more_can_be_added(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def counted(schedule: Schedule, folder: Path, seed: int) -> Run:
        calls.append((len(schedule.cycle_ends()), seed))
        return train(schedule, folder, seed)

    first = study(tmp_path, counted, num_cycles=[2], seeds=1)
    assert calls == [(1, 0), (2, 0)]  # the cosine was added
    assert study(tmp_path, counted, num_cycles=[2], seeds=1) == first
    assert len(calls) == 2
    study(tmp_path, counted, num_cycles=[2, 3], seeds=[0, 7])
    assert calls[2:] == [(3, 0), (1, 7), (2, 7), (3, 7)]


@pytest.mark.parametrize(
    ("given", "field"),
    [({"max_lr": 0.2}, "schedule"), ({"total_steps": 61}, "schedule"), ({"select": "greedy"}, "")],
)
def test_other_settings_in_the_same_folder_are_refused(
    given: dict[str, Any], field: str, tmp_path: Path
) -> None:
    study(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(StudyError, match=f"other settings: {field}.*Choose another folder"):
        study(tmp_path, **given)
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_run_that_fails_loses_no_other_and_is_tried_again(tmp_path: Path) -> None:
    broken = [True]

    def some(schedule: Schedule, folder: Path, seed: int) -> Run:
        if broken[0] and (len(schedule.cycle_ends()), seed) == (2, 1):
            raise RuntimeError("the loss is not finite")
        return train(schedule, folder, seed)

    with pytest.raises(StudyError, match=r"1 run of 6 failed .2 cycles, seed 1: RuntimeError: the"):
        study(tmp_path, some)
    found = read_study(tmp_path / "results.json")
    assert len(found["runs"]) == 5
    assert found["failed"] == [
        {"cycles": 2, "seed": 1, "error": "RuntimeError: the loss is not finite"}
    ]
    assert sentences(found)[-1] == "1 run failed and is left out: 2 cycles, seed 1."
    broken[0] = False
    assert len(study(tmp_path, some)["runs"]) == 6


def test_a_process_that_dies_takes_no_other_run_with_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"1 run of 4 failed .2 cycles, seed 0: .*process ended"):
        study(tmp_path, dying, executor=None, num_cycles=[2], workers=2)
    done = [
        (each["cycles"], each["seed"]) for each in read_study(tmp_path / "results.json")["runs"]
    ]
    assert done == [(1, 0), (1, 1), (2, 1)]


KILLED = """
import sys
from tests.shared.studied import slow
from cosanneal.study import run
if __name__ == "__main__":
    run(slow, total_steps=60, max_lr=0.1, num_cycles=(2,), seeds=2, folder=sys.argv[1])
"""


def test_a_study_that_is_killed_goes_on(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "study"
    script.write_text(KILLED)
    folder.mkdir()
    (folder / "wait").touch()
    command = [sys.executable, str(script), str(folder)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (folder / "cycles-1-seed-1").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = folder / "cycles-1-seed-0.json", folder / "cycles-2-seed-0.json"
    before = [file.stat().st_mtime_ns for file in done]
    assert not (folder / "cycles-1-seed-1.json").exists()
    time.sleep(1)  # for its processes to end of themselves
    (folder / "wait").unlink()
    time.sleep(0.5)
    assert not (folder / "cycles-1-seed-1" / "trained").exists()
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    assert [file.stat().st_mtime_ns for file in done] == before
    assert len(read_study(folder / "results.json")["runs"]) == 4
    assert (folder / "cycles-1-seed-1-attempt-2" / "trained").exists()


def returning(change: Callable[[Run], object]) -> Any:
    return lambda schedule, folder, seed: change(train(schedule, folder, seed))


def with_nan(found: Run) -> Run:
    found.test[0][0, 0, 0] = np.nan
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: Run(validation=found.test, test=found.test), "must not be the test data"),
        (with_nan, "robabilit"),
        (lambda _: None, "must return a `cosanneal.study.Run`. Received: None"),
        (
            lambda found: Run(
                validation=(np.repeat(found.validation[0], 2, axis=0), found.validation[1]),
                test=(np.repeat(found.test[0], 2, axis=0), found.test[1]),
            ),
            "Received: 2 members of 1 cycle",
        ),
        (
            lambda found: Run(
                validation=([*found.validation[0], np.ones((3, 3)) / 3], found.validation[1]),
                test=([*found.test[0], *found.test[0]], found.test[1]),
            ),
            "all of one shape",
        ),
        (
            lambda found: Run(
                validation=found.validation, test=([*found.test[0]] * 2, found.test[1])
            ),
            "must be of the same members",
        ),
        (
            lambda found: Run(
                validation=found.validation, test=(found.test[0][:, 1:], found.test[1])
            ),
            "150",
        ),
    ],
)
def test_predictions_that_cannot_be_are_refused(
    change: Callable[[Run], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        study(tmp_path, returning(change))
    assert isinstance(caught.value.__cause__, StudyError | EnsembleError)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_cycles": ()}, "`num_cycles` must be a sequence of at least one integer"),
        ({"num_cycles": (1,)}, "`num_cycles` must have a number above 1"),
        ({"num_cycles": (0, 2)}, "integers of at least 1. Received: 0"),
        ({"seeds": 0}, "integers of at least 1. Received: 0"),
        ({"seeds": []}, "`seeds` must be a sequence"),
        ({"select": "best"}, "`select` must be one of"),
        ({"max_lr": {2: 0.1, 3: 0.1}}, "for every number of cycles, 1 too.* Received: none for 1"),
        ({"executor": None, "workers": 0}, "integers of at least 1. Received: 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        study(tmp_path, **given)


def test_a_function_that_no_process_can_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"that other processes can import.*executor of threads"):
        study(tmp_path, returning(lambda found: found), executor=None)


def test_a_document_of_a_run_that_was_changed_is_refused(tmp_path: Path) -> None:
    study(tmp_path)
    document = tmp_path / "cycles-2-seed-0.json"
    data = json.loads(document.read_text())
    data["run"]["fitted"]["error"] = 1.5
    document.write_text(json.dumps(data))
    with pytest.raises(StudyError, match=r"cycles-2-seed-0.json: in 'run.fitted.error': must be"):
        study(tmp_path)


def test_the_example_answers_and_ends_in_a_page(tmp_path: Path) -> None:
    assert len((EXAMPLES / "study_torch.py").read_text().splitlines()) <= 40
    told = run_example("study_torch.py", tmp_path, "30", "2")
    assert told.startswith("It ")
    assert "pays here" in told or "not pay here" in told
    assert "<svg" in (tmp_path / "study.html").read_text()
    assert len(read_study(tmp_path / "runs" / "study" / "results.json")["runs"]) == 8
