"""`--worker lanes`: one machine, its CPUs and GPUs, one long-lived process per GPU and per CPU in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import attrs
from pydra.engine.job import Job
from pydra.engine.result import Result
from pydra.workers.base import Worker

from .. import resources
from ..resources import Resources
from ._execute import forget_failure, pack
from ._pool import LaneDiedError, Pool
from ._spec import is_one_piece, needs, needs_of

__all__ = ["LanesWorker", "TaskFailedError"]

logger = logging.getLogger("pydra.worker")

ATTEMPTS = 2
TOGETHER_S = 0.25


class TaskFailedError(RuntimeError):
    """A task failed in another process; the message is that process's traceback."""


@attrs.define
class LanesWorker(Worker):
    """Runs jobs in long-lived processes, as many at once as their needs leave room for.

    A lane has the GPUs it was given and no others (CUDA_VISIBLE_DEVICES is set before anything is loaded), or none.
    What a job loads stays loaded for the next. A lane that dies loses only its own job, which is tried once more on a
    new one. A workflow that says what it needs as a whole runs from end to end in one lane.

    Parameters
    ----------
    n_procs : int, optional
        CPUs to use at most; by default all that this process may use.
    gpus : int or names, optional
        GPUs to use; by default those that are visible.
    mem_gb : float, optional
        Memory that running jobs may ask for together; by default the machine's.
    overrides : node -> field -> number
        Changes to what the tasks say they need, from :func:`biascorr_pydra.resources.parse_overrides`.
    """

    n_procs: int | None = None
    gpus: int | tuple[str, ...] | None = None
    mem_gb: float | None = None
    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    _pool: Pool | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _outstanding: int = attrs.field(init=False, default=0, repr=False, eq=False)

    _plugin_name = "lanes"

    def __attrs_post_init__(self):
        here = resources.available()
        if self.gpus is None:
            self.gpus = resources.gpu_ids()
        elif isinstance(self.gpus, int):
            self.gpus = tuple(str(number) for number in range(self.gpus))
        self.n_procs = self.n_procs or here.cpus
        self.mem_gb = self.mem_gb or here.mem_gb

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("n_procs", "gpus", "mem_gb", "overrides")} | {"loop": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._pool, self._outstanding = None, 0

    @property
    def capacity(self) -> Resources:
        """All that the lanes may use together."""
        return Resources(cpus=self.n_procs, gpus=len(self.gpus), mem_gb=self.mem_gb)

    def check(self, task, name: str) -> None:
        """Refuse a task that can never run here.

        Raises
        ------
        ResourceError
        """
        self._refuse_too_much(needs_of(task, name, self.overrides), name)

    def _refuse_too_much(self, asked: Resources, name: str) -> None:
        asked.updated({"minutes": None}).check(self.capacity, task=name, where="this machine")

    async def submit(self, job: Job, rerun: bool = False) -> Result:
        if not is_one_piece(job, self.overrides):
            return await super().submit(job, rerun)
        self._outstanding += 1
        try:
            return await self.run(job, rerun)
        finally:
            # Whenever anything finishes, the engine looks at every job that has not: with many, tell it in batches.
            if self._outstanding > 4 * self.n_procs:
                await asyncio.sleep(TOGETHER_S - self.loop.time() % TOGETHER_S)
            self._outstanding -= 1

    async def run(self, job: Job, rerun: bool = False) -> Result:
        """Run a job on a lane; its result is in the cache.

        Raises
        ------
        ResourceError
            The job asks for more than this machine can ever give.
        TaskFailedError
            With the task's own error, or how its process ended.
        """
        asked = needs(job, self.overrides)
        self._refuse_too_much(asked, job.name)
        if not rerun:
            found = job.result()
            if found is not None and not found.errored:
                return found
        forget_failure(job)  # before anything is waited for
        if self._pool is None:
            self._pool = Pool(self.capacity, tuple(self.gpus))
        error = await self._attempt(job, pack(job, rerun), asked)
        if error:
            # in the marks between which Pydra looks for another process's traceback
            raise TaskFailedError(f'\n"""\n{error}"""')
        job._cached_result = job.result()
        return job._cached_result

    async def _attempt(self, job: Job, parcel: bytes, asked: Resources) -> str | None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._pool.run(parcel, asked)
            except LaneDiedError as problem:
                logger.warning("%s (%s): %s", job.name, job.checksum, problem)
                if attempt == ATTEMPTS or "minutes" in str(problem):
                    return f"{type(problem).__name__}: {problem}; tried {attempt} time{'s' * (attempt > 1)}"
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


Worker = LanesWorker
