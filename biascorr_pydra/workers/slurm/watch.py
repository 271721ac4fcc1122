"""Work on its way through Slurm: one piece of it, a submitted batch, and what a driver that died has left there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from biascorr_pydra.resources import Resources

from .client import Slurm, Standing, task_id
from .spool import Batch, Entry, Spool

CANCELLED_S = 60.0  # how long cancelled jobs may take to end

__all__ = ["Item", "Watched", "find_left_behind"]


@dataclass(eq=False)
class Item:
    """One parcel that somebody waits for; see :meth:`biascorr_pydra.workers.slurm.queue.Queue.run`.

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
    over_since : when each task was first seen to be over
    buried : tasks that are over, with what they have left seen to
    """

    batch: Batch
    items: dict[tuple[int, int], Item]
    ours: bool = True
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


async def find_left_behind(spool: Spool, slurm: Slurm, ask: Callable) -> dict[str, tuple[Watched, int, int]]:
    """By checksum, the work of other drivers' jobs that still wait or run; cleans up after those that are over.

    Parameters
    ----------
    spool : where they are noted
    slurm : the commands
    ask : calls a command with its arguments, in a thread, patiently
    """
    others = spool.others()
    for batch, _ in others:
        if batch.job_id is None:
            batch.job_id = await ask(slurm.find, batch.slurm_name)
    known = [batch.job_id for batch, _ in others if batch.job_id]
    standings = await ask(slurm.standings, known) if known else {}
    cancelled = {batch.job_id for batch, _ in others if batch.cancelled}
    until = time.monotonic() + CANCELLED_S
    # What the driver before has cancelled may hold locks until it is gone.
    while time.monotonic() < until and any(
        name.partition("_")[0] in cancelled and not standing.over for name, standing in standings.items()
    ):
        await asyncio.sleep(1)
        standings = await ask(slurm.standings, known)
    found = {}
    for batch, alive in others:
        found |= _left_behind(spool, batch, alive, standings)
    return found


def _left_behind(
    spool: Spool, batch: Batch, alive: bool, standings: Mapping[str, Standing]
) -> dict[str, tuple[Watched, int, int]]:
    watched = Watched(batch, {}, ours=not alive)
    found, over = {}, set()
    there = batch.outcome_names()
    for task, entries in enumerate(batch.tasks):
        standing = standings.get(watched.identity(task)) if batch.job_id else None
        if standing is None or standing.over:
            over.add(task)
            continue
        for number, entry in enumerate(entries):
            if f"{task}-{number}" not in there and not batch.cancelled:
                found[entry.checksum] = (watched, task, number)
    watched.buried |= over
    if not alive:
        batch.release_locks(over, spool.cache_root)
        if len(over) == len(batch.tasks):
            spool.finish(batch)
    return found
