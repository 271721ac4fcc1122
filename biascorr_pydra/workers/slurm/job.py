"""What a Slurm job of `--worker slurm-resources` runs: one task of a batch, its parcels one after another.

    python -m biascorr_pydra.workers.slurm.job BATCH_FOLDER TASK

One process for all of them, so that what a parcel loads (networks, libraries) stays loaded for the next. Parcels that
have an outcome are passed over: a job that Slurm requeues goes on where it was. SIGTERM simply ends it (no errored
result is left for what was only interrupted); the driver, which knows that the job is over, removes its locks.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from pathlib import Path

from filelock import SoftFileLock

from biascorr_pydra.errors import SchedulerError
from biascorr_pydra.workers.execute import attempt, use_paths

from .spool import Batch, Progress, release_locks_of

__all__ = ["main"]

SOME_FAILED, TOO_LONG = 3, 4  # exit codes: a parcel ended with an error; a parcel took longer than it may


def main(folder: Path, task: int) -> int:
    """Run a task's parcels; the exit code."""
    batch = Batch.load(folder)
    content = pickle.loads((folder / "parcels" / str(task)).read_bytes())
    use_paths(content["paths"])
    failed = False
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    with SoftFileLock(folder / "process" / f"{task}-{restart}") as life:
        progress = batch.progress(task)
        progress.current, progress.before = None, 0
        for number, parcel in enumerate(content["parcels"]):
            if batch.outcome_file(task, number).exists():
                failed |= batch.outcome(task, number) is not None
                continue
            error = _begin(batch, task, number, progress, content["most_starts"])
            if error is None:
                with _Limit(batch, task, number, Path(life.lock_file), content["minutes"]) as limit:
                    error = _attempt(parcel)
                    limit.over()
            batch.put_outcome(task, number, error)
            failed |= error is not None
            progress.before += 1
    return SOME_FAILED if failed else 0


def _begin(batch: Batch, task: int, number: int, progress: Progress, most_starts: int) -> str | None:
    """Note that a parcel is begun; an error where it was begun too often already."""
    starts = batch.tasks[task][number].starts + progress.starts.get(str(number), 0)
    if starts >= most_starts:
        problem = SchedulerError(
            "was begun and interrupted too often",
            value=f"{starts} times",
            next_step="See the log, and sacct, for why its jobs are lost; allow more with max_requeues.",
        )
        return f"{type(problem).__name__}: {problem}"
    progress.current = number
    progress.starts[str(number)] = progress.starts.get(str(number), 0) + 1
    progress.write(batch.folder / "progress" / str(task))
    return None


def _attempt(parcel: bytes) -> str | None:
    """Run a parcel; the error as text, or None. It is in the job's log too."""
    error = attempt(parcel)
    if error:
        print(error, file=sys.stderr, flush=True)
    return error


class _Limit:
    """Ends the process when a parcel takes longer than its minutes, with an outcome that says so.

    Slurm's own limit is the whole job's, and counts in minutes.
    """

    def __init__(self, batch: Batch, task: int, number: int, life: Path, minutes: float | None):
        self._place, self._life = (batch, task, number), life
        self._once = threading.Lock()
        self._timer: threading.Timer | None = None
        if minutes is not None:
            self._timer = threading.Timer(minutes * 60, self._end, (minutes,))
            self._timer.daemon = True

    def __enter__(self) -> _Limit:
        if self._timer is not None:
            self._timer.start()
        return self

    def over(self) -> None:
        """The parcel has ended: the limit no longer matters."""
        self._once.acquire()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, minutes: float) -> None:
        if not self._once.acquire(blocking=False):
            return
        batch, task, number = self._place
        name = batch.tasks[task][number].name
        problem = SchedulerError(
            f"{name!r} took longer than its {minutes:g} minutes, and was stopped",
            next_step=f"Ask for more: --resources {name}.minutes={2 * minutes:g}.",
        )
        text = f"{type(problem).__name__}: {problem}"
        print(text, file=sys.stderr, flush=True)
        release_locks_of({self._life.read_bytes()}, batch.folder.parents[2])
        batch.put_outcome(task, number, text)
        os._exit(TOO_LONG)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
