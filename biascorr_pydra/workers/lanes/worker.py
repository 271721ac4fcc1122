"""`--worker lanes`: one machine, its CPUs and GPUs, one long-lived process per GPU and per CPU in use."""

from __future__ import annotations

import asyncio
import logging

import attrs

from biascorr_pydra import lock, resources
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.engine import Job
from biascorr_pydra.workers.execute import pack
from biascorr_pydra.workers.placing import PlacingWorker, TaskFailedError

from .pool import Pool
from .process import LaneDiedError

__all__ = ["LanesWorker", "TaskFailedError"]

logger = logging.getLogger("pydra.worker")

ATTEMPTS = 2


@attrs.define
class LanesWorker(PlacingWorker):
    """Runs jobs in long-lived processes, as many at once as their needs leave room for.

    A lane has the GPUs it was given and no others (CUDA_VISIBLE_DEVICES is set before anything is loaded), or none.
    What a job loads stays loaded for the next. A lane that dies loses only its own job, which is tried once more on a
    new one. A workflow that says what it needs as a whole runs from end to end in one lane.

    Parameters
    ----------
    n_procs : int, optional
        CPUs to use at most; by default all that this process may use.
    gpus : int, or names as in "0,2", optional
        GPUs to use; by default those that are visible.
    mem_gb : float, optional
        Memory that running jobs may ask for together; by default the machine's.
    gpu_batch : int
        Tasks of one kind that a GPU is given at once, where they can do part of their work together (corrections are
        estimated together); as many of them as fit its memory.
    overrides : node -> field -> number
        Changes to what the tasks say they need, from :func:`biascorr_pydra.resources.parse_overrides`.
    """

    name = "lanes"
    remote = False

    n_procs: int | None = None
    gpus: int | str | tuple[str, ...] | None = None
    mem_gb: float | None = None
    gpu_batch: int = 4
    _pool: Pool | None = attrs.field(init=False, default=None, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        machine = resources.available()
        self.gpus = resources.chosen_gpus(self.gpus)
        self.n_procs = self.n_procs or machine.cpus
        self.mem_gb = self.mem_gb or machine.mem_gb

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """Names of the GPUs, as CUDA_VISIBLE_DEVICES takes them."""
        return resources.chosen_gpus(self.gpus)

    @property
    def capacity(self) -> Resources:
        """All that the lanes may use together."""
        cpus = self.n_procs or resources.available().cpus
        return Resources(cpus=cpus, gpus=len(self.gpu_ids), mem_gb=self.mem_gb)

    def refuse(self, asked: Resources, name: str) -> None:
        asked.updated({"minutes": None}).check(self.capacity, task=name, where="this machine")

    refuse_too_much = refuse

    async def place(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        if self._pool is None:
            self._pool = Pool(self.capacity, self.gpu_ids, self.gpu_batch)
        parcel = pack(job, rerun)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                kind = type(job.task) if attempt == 1 and hasattr(type(job.task), "together") else None
                return await self._pool.run(parcel, asked, kind)
            except LaneDiedError as problem:
                logger.warning("%s (%s): %s", job.name, job.checksum, problem)
                if attempt == ATTEMPTS or (problem.overtime and problem.alone):
                    return f"{type(problem).__name__}: {problem}; tried {attempt} time{'s' * (attempt > 1)}"
                await asyncio.sleep(2 * lock.EMPTY_LOCK_S)
                lock.remove_stale_locks(job.cache_root)
        return None

    def peaks_gb(self) -> list[float]:
        """Highest memory in GB of each lane that is there, so far."""
        return self._pool.peaks_gb() if self._pool else []

    def close(self) -> None:
        self.give_up()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
