"""The work of one cache on its way through Slurm: collected, submitted in batches, watched, delivered.

One task of the event loop (the pump) does it all for all jobs, as long as there are any: what becomes ready within a
moment is submitted together; outcome files are looked for about every second (one folder listing per batch); Slurm is
asked once in ``poll_s`` seconds, with one squeue for everything, and only to learn of jobs that have died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from biascorr_pydra.resources import Resources

from .client import Slurm, UnansweredError
from .left_behind import LeftBehind, find_left_behind
from .sender import Sender
from .spool import Batch, Entry, Spool
from .submit import Submission
from .watch import Watch
from .work import Item, Settings, Work

__all__ = ["Queue"]

logger = logging.getLogger(__name__)

COLLECT_S = 0.3  # what becomes ready within this time is submitted together,
COLLECT_BUSY_S = 3.0  # or within this one while much is in the queue anyway
BUSY = 50
LOOK_S = (0.3, 2.0)  # between two looks for outcome files: at first, and at most while nothing comes


class Queue:
    """Runs parcels as Slurm jobs, and finds those again that a dead driver has left behind.

    Parameters
    ----------
    cache_root : where results and the spool folder are
    slurm : the commands
    submission : how batches are cut and submitted
    settings : limits and times

    Raises
    ------
    OutputError
        The spool folder cannot be written.
    """

    def __init__(self, cache_root: Path, slurm: Slurm, submission: Submission, settings: Settings):
        self._slurm = slurm
        self._spool = Spool(cache_root)
        self._work = Work()
        self._sender = Sender(self._work, self._spool, submission, settings)
        self._watch = Watch(self._work, self._spool, slurm, settings)
        self._by_checksum: dict[str, asyncio.Future[str | None]] = {}
        self._left_behind: LeftBehind | None = None
        self._number = self._wave = 0
        self._pump: asyncio.Task | None = None
        self._news = asyncio.Event()

    async def run(
        self,
        name: str,
        checksum: str,
        needs: Resources,
        parcel: bytes,
        *,
        is_done: Callable[[], bool],
        adoptable: bool = True,
    ) -> str | None:
        """Run a parcel; the error as text, or None.

        Parameters
        ----------
        name, checksum : whose it is
        needs : what it is to be given
        parcel : the work, for the job's process
        is_done : whether its result is there
        adoptable : whether what another driver's job makes of it will do

        Raises
        ------
        SchedulerError
            Slurm is missing, refuses the job, or does not answer for long.
        OutputError
            The spool folder cannot be written.
        """
        future = self._by_checksum.get(checksum)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._by_checksum[checksum] = future
            future.add_done_callback(lambda ended: self._forget(checksum, ended))
            self._number += 1
            # what follows from something that has finished goes first, so that scans are completed one after another
            rank = (-self._wave, self._number)
            self._work.pending.append(Item(rank, Entry(name, checksum), needs, parcel, adoptable, is_done, future))
            self._news.set()
            if self._pump is None or self._pump.done():
                self._pump = asyncio.ensure_future(self._pump_all())
        return await asyncio.shield(future)

    def _forget(self, checksum: str, future: asyncio.Future[str | None]) -> None:
        self._by_checksum.pop(checksum, None)
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits for it any more

    async def _pump_all(self) -> None:
        look_s = LOOK_S[0]
        try:
            while self._work:
                if self._work.pending:  # whatever becomes ready does so in bursts: let one be complete
                    await asyncio.sleep(COLLECT_BUSY_S if self._work.in_queue > BUSY else COLLECT_S)
                self._news.clear()
                if self._left_behind is None:
                    self._left_behind = await find_left_behind(self._spool, self._slurm, self._watch.ask)
                self._adopt(self._left_behind)
                await self._sender.send()
                came = self._watch.deliver()
                self._wave += came
                look_s = LOOK_S[0] if came else min(1.3 * look_s, LOOK_S[1])
                await self._watch.poll()
                await self._nap(look_s)
        except Exception as problem:
            self._work.fail(problem)
            if isinstance(problem, UnansweredError):
                self._work.watched.clear()  # its jobs go on, and are taken up by the next run

    async def _nap(self, seconds: float) -> None:
        if self._work:
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return

    def _adopt(self, left_behind: LeftBehind) -> None:
        """Wait for what a job of another driver is doing already, instead of submitting it."""
        for item in list(self._work.pending):
            if not item.adoptable or item.entry.checksum not in left_behind:
                continue
            watched, task, number = left_behind.pop(item.entry.checksum)
            if watched.ours and watched.batch.driver != self._spool.driver:
                self._spool.adopt(watched.batch)
                logger.warning("Slurm job %s of an earlier run goes on; it is not submitted again.", watched.job_id)
            if watched not in self._work.watched:
                self._work.watched.append(watched)
            watched.items[task, number] = item
            item.entry = watched.batch.tasks[task][number]
            self._work.pending.remove(item)

    # --- the end

    def close(self) -> None:
        """Cancel this driver's jobs that are not over, and no others; give up its place."""
        self._stop_pump()
        ours = [watched.batch for watched in self._work.watched if watched.ours]
        for batch in ours:  # they are put away by the next run, when they are over and their locks can go
            batch.job_id = self._id_of(batch)
            self._spool.note_cancelled(batch)
        if job_ids := [batch.job_id for batch in ours if batch.job_id]:
            self._slurm.cancel(job_ids)
            logger.warning("Cancelled %d Slurm job(s) of this run: %s.", len(job_ids), ", ".join(job_ids))
        self._work.watched.clear()
        self._spool.close()

    def _stop_pump(self) -> None:
        if self._pump is None or self._pump.done():
            return
        self._pump.cancel()
        loop = self._pump.get_loop()
        if not (loop.is_running() or loop.is_closed()):
            loop.run_until_complete(asyncio.wait([self._pump]))

    def _id_of(self, batch: Batch) -> str | None:
        if batch.job_id is None:
            try:
                return self._slurm.find(batch.slurm_name)
            except UnansweredError as problem:
                logger.warning("%s A job named %s may be left in the queue.", problem, batch.slurm_name)
        return batch.job_id
