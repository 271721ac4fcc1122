"""`--worker slurm-resources`: a Slurm cluster, with what each task needs asked for in its job."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import attrs

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.engine import Job, Result, stored_result
from biascorr_pydra.workers.execute import pack
from biascorr_pydra.workers.placing import PlacingWorker

from .client import Slurm
from .queue import Queue
from .spool import remove_dead_drivers
from .submit import Submission
from .work import Settings

__all__ = ["SlurmResourcesWorker"]

logger = logging.getLogger(__name__)

LOOK_S = 60.0  # how long Slurm may leave the first question unanswered


# --- options may be given as text


def _words(text: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(shlex.split(text)) if isinstance(text, str) else tuple(text)


def _whole(value: int | str, least: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        raise InvalidParameterError(f"a whole number, {least} or more, is needed", value=repr(value))
    return number


def _from_zero(value: int | str) -> int:
    return _whole(value, 0)


def _from_one(value: int | str) -> int:
    return _whole(value, 1)


def _from_one_or_none(value: int | str | None) -> int | None:
    return None if value is None else _whole(value, 1)


def _from_one_or_auto(value: int | str) -> int | str:
    return value if value == "auto" else _whole(value, 1)


def _seconds(value: float | str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidParameterError("a number of seconds is needed", value=repr(value))
    return number


@attrs.define
class SlurmResourcesWorker(PlacingWorker):
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

    name = "slurm-resources"
    remote = True

    sbatch_args: tuple[str, ...] = attrs.field(default=(), converter=_words)
    setup: str = ""
    chunk: int | str = attrs.field(default="auto", converter=_from_one_or_auto)
    max_in_queue: int = attrs.field(default=500, converter=_from_one)
    max_running: int | None = attrs.field(default=None, converter=_from_one_or_none)
    max_requeues: int = attrs.field(default=2, converter=_from_zero)
    poll_s: float = attrs.field(default=10.0, converter=_seconds)
    settle_s: float = attrs.field(default=5.0, converter=_seconds)
    patience_s: float = attrs.field(default=600.0, converter=_seconds)
    mem_gb: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    minutes: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    _slurm: Slurm = attrs.field(init=False, factory=Slurm, repr=False, eq=False)
    _submission: Submission = attrs.field(init=False, repr=False, eq=False)
    _roots: set[Path] = attrs.field(init=False, factory=set, repr=False, eq=False)
    _queues: dict[Path, Queue] = attrs.field(init=False, factory=dict, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._submission = Submission(
            self._slurm,
            sbatch_args=self.sbatch_args,
            chunk=self.chunk,
            max_running=self.max_running,
            setup=self.setup,
        )

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each of Slurm's commands was run."""
        return dict(self._slurm.calls)

    def refuse(self, asked: Resources, name: str) -> None:
        self._submission.look(self.patience_s)
        self._submission.check(self._complete(asked), name)

    refuse_too_much = refuse

    def _complete(self, asked: Resources) -> Resources:
        defaults = {"mem_gb": self.mem_gb, "minutes": self.minutes}
        return asked.updated({name: value for name, value in defaults.items() if getattr(asked, name) is None})

    async def run(self, job: Job, rerun: bool = False) -> Result:
        self._roots.add(job.cache_root)  # also where all is cached: what dead drivers have left there is removed
        return await super().run(job, rerun)

    async def admit(self, asked: Resources, name: str) -> None:
        await asyncio.to_thread(self._submission.look, min(self.patience_s, LOOK_S))
        self._submission.check(self._complete(asked), name)

    async def place(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        asked = self._complete(asked)
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
    result = stored_result(job.checksum, job.all_caches)
    return result is not None and not result.errored
