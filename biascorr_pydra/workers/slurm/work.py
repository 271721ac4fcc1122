"""Work on its way through Slurm: its pieces, the batches that were submitted, and all that one queue has of both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from biascorr_pydra.resources import Resources

from .client import task_id
from .spool import Batch, Entry

__all__ = ["Item", "Settings", "Watched", "Work"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a queue goes about it; see :class:`biascorr_pydra.workers.slurm.worker.SlurmResourcesWorker`."""

    poll_s: float
    settle_s: float
    patience_s: float
    max_requeues: int
    max_in_queue: int

    @property
    def most_starts(self) -> int:
        """How often a parcel may be begun."""
        return 1 + self.max_requeues


@dataclass(eq=False)
class Item:
    """One parcel that somebody waits for; see :meth:`biascorr_pydra.workers.slurm.queue.Queue.run`.

    Attributes
    ----------
    rank : what goes first
    alone : whether it is to have a job of its own
    """

    rank: tuple[int, int]
    entry: Entry
    needs: Resources
    parcel: bytes
    adoptable: bool
    is_done: Callable[[], bool]
    future: asyncio.Future[str | None]
    alone: bool = False

    def settle(self, error: str | None) -> None:
        """Tell whoever waits how it ended: the error as text, or None."""
        if not self.future.done():
            self.future.set_result(error)

    def fail(self, problem: Exception) -> None:
        """Raise an exception where somebody waits."""
        if not self.future.done():
            self.future.set_exception(problem)


@dataclass(eq=False)
class Watched:
    """A submitted batch, and those of its parcels that somebody waits for, by task and number.

    Attributes
    ----------
    ours : whether it is this driver's to cancel and to put away
    over_since : when each task was first seen to be over, by the monotonic clock in seconds
    buried : tasks that are over, with what they have left seen to
    """

    batch: Batch
    items: dict[tuple[int, int], Item]
    ours: bool = True
    over_since: dict[int, float] = field(default_factory=dict)
    buried: set[int] = field(default_factory=set)

    @property
    def job_id(self) -> str:
        """Slurm's number of it; "" where it is not known."""
        return self.batch.job_id or ""

    @property
    def tasks(self) -> set[int]:
        """The tasks that somebody waits for."""
        return {task for task, _ in self.items}

    @property
    def complete(self) -> bool:
        """Whether nothing of the batch is under way any more."""
        outcomes = self.batch.outcome_names()
        return all(
            task in self.buried or all(f"{task}-{number}" in outcomes for number in range(len(entries)))
            for task, entries in enumerate(self.batch.tasks)
        )

    def identity(self, task: int) -> str:
        """A task's name in Slurm."""
        return task_id(self.job_id, task if self.batch.is_array else None)


class Work:
    """All that one queue has on its hands.

    Attributes
    ----------
    pending : what is to be submitted
    watched : the batches that are with Slurm
    """

    def __init__(self) -> None:
        self.pending: list[Item] = []
        self.watched: list[Watched] = []
        self._reported: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.pending or self.watched)

    @property
    def in_queue(self) -> int:
        """How many jobs (array tasks) are with Slurm."""
        return sum(len(watched.tasks) for watched in self.watched)

    def fail(self, problem: Exception) -> None:
        """Raise an exception wherever somebody waits; nothing is pending any more."""
        for item in [*self.pending, *(item for watched in self.watched for item in watched.items.values())]:
            item.fail(problem)
        self.pending.clear()

    def warn_once(self, about: str, text: str) -> None:
        """Warn of something, the first time that it is so."""
        if about not in self._reported:
            self._reported.add(about)
            logger.warning("%s", text)
