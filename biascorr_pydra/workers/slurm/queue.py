"""The work of one cache on its way through Slurm: collected, submitted in batches, watched, delivered.

One task of the event loop (the pump) does it all for all jobs, as long as there are any: what becomes ready within a
moment is submitted together; outcome files are looked for about every second (one folder listing per batch); Slurm is
asked once in ``poll_s`` seconds, with one squeue for everything, and only to learn of jobs that have died.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biascorr_pydra.resources import Resources

from .client import RefusedError, Slurm, Standing, SubmitLimitError, UnansweredError
from .judge import Failed, judge
from .spool import Batch, Entry, Spool
from .submit import Submission
from .watch import Item, Watched, find_left_behind

__all__ = ["Queue", "Settings"]

logger = logging.getLogger(__name__)

COLLECT_S = 0.3  # what becomes ready within this time is submitted together,
COLLECT_BUSY_S = 3.0  # or within this one while much is in the queue anyway
BUSY = 50
LOOK_S = (0.3, 2.0)  # between two looks for outcome files: at first, and at most while nothing comes
STUCK = ("held", "invalid", "neversatisfied", "partitiontimelimit", "partitiondown", "badconstraint")


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


class Queue:
    """Runs parcels as Slurm jobs, and finds those again that a dead driver has left behind.

    Parameters
    ----------
    cache_root : where results and the spool folder are
    slurm : the commands
    submission : how batches are cut and submitted
    settings : limits and times
    """

    def __init__(self, cache_root: Path, slurm: Slurm, submission: Submission, settings: Settings):
        self._slurm, self._submission, self._settings = slurm, submission, settings
        self._spool = Spool(cache_root)
        self._pending: list[Item] = []
        self._watched: list[Watched] = []
        self._by_checksum: dict[str, asyncio.Future] = {}
        self._left_behind: dict[str, tuple[Watched, int, int]] | None = None
        self._most_at_once = settings.max_in_queue
        self._limited_since: float | None = None
        self._not_before = 0.0
        self._number = self._wave = 0
        self._pump: asyncio.Task | None = None
        self._news = asyncio.Event()
        self._next_poll = 0.0
        self._told: set[str] = set()

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
            future.add_done_callback(lambda done: self._forget(checksum, done))
            self._number += 1
            # what follows from something that has finished goes first, so that scans are completed one after another
            rank = (-self._wave, self._number)
            self._pending.append(Item(rank, Entry(name, checksum), needs, parcel, adoptable, is_done, future))
            self._news.set()
            if self._pump is None or self._pump.done():
                self._pump = asyncio.ensure_future(self._work())
        return await asyncio.shield(future)

    def _forget(self, checksum: str, future: asyncio.Future) -> None:
        self._by_checksum.pop(checksum, None)
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits for it any more

    @property
    def _in_queue(self) -> int:
        return sum(len(watched.tasks) for watched in self._watched)

    async def _work(self) -> None:
        look = LOOK_S[0]
        try:
            while self._pending or self._watched:
                if self._pending:  # whatever becomes ready does so in bursts: let one be complete
                    await asyncio.sleep(COLLECT_BUSY_S if self._in_queue > BUSY else COLLECT_S)
                self._news.clear()
                if self._left_behind is None:
                    self._left_behind = await find_left_behind(self._spool, self._slurm, self._ask)
                await self._submit()
                came = self._deliver()
                self._wave += came
                look = LOOK_S[0] if came else min(1.3 * look, LOOK_S[1])
                if time.monotonic() >= self._next_poll:
                    await self._poll()
                await self._nap(look)
        except Exception as problem:
            waiting = [*self._pending, *(item for watched in self._watched for item in watched.items.values())]
            for item in waiting:
                if not item.future.done():
                    item.future.set_exception(problem)
            self._pending.clear()
            if isinstance(problem, UnansweredError):
                self._watched.clear()  # its jobs go on, and are taken up by the next run

    async def _nap(self, seconds: float) -> None:
        if self._pending or self._watched:
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return

    # --- submitting

    async def _submit(self) -> None:
        self._adopt_pending()
        if time.monotonic() < self._not_before:
            return
        waiting = sorted((item for item in self._pending if not item.future.done()), key=lambda item: item.rank)
        self._pending = waiting
        for needs, alone in dict.fromkeys((item.needs, item.alone) for item in waiting):
            group = [item for item in self._pending if (item.needs, item.alone) == (needs, alone)]
            while group and (room := self._settings.max_in_queue - self._in_queue) > 0:
                room = min(room, self._most_at_once)
                chunks = await asyncio.to_thread(self._submission.cut, group, needs, 1 if alone else None, room)
                taken = [item for chunk in chunks for item in chunk]
                if not await self._submit_one(chunks, needs):
                    return  # the rest when there is room
                group = group[len(taken) :]
                self._pending = [item for item in self._pending if item not in taken]

    async def _submit_one(self, chunks: list[list[Item]], needs: Resources) -> bool:
        """Submit one batch; False if Slurm takes no more for now."""
        pairs = [[(item.entry, item.parcel) for item in chunk] for chunk in chunks]
        batch = self._spool.create(
            needs, pairs, script=self._submission.script(needs), most_starts=self._settings.most_starts
        )
        items = {(task, number): item for task, chunk in enumerate(chunks) for number, item in enumerate(chunk)}
        watched = Watched(batch, items)
        self._watched.append(watched)  # from here on, close() knows of it
        try:
            await asyncio.to_thread(self._submission.submit, batch, self._settings.patience_s)
        except SubmitLimitError as problem:
            self._withdraw(watched)
            self._hold_back(problem, len(chunks))
            return False
        except RefusedError as problem:
            self._withdraw(watched)
            for item in items.values():
                if not item.future.done():
                    item.future.set_exception(self._submission.refusal(problem, needs, item.entry.name))
            return True
        except Exception:
            self._withdraw(watched)
            raise
        self._limited_since, self._most_at_once = None, min(2 * self._most_at_once, self._settings.max_in_queue)
        return True

    def _hold_back(self, problem: SubmitLimitError, tasks: int) -> None:
        """Go on with smaller batches, and at last wait until there is room for one job; for so long as is allowed."""
        now = time.monotonic()
        self._limited_since = self._limited_since or now
        if not self._watched and now - self._limited_since > self._settings.patience_s:
            raise problem
        self._most_at_once = max(1, tasks // 2)
        if tasks == 1:
            self._not_before = now + self._settings.poll_s
        self._say_once("limit", f"{problem} Going on with fewer at a time.")

    def _withdraw(self, watched: Watched) -> None:
        self._watched.remove(watched)
        self._spool.discard(watched.batch)

    # --- watching

    def _deliver(self) -> bool:
        """Give out what has come; whether anything has."""
        any_came = False
        for watched in list(self._watched):
            try:
                there = watched.batch.outcome_names()
            except FileNotFoundError:  # the living driver whose batch it is has put it away
                any_came |= self._give_back(watched)
                continue
            for (task, number), item in list(watched.items.items()):
                if f"{task}-{number}" in there:
                    self._settle(item, watched.batch.outcome(task, number))
                    del watched.items[task, number]
                    any_came = True
            if not watched.items:
                self._put_away(watched)
        return any_came

    def _give_back(self, watched: Watched) -> bool:
        """What another driver's batch has not told of: done, or to be submitted here."""
        self._watched.remove(watched)
        for item in watched.items.values():
            if item.is_done():
                self._settle(item, None)
            else:
                item.adoptable = False
                self._pending.append(item)
        return True

    def _put_away(self, watched: Watched) -> None:
        self._watched.remove(watched)
        if watched.ours and watched.complete:  # one taken up may be at work that nobody here has asked for
            self._spool.finish(watched.batch)

    @staticmethod
    def _settle(item: Item, error: str | None) -> None:
        if not item.future.done():
            item.future.set_result(error)

    async def _poll(self) -> None:
        """Learn of jobs that are over, and see to what they have left."""
        self._next_poll = time.monotonic() + self._settings.poll_s
        self._spool.beat()
        if not self._watched:
            return
        standings = await self._ask(self._slurm.standings, [watched.batch.job_id for watched in self._watched])
        now, dead = time.monotonic(), []
        for watched in self._watched:
            for task in watched.tasks:
                standing = standings.get(watched.identity(task), Standing(""))
                if not standing.over:
                    watched.over_since.pop(task, None)
                    self._tell_if_stuck(watched, task, standing)
                # Its files may take a moment to be seen here.
                elif now - watched.over_since.setdefault(task, now) >= self._settings.settle_s:
                    dead.append((watched, task, standing))
                else:
                    self._next_poll = min(self._next_poll, now + self._settings.settle_s)
        if dead:
            await self._bury(dead)

    async def _ask(self, ask, *arguments):
        patience = self._settings.patience_s
        return await asyncio.to_thread(lambda: self._slurm.patiently(ask, *arguments, patience_s=patience))

    async def _bury(self, dead: list[tuple[Watched, int, Standing]]) -> None:
        self._deliver()
        dead = [(watched, task, standing) for watched, task, standing in dead if task in watched.tasks]
        ended = await asyncio.to_thread(self._how_they_ended, {watched.batch.job_id for watched, _, _ in dead})
        for watched in {watched for watched, _, _ in dead}:
            tasks = {task for other, task, _ in dead if other is watched}
            watched.batch.release_locks(tasks, self._spool.cache_root)
            watched.buried |= tasks
        for watched, task, standing in dead:
            identity = watched.identity(task)
            known = ended.get(identity, standing)
            self._see_to(watched, task, identity, known if known.state and known.over else standing)
        for watched in [watched for watched in self._watched if not watched.items]:
            self._put_away(watched)

    def _how_they_ended(self, job_ids: set[str]) -> dict[str, Standing]:
        """From the accounting; of jobs it does not know (yet), from slurmctld."""
        ended = self._slurm.accounts(job_ids)
        known = {identity.partition("_")[0] for identity, standing in ended.items() if standing.over}
        for job_id in job_ids - known:
            ended |= self._slurm.shown(job_id)
        return ended

    def _see_to(self, watched: Watched, task: int, identity: str, ended: Standing) -> None:
        batch = watched.batch
        missing = {number: batch.tasks[task][number] for at, number in watched.items if at == task}
        verdicts = judge(
            identity,
            ended,
            batch.progress(task),
            missing,
            needs=batch.needs,
            most_starts=self._settings.most_starts,
            log=batch.log(task),
        )
        for number, verdict in verdicts.items():
            item = watched.items.pop((task, number))
            if item.is_done():  # its process ended between the result and the outcome
                self._settle(item, None)
            elif not watched.ours:
                self._pending.append(item)  # another driver's job: its end says nothing of ours
            elif isinstance(verdict, Failed):
                self._settle(item, verdict.error)
            else:
                item.entry = Entry(item.entry.name, item.entry.checksum, verdict.starts)
                item.alone |= verdict.alone
                item.adoptable = False
                self._pending.append(item)
                logger.warning(
                    "%s: Slurm job %s ended (%s); submitting it again.", item.entry.name, identity, ended.state
                )

    def _tell_if_stuck(self, watched: Watched, task: int, standing: Standing) -> None:
        if standing.state == "PENDING" and any(word in standing.reason.lower() for word in STUCK):
            job = watched.batch.job_id
            self._say_once(
                f"{job} {standing.reason}",
                f"Slurm job {watched.identity(task)} waits ({standing.reason}) and may never start. "
                f"See `scontrol show job {job}`; `scontrol release {job}` or `scancel {job}`.",
            )

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            logger.warning("%s", text)

    # --- what a driver that died has left

    def _adopt_pending(self) -> None:
        for item in list(self._pending):
            if not item.adoptable or item.entry.checksum not in self._left_behind:
                continue
            watched, task, number = self._left_behind.pop(item.entry.checksum)
            if watched.ours and watched.batch.driver != self._spool.driver:
                self._spool.adopt(watched.batch)
                logger.warning(
                    "Slurm job %s of an earlier run goes on; it is not submitted again.", watched.batch.job_id
                )
            if watched not in self._watched:
                self._watched.append(watched)
            watched.items[task, number] = item
            item.entry = watched.batch.tasks[task][number]
            self._pending.remove(item)

    # --- the end

    def close(self) -> None:
        """Cancel this driver's jobs that are not over, and no others; give up its place."""
        self._stop_pump()
        ours = [watched.batch for watched in self._watched if watched.ours]
        for batch in ours:  # they are put away by the next run, when they are over and their locks can go
            batch.job_id = self._id_of(batch)
            self._spool.note_cancelled(batch)
        if found := [batch.job_id for batch in ours if batch.job_id]:
            self._slurm.cancel(found)
            logger.warning("Cancelled %d Slurm job(s) of this run: %s.", len(found), ", ".join(found))
        self._watched.clear()
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
