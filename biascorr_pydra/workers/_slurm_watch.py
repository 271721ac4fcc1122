"""Work on its way through Slurm: one piece of it, a submitted batch, and what a driver that died has left there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..resources import Resources
from ._slurm_client import Standing, task_id
from ._slurm_spool import Batch, Entry, Spool

__all__ = ["Item", "Watched", "left_behind"]


@dataclass(eq=False)
class Item:
    """One parcel that somebody waits for; see :meth:`biascorr_pydra.workers._slurm_queue.Queue.run`.

    Attributes
    ----------
    rank : what goes first
    alone : whether it is to have a job of its own
    """

    rank: tuple
    entry: Entry
    needs: Resources
    parcel: bytes
    adoptable: bool
    is_done: Callable[[], bool]
    future: asyncio.Future
    alone: bool = False


@dataclass(eq=False)
class Watched:
    """A submitted batch, and those of its parcels that somebody waits for, by task and number.

    Attributes
    ----------
    ours : whether it is this driver's to cancel and to put away
    adopted : whether another driver has submitted it
    over_since : when each task was first seen to be over
    buried : tasks that are over, with what they have left seen to
    """

    batch: Batch
    items: dict[tuple[int, int], Item]
    ours: bool = True
    adopted: bool = False
    over_since: dict[int, float] = field(default_factory=dict)
    buried: set[int] = field(default_factory=set)

    @property
    def tasks(self) -> set[int]:
        """The tasks that somebody waits for."""
        return {task for task, _ in self.items}

    @property
    def complete(self) -> bool:
        """Whether nothing of the batch is under way any more."""
        there = self.batch.outcome_names()
        return all(
            task in self.buried or all(f"{task}-{number}" in there for number in range(len(entries)))
            for task, entries in enumerate(self.batch.tasks)
        )

    def identity(self, task: int) -> str:
        """A task's name in Slurm."""
        return task_id(self.batch.job_id, task if self.batch.is_array else None)


def left_behind(
    spool: Spool, batch: Batch, alive: bool, standings: Mapping[str, Standing]
) -> dict[str, tuple[Watched, int, int]]:
    """By checksum, the work of another driver's batch that still waits or runs; cleans up after what is over.

    Parameters
    ----------
    spool : where it is
    batch : the batch
    alive : whether its driver lives
    standings : where its tasks stand
    """
    watched = Watched(batch, {}, ours=not alive, adopted=True)
    found, running = {}, False
    there = batch.outcome_names()
    for task, entries in enumerate(batch.tasks):
        standing = standings.get(watched.identity(task)) if batch.job_id else None
        if standing is None or standing.over:
            if not alive:
                batch.release_locks(task, spool.cache_root)
            watched.buried.add(task)
            continue
        running = True
        for number, entry in enumerate(entries):
            if f"{task}-{number}" not in there:
                found[entry.checksum] = (watched, task, number)
    if not alive and not running:
        spool.finish(batch)
    return found
