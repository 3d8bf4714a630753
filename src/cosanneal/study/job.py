"""One run of a study: trained, scored, and told by a small document of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..core.atomic import make_folder, replacing
from ..core.documents import read_document
from ..core.errors import StudyError, plural, shown
from ..core.records import first_difference
from ..core.schedule import Schedule
from ..ensemble.choose.record import Select
from .document import check_run, run_name
from .scores import Run

Train: TypeAlias = Callable[[Schedule, Path, int], Run]

FORMAT: Final = "cosanneal.study-run"
VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that is to be done; plain data and the user's function, for another process.

    Args:
        train: the user's function.
        name: its name, for documents.
        folder: the study's.
        cycles: into how many cycles the budget is cut.
        seed: what it is trained with.
        schedule: as `Schedule.to_dict` gives it.
        select: how the ensemble is chosen.
    """

    train: Train
    name: str
    folder: str
    cycles: int
    seed: int
    schedule: dict[str, Any]
    select: Select

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{plural(self.cycles, 'cycle')}, seed {self.seed}"

    @property
    def document(self) -> Path:
        """Where it is told of when it is done."""
        return Path(self.folder) / f"{run_name(self.cycles, self.seed)}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run that is taken as done."""
        # As it comes back from a file.
        told: dict[str, Any] = json.loads(
            json.dumps({"train": self.name, "select": self.select, "schedule": self.schedule})
        )
        return told

    def done(self) -> dict[str, Any] | None:
        """What is known of the run if it was done before, None if it was not.

        Raises:
            StudyError: it was done with other settings, or its document cannot be read.
        """
        if not self.document.exists():
            return None
        data = read_document(self.document, error=StudyError, advice="; remove it to train anew")
        if not isinstance(data, dict) or (data.get("format"), data.get("version")) != (
            FORMAT,
            VERSION,
        ):
            raise StudyError(
                f"{self.document} must be what a study wrote of a run, in version {VERSION}. "
                f"Received: {shown(data)}; remove it to train anew, or choose another folder"
            )
        other = first_difference(data.get("settings"), self.settings)
        if other is not None:
            field, old, new = other
            raise StudyError(
                f"The run of {self.title} in {self.folder} was done with other settings: "
                f"{field or 'settings'} was {shown(old)} and is {shown(new)}. Choose another "
                "folder, or the settings of before"
            )
        try:
            found = check_run(data.get("run"))
        except StudyError as error:
            raise StudyError(f"{self.document}: {error}; remove it to train anew") from error
        if (found["cycles"], found["seed"]) != (self.cycles, self.seed):
            raise StudyError(
                f"{self.document} must tell of {self.title}. Received: cycles={found['cycles']}, "
                f"seed={found['seed']}; remove it to train anew"
            )
        return found


def do(job: Job) -> dict[str, Any]:
    """Train, score and write down a run, in whatever process this is called.

    Raises:
        StudyError: the function returns no `Run`, or one of other members.
        EnsembleError: its arrays do not fit.
    """
    begun = time.perf_counter()
    run: Any = job.train(Schedule.from_dict(job.schedule), _new_folder(job), job.seed)
    if not isinstance(run, Run):
        raise StudyError(
            "The function `train` must return a `cosanneal.study.Run`. "
            f"Received: {shown(run)}; return study.Run.of(ensemble, validation=(x, y), "
            "test=(x, y))"
        )
    scores = run.scores(select=job.select)
    if scores["members"] != job.cycles:
        raise StudyError(
            "The predictions must have one member for each cycle along their first axis. "
            f"Received: {plural(scores['members'], 'member')} of {plural(job.cycles, 'cycle')}; "
            "take a snapshot at each cycle's end, and all of them for the predictions"
        )
    found = check_run(
        {
            "cycles": job.cycles,
            "seed": job.seed,
            "seconds": time.perf_counter() - begun,
            **scores,
        }
    )
    told = {"format": FORMAT, "version": VERSION, "settings": job.settings, "run": found}
    with replacing(job.document, error=StudyError) as file:
        file.write(json.dumps(told, indent=1, allow_nan=False).encode() + b"\n")
    return found


def _new_folder(job: Job) -> Path:
    """A folder that no other run has, not even one of these cycles and seed that was killed.

    A process that outlived a study may still write to that one's.
    """
    name, attempt = run_name(job.cycles, job.seed), 1
    make_folder(Path(job.folder))
    while True:
        folder = Path(job.folder) / (name if attempt == 1 else f"{name}-attempt-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            attempt += 1
        else:
            return folder
