"""What workers that place a job by what it needs have in common."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import attrs

from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.resources import Resources

from . import engine
from .engine import Job, Result, Worker
from .execute import finished, record_failure
from .needs import is_one_piece, needs, needs_of

__all__ = ["PlacingWorker", "TaskFailedError", "is_remote"]

logger = logging.getLogger("pydra.worker")

MANY = 8
SEEN_WITHIN_S = 60.0  # what a shared file system may lag
NOT_SEEN = "the result of a finished job is not seen here. Do all nodes share this file system?"
TOGETHER_S = 0.25


class TaskFailedError(RuntimeError):
    """A task failed in another process; the message is that process's traceback."""


@attrs.define
class PlacingWorker(Worker):
    """Looks in the cache, places what is not there on something that can give what it needs, and tells its error.

    A worker is a subclass with a ``name``, what it refuses and how it places a job; whatever it holds it lets go of in
    ``close``.

    Attributes
    ----------
    name : str, of the class
        As in ``--worker NAME``; Pydra finds it in the module ``pydra.workers.NAME``, with _ for -.
    remote : bool, of the class
        Whether its jobs run on other machines, or may outlive the process that submitted them: see :func:`is_remote`.

    Parameters
    ----------
    overrides : node -> field -> number
        Changes to what the tasks say they need, from :func:`biascorr_pydra.resources.parse_overrides`.
    """

    name: ClassVar[str]
    remote: ClassVar[bool] = True

    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, kw_only=True)
    _outstanding: int = attrs.field(init=False, default=0, repr=False, eq=False)

    @classmethod
    def plugin_name(cls) -> str:
        """The name under which Pydra knows the worker."""
        return cls.name

    def __reduce__(self) -> tuple[Callable[[], PlacingWorker], tuple[()]]:
        # Pickled as its settings alone: no event loop, no connection, nothing under way.
        settings = {f.name: getattr(self, f.name) for f in attrs.fields(type(self)) if f.init and f.name != "loop"}
        return partial(type(self), **settings), ()

    @abc.abstractmethod
    def refuse(self, asked: Resources, name: str) -> None:
        """Raise ResourceError if what is asked can never be given."""

    @abc.abstractmethod
    def refuse_too_much(self, asked: Resources, name: str) -> None:
        """Raise ResourceError if a number by itself can never be given, whatever else the step asks for."""

    async def admit(self, asked: Resources, name: str) -> None:
        """As :meth:`refuse`, while other jobs go on."""
        self.refuse(asked, name)

    @abc.abstractmethod
    async def place(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        """Run a job somewhere; its error as text, or None."""

    def check(self, task, name: str) -> None:
        """Refuse a task that can never run here.

        Raises
        ------
        ResourceError
        """
        self.refuse(needs_of(task, name, self.overrides), name)

    async def submit(self, job: Job, rerun: bool = False) -> Result:
        if not is_one_piece(job, self.overrides):
            if job.is_async:
                finished(job, rerun)
                _keep_no_graph(job)
            return await super().submit(job, rerun)
        self._outstanding += 1
        try:
            return await self.run(job, rerun)
        finally:
            # Whenever anything finishes, the engine looks at every job that has not: with many, tell it in batches.
            if self._outstanding > MANY:
                await asyncio.sleep(TOGETHER_S - self.loop.time() % TOGETHER_S)
            self._outstanding -= 1

    async def run(self, job: Job, rerun: bool = False) -> Result:
        """Run a job; its result is in the cache.

        Raises
        ------
        ResourceError
            The job asks for more than can ever be given.
        SchedulerError
            The scheduler does not answer, or refuses the job.
        TaskFailedError
            With the task's own error, or how its process ended.
        """
        asked = needs(job, self.overrides)
        cached = finished(job, rerun)
        if cached is not None:
            return cached
        try:
            await self.admit(asked, job.name)
            error = await self.place(job, asked, rerun)
            if error is None and await self._seen(job) is None:
                error = f"ResultNotSeenError: {job.cache_dir}: {NOT_SEEN}"
        except BiasCorrError as problem:
            _record(job, f"{type(problem).__name__}: {problem}")
            raise
        if error:
            _record(job, error)
            # in the marks between which Pydra looks for another process's traceback
            raise TaskFailedError(f'\n"""\n{error}\n"""')
        result = job.result()
        engine.remember_result(job, result)
        return result

    async def _seen(self, job: Job) -> Result | None:
        """The result that another process has written, as soon as it is seen here."""
        waited = 0.0
        while (result := job.result()) is None and waited < SEEN_WITHIN_S:
            await asyncio.sleep(0.5)
            waited += 0.5
        return result

    def give_up(self) -> None:
        """End what an interrupted run has left on the event loop, while there is one to end it on."""
        if self.loop is None or self.loop.is_running() or self.loop.is_closed():
            return
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


def is_remote(worker: Worker) -> bool:
    """Whether a worker's jobs run on other machines, or may outlive the process that submitted them.

    What a killed run has left may then still be at work, and its locks and temporary files are not anybody's to
    remove. A worker says so by its class's ``remote``; Pydra's own local ones, which say nothing, are known; any other
    that says nothing is taken for remote.
    """
    if type(worker) in engine.LOCAL_WORKERS:
        return False
    return getattr(type(worker), "remote", True) is not False


def _record(job: Job, error: str) -> None:
    """Leave an errored result where the job's own process could not."""
    try:
        record_failure(job, error)
    except OSError as problem:  # the error itself goes to the engine all the same
        logger.warning("%s: %s", job.cache_dir, problem)


def _keep_no_graph(job: Job) -> None:
    """Let a workflow's record be written without its graph: every job in it, 100 kB a scan, and nobody reads it."""
    hooks = job.hooks

    def drop_graph(job: Job, result: Result) -> None:
        engine.without_graph(job)
        job.hooks = hooks
        hooks.post_run_task(job, result)

    job.hooks = attrs.evolve(hooks, post_run_task=drop_graph)
