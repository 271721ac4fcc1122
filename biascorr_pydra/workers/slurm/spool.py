"""What goes between the driver and its Slurm jobs: files in ``CACHE_ROOT/slurm-resources``, each written whole.

    drivers/ID.lock            held by a driver while it lives; its time of change is the driver's heartbeat
    open/BATCH                 marks a batch that is not finished
    batches/BATCH/batch.json   one submission: its job id, what it needs, and whose work is in each of its tasks
    batches/BATCH/parcels/T    the work of task T of the array
    batches/BATCH/progress/T   what task T is at, and how often each parcel was begun
    batches/BATCH/process/     a lock held by each task's process: what is left here tells a dead process's locks
    batches/BATCH/outcomes/    one file a parcel that was run
    batches/BATCH/T.out, T.err what task T printed; kept, with batch.json, when the rest is removed

A batch is one ``sbatch``: a job array, or one job, of tasks with the same needs, each with one parcel or several.
"""

from __future__ import annotations

import json
import pickle
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import SoftFileLock, Timeout

from biascorr_pydra.images.files import write_bytes, write_text
from biascorr_pydra.resources import Resources

__all__ = ["Batch", "Entry", "Progress", "Spool", "release_locks_of", "remove_dead_drivers"]

FOLDER = "slurm-resources"
HEARTBEAT_S = 600  # a driver on another host that has been silent for so long is taken for dead
PARTS = ("parcels", "progress", "process", "outcomes")


@dataclass
class Entry:
    """One parcel of a task: whose it is, and how often it was begun before this submission."""

    name: str
    checksum: str
    starts: int = 0


@dataclass
class Progress:
    """How far a task has come: the parcel it is at, those begun before in the same process, starts of each."""

    current: int | None = None
    before: int = 0
    starts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Progress:
        """From a file; empty where none was written yet."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return cls()

    def write(self, file: Path) -> None:
        """Into a file, whole."""
        _write_json(file, asdict(self))


@dataclass
class Batch:
    """One submission to Slurm; ``cancelled`` where its driver has ended it."""

    folder: Path
    needs: Resources
    tasks: list[list[Entry]]
    driver: str
    job_id: str | None = None
    cancelled: bool = False

    @property
    def is_array(self) -> bool:
        """Whether its tasks are those of a job array."""
        return len(self.tasks) > 1

    @property
    def slurm_name(self) -> str:
        """The job's name, by which it is found where its id was lost."""
        return f"{self.tasks[0][0].name}-{self.folder.name}"

    def save(self) -> None:
        """Write its journal."""
        content = asdict(self) | {"folder": None}
        _write_json(self.folder / "batch.json", content)

    @classmethod
    def load(cls, folder: Path) -> Batch:
        """From its journal."""
        content = json.loads((folder / "batch.json").read_text())
        tasks = [[Entry(**entry) for entry in task] for task in content["tasks"]]
        needs = Resources(**content["needs"])
        return cls(folder, needs, tasks, content["driver"], content["job_id"], content["cancelled"])

    def log(self, task: int, suffix: str = "err") -> Path:
        """Where a task's output goes."""
        return self.folder / f"{task}.{suffix}"

    def progress(self, task: int) -> Progress:
        """How far a task has come."""
        return Progress.read(self.folder / "progress" / str(task))

    def outcome_names(self) -> set[str]:
        """Names of the outcome files that are there."""
        return {file.name for file in (self.folder / "outcomes").iterdir() if not file.name.startswith(".")}

    def outcome_file(self, task: int, number: int) -> Path:
        """Where a parcel's outcome goes."""
        return self.folder / "outcomes" / f"{task}-{number}"

    def outcome(self, task: int, number: int) -> str | None:
        """The error a parcel ended with, as text, or None."""
        return json.loads(self.outcome_file(task, number).read_text())["error"]

    def put_outcome(self, task: int, number: int, error: str | None) -> None:
        """Write a parcel's outcome, whole."""
        _write_json(self.outcome_file(task, number), {"error": error})

    def release_locks(self, tasks: Iterable[int], cache_root: Path) -> None:
        """Remove the locks that the processes of these tasks, now dead, have left in the cache."""
        files = [file for task in tasks for file in (self.folder / "process").glob(f"{task}-*")]
        release_locks_of({file.read_bytes() for file in files}, cache_root)
        for file in files:
            file.unlink(missing_ok=True)


