"""`--worker slurm-resources`: a Slurm cluster, with what each task needs asked for in its job."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from pydra.engine.job import Job
from pydra.engine.result import Result, load_result
from pydra.workers.base import Worker

from ..errors import BiasCorrError, InvalidParameterError
from ..resources import Resources
from ._execute import forget_failure, pack, record_failure
from ._slurm_client import Slurm
from ._slurm_queue import Queue, Settings
from ._slurm_spool import remove_dead_drivers
from ._slurm_submit import Submission
from ._spec import is_one_piece, needs, needs_of
from .lanes import TaskFailedError

__all__ = ["SlurmResourcesWorker"]

logger = logging.getLogger(__name__)

LOOK_S = 60.0  # how long Slurm may leave the first question unanswered
RESULT_S = 60.0  # how long a result that its job has reported may take to be seen here


def _words(text: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(shlex.split(text)) if isinstance(text, str) else tuple(text)


def _whole(least: int, *, none: bool = False, auto: bool = False):
    """A converter to a whole number, which may be given as text; None and "auto" where allowed."""

    def convert(value):
        if (none and value is None) or (auto and value == "auto"):
            return value
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = least - 1
        if number < least:
            raise InvalidParameterError(f"a whole number, {least} or more, is needed", value=repr(value))
        return number

    return convert


def _seconds(value) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidParameterError("a number of seconds is needed", value=repr(value))
    return number


@attrs.define
class SlurmResourcesWorker(Worker):
    """Runs jobs through Slurm: --cpus-per-task, --gres=gpu:N, --mem and --time are what each task needs.

    Work with the same needs goes together, several pieces a job and many jobs an array; one squeue asks for all. Jobs
    lost with their node, preempted or killed are submitted again, a bounded number of times; cancelled ones never are.
    What a driver that died has left in the queue is taken up by the next one.

    Parameters
    ----------
    overrides : node -> field -> number
        Changes to what the tasks say they need, from :func:`biascorr_pydra.resources.parse_overrides`.
    sbatch_args : str or list of str
        More options for sbatch (partition, account, ...); they come last and win.
    setup : str
        Shell lines that each job runs first, such as ``module load``.
    chunk : int or "auto"
        Pieces of work a job; see docs/slurm.md for what auto does.
    max_in_queue : int
        Jobs (array tasks) in the queue at a time, at most.
    max_running : int, optional
        Tasks of one array that may run at a time; no limit of ours by default.
    max_requeues : int
        How often a piece of work is begun again after its job was lost.
    poll_s : float
        Seconds between two squeues. Results are seen sooner, by their files.
    settle_s : float
        How long a job must be over before it counts as having left no result: what a shared file system may lag.
    patience_s : float
        How long Slurm may leave its commands unanswered.
    mem_gb, minutes : float, optional
        For tasks that do not say.
    """

    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    sbatch_args: tuple[str, ...] = attrs.field(default=(), converter=_words)
    setup: str = ""
    chunk: int | str = attrs.field(default="auto", converter=_whole(1, auto=True))
    max_in_queue: int = attrs.field(default=500, converter=_whole(1))
    max_running: int | None = attrs.field(default=None, converter=_whole(1, none=True))
    max_requeues: int = attrs.field(default=2, converter=_whole(0))
    poll_s: float = attrs.field(default=10.0, converter=_seconds)
    settle_s: float = attrs.field(default=5.0, converter=_seconds)
    patience_s: float = attrs.field(default=600.0, converter=_seconds)
    mem_gb: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    minutes: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    _slurm: Slurm = attrs.field(init=False, factory=Slurm, repr=False, eq=False)
    _submission: Submission | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _roots: set[Path] = attrs.field(init=False, factory=set, repr=False, eq=False)
    _queues: dict[Path, Queue] = attrs.field(init=False, factory=dict, repr=False, eq=False)

    _plugin_name = "slurm-resources"

    def __attrs_post_init__(self):
        self._submission = Submission(
            self._slurm,
            sbatch_args=self.sbatch_args,
            chunk=self.chunk,
            max_running=self.max_running,
            setup=self.setup,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.init} | {
            "loop": None
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each of Slurm's commands was run."""
        return dict(self._slurm.calls)

    def check(self, task, name: str) -> None:
        """Refuse a task that can never run here.

        Raises
        ------
        ResourceError
            It asks for more than any node has.
        SchedulerError
            There is no Slurm here, or it does not answer.
        """
        self._submission.look(self.patience_s)
        self._submission.check(self._complete(needs_of(task, name, self.overrides)), name)

    def _complete(self, asked: Resources) -> Resources:
        defaults = {"mem_gb": self.mem_gb, "minutes": self.minutes}
        return asked.updated({name: value for name, value in defaults.items() if getattr(asked, name) is None})

    async def submit(self, job: Job, rerun: bool = False) -> Result:
        if is_one_piece(job, self.overrides):
            return await self.run(job, rerun)
        return await super().submit(job, rerun)

    async def run(self, job: Job, rerun: bool = False) -> Result:
        """Run a job through Slurm; its result is in the cache.

        Raises
        ------
        ResourceError
            The job asks for more than any node has.
        SchedulerError
            There is no Slurm here, it does not answer for long, or it refuses the job.
        TaskFailedError
            With the task's own error, or how its Slurm job ended.
        """
        self._roots.add(job.cache_root)
        asked = self._complete(needs(job, self.overrides))
        if not rerun:
            found = job.result()
            if found is not None and not found.errored:
                return found
        forget_failure(job)  # before anything is waited for
        try:
            error = await self._send(job, asked, rerun)
        except BiasCorrError as problem:
            _record(job, f"{type(problem).__name__}: {problem}")
            raise
        if error is None and (result := await _seen(job)) is None:
            error = (
                f"SchedulerError: {job.cache_dir}: its result is not seen here. Do the nodes share this file system?"
            )
        if error:
            _record(job, error)
            # in the marks between which Pydra looks for another process's traceback
            raise TaskFailedError(f'\n"""\n{error}"""')
        job._cached_result = result
        return result

    async def _send(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        await asyncio.to_thread(self._submission.look, min(self.patience_s, LOOK_S))
        self._submission.check(asked, job.name)
        queue = self._queues.get(job.cache_root)
        if queue is None:
            self._slurm.start()
            settings = Settings(self.poll_s, self.settle_s, self.patience_s, self.max_requeues, self.max_in_queue)
            queue = self._queues[job.cache_root] = Queue(job.cache_root, self._slurm, self._submission, settings)
        parcel = pack(job, rerun)
        done = bool if rerun else partial(_is_done, job)  # bool(): never, whatever an earlier run has left
        return await queue.run(job.name, job.checksum, asked, parcel, is_done=done, adoptable=not rerun)

    def close(self) -> None:
        self._slurm.stop()
        for queue in self._queues.values():
            queue.close()
        for cache_root in self._roots - set(self._queues):
            remove_dead_drivers(cache_root)
        self._queues, self._roots = {}, set()


def _is_done(job: Job) -> bool:
    result = load_result(job.checksum, job.all_caches)
    return result is not None and not result.errored


def _record(job: Job, error: str) -> None:
    try:
        record_failure(job, error)
    except OSError as problem:  # the error itself goes to the engine all the same
        logger.warning("%s: %s", job.cache_dir, problem)


async def _seen(job: Job) -> Result | None:
    """The result that a job's process has written, as soon as it is seen here."""
    waited = 0.0
    while (result := job.result()) is None and waited < RESULT_S:
        await asyncio.sleep(0.5)
        waited += 0.5
    return result


Worker = SlurmResourcesWorker
