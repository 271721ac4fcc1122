"""What other drivers, dead or alive, have with Slurm: which work is under way, and what is to be put away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from .client import Slurm, Standing
from .spool import Batch, Spool
from .work import Watched

__all__ = ["LeftBehind", "find_left_behind"]

CANCELLED_S = 60.0  # how long cancelled jobs may take to end

LeftBehind = dict[str, tuple[Watched, int, int]]
"""By checksum: the batch, the task and the number under which a parcel is under way."""


async def find_left_behind(spool: Spool, slurm: Slurm, ask: Callable[..., Awaitable]) -> LeftBehind:
    """The work of other drivers' jobs that still wait or run; cleans up after those that are over.

    Parameters
    ----------
    spool : where they are noted
    slurm : the commands
    ask : calls a command with its arguments, in a thread, patiently

    Raises
    ------
    UnansweredError
        Slurm has not answered for longer than ``ask`` allows.
    """
    others = spool.others()
    for batch, _ in others:
        if batch.job_id is None:
            batch.job_id = await ask(slurm.find, batch.slurm_name)
    standings = await _settled_standings(slurm, ask, [batch for batch, _ in others])
    under_way: LeftBehind = {}
    for batch, alive in others:
        under_way |= _left_behind(spool, batch, alive, standings)
    return under_way


async def _settled_standings(
    slurm: Slurm, ask: Callable[..., Awaitable], batches: list[Batch]
) -> Mapping[str, Standing]:
    """How the jobs stand, once those are gone that the driver before has cancelled: until then they may hold locks."""
    job_ids = [batch.job_id for batch in batches if batch.job_id]
    standings: Mapping[str, Standing] = await ask(slurm.standings, job_ids) if job_ids else {}
    cancelled = {batch.job_id for batch in batches if batch.cancelled}
    until = time.monotonic() + CANCELLED_S
    while time.monotonic() < until and any(
        name.partition("_")[0] in cancelled and not standing.over for name, standing in standings.items()
    ):
        await asyncio.sleep(1)
        standings = await ask(slurm.standings, job_ids)
    return standings


def _left_behind(spool: Spool, batch: Batch, alive: bool, standings: Mapping[str, Standing]) -> LeftBehind:
    """What of one batch is under way; where its driver is dead, the locks of what is over go, and the batch with it."""
    watched = Watched(batch, {}, ours=not alive)
    under_way: LeftBehind = {}
    over = set()
    outcomes = batch.outcome_names()
    for task, entries in enumerate(batch.tasks):
        standing = standings.get(watched.identity(task)) if batch.job_id else None
        if standing is None or standing.over:
            over.add(task)
            continue
        for number, entry in enumerate(entries):
            if f"{task}-{number}" not in outcomes and not batch.cancelled:
                under_way[entry.checksum] = (watched, task, number)
    watched.buried |= over
    if not alive:
        batch.release_locks(over, spool.cache_root)
        if len(over) == len(batch.tasks):
            spool.finish(batch)
    return under_way