def release_locks_of(processes: set[bytes], cache_root: Path) -> None:
    """Remove the locks in a cache that carry a dead process's mark.

    filelock itself breaks a lock only where it can see that the process is gone: on the same host.
    """
    processes.discard(b"")
    for lock in cache_root.glob("*.lock") if processes else ():
        try:
            if lock.read_bytes() in processes:
                lock.unlink()
        except OSError:
            continue  # released by somebody else just now


class Spool:
    """The folder, and this driver's place in it.

    Raises
    ------
    OutputError
        Where a file cannot be written.
    """

    def __init__(self, cache_root: Path):
        self.cache_root, self.folder = cache_root, cache_root / FOLDER
        self.driver = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        for part in ("open", "batches", "drivers"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        remove_dead_drivers(cache_root)
        self._life = SoftFileLock(self._life_file(self.driver))
        self._life.acquire()

    def _life_file(self, driver: str) -> Path:
        return self.folder / "drivers" / f"{driver}.lock"

    def beat(self) -> None:
        """Show that this driver lives."""
        self._life_file(self.driver).touch()

    def close(self) -> None:
        """Give the driver's place up."""
        self._life.release()

    def create(
        self, needs: Resources, chunks: list[list[tuple[Entry, bytes]]], *, script: str, most_starts: int
    ) -> Batch:
        """Write a batch, ready to be submitted: one chunk of parcels a task."""
        folder = self.folder / "batches" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        for part in PARTS:
            (folder / part).mkdir(parents=True)
        batch = Batch(folder, needs, [[entry for entry, _ in chunk] for chunk in chunks], self.driver)
        for number, chunk in enumerate(chunks):
            content = {
                "paths": [path for path in sys.path if path],
                "minutes": needs.minutes,
                "most_starts": most_starts,
                "parcels": [parcel for _, parcel in chunk],
            }
            write_bytes(folder / "parcels" / str(number), pickle.dumps(content))
        write_bytes(folder / "job.sh", script.replace("@FOLDER@", shlex.quote(str(folder))).encode())
        batch.save()
        self._mark(batch).touch()
        return batch

    def _mark(self, batch: Batch) -> Path:
        return self.folder / "open" / batch.folder.name

    def finish(self, batch: Batch) -> None:
        """Keep a batch's logs and journal, and nothing else."""
        for part in PARTS:
            shutil.rmtree(batch.folder / part, ignore_errors=True)
        self._mark(batch).unlink(missing_ok=True)

    def discard(self, batch: Batch) -> None:
        """Forget a batch that was never submitted."""
        self._mark(batch).unlink(missing_ok=True)
        shutil.rmtree(batch.folder, ignore_errors=True)

    def others(self) -> list[tuple[Batch, bool]]:
        """Batches of other drivers that are not finished, and whether their driver lives."""
        others: list[tuple[Batch, bool]] = []
        alive: dict[str, bool] = {}
        for mark in sorted((self.folder / "open").iterdir()):
            try:
                batch = Batch.load(self.folder / "batches" / mark.name)
            except FileNotFoundError:  # its driver is just discarding it
                continue
            if batch.driver != self.driver:
                alive.setdefault(batch.driver, _is_alive(self._life_file(batch.driver)))
                others.append((batch, alive[batch.driver]))
        return others

    @staticmethod
    def note_cancelled(batch: Batch) -> None:
        """Before it is cancelled: its jobs are not for the next driver to take up."""
        batch.cancelled = True
        batch.save()

    def adopt(self, batch: Batch) -> None:
        """Make a batch of a dead driver this one's."""
        batch.driver = self.driver
        batch.save()


def remove_dead_drivers(cache_root: Path) -> None:
    """Remove what drivers that died have left of themselves; their batches stay for the next driver."""
    for file in (cache_root / FOLDER / "drivers").glob("*.lock"):
        _is_alive(file)


def _is_alive(file: Path) -> bool:
    """Whether the driver of this lock lives; where it does not, the lock goes."""
    try:
        if time.time() - file.stat().st_mtime > HEARTBEAT_S:
            file.unlink()
            return False
        with SoftFileLock(file, timeout=0):
            return False
    except FileNotFoundError:
        return False
    except Timeout:
        return True


def _write_json(file: Path, content: dict) -> None:
    write_text(file, json.dumps(content))
