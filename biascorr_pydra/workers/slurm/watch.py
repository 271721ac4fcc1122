"""Watches what is with Slurm: delivers what has come, and sees to what jobs that have died have left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .client import Slurm, Standing
from .judge import Failed, judge
from .spool import Entry, Spool
from .work import Settings, Watched, Work

__all__ = ["Watch"]

logger = logging.getLogger(__name__)

STUCK = ("held", "invalid", "neversatisfied", "partitiontimelimit", "partitiondown", "badconstraint")

Answer = TypeVar("Answer")


class Watch:
    """Looks for outcomes, and asks Slurm now and then which jobs are over.

    Parameters
    ----------
    work : the batches that are with Slurm, and where their work goes that is to be submitted again
    spool : where outcomes are written
    slurm : the commands
    settings : limits and times
    """

    def __init__(self, work: Work, spool: Spool, slurm: Slurm, settings: Settings):
        self._work, self._spool, self._slurm, self._settings = work, spool, slurm, settings
        self._next_poll = 0.0

    async def ask(self, command: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call one of Slurm's commands in a thread, again while Slurm does not answer.

        Raises
        ------
        UnansweredError
            It has not answered for longer than is allowed.
        """
        patience_s = self._settings.patience_s
        return await asyncio.to_thread(lambda: self._slurm.patiently(command, *arguments, patience_s=patience_s))

    # --- what has come

    def deliver(self) -> bool:
        """Give out what has come; whether anything has."""
        any_came = False
        for watched in list(self._work.watched):
            try:
                outcomes = watched.batch.outcome_names()
            except FileNotFoundError:  # the living driver whose batch it is has put it away
                self._take_back(watched)
                any_came = True
                continue
            for (task, number), item in list(watched.items.items()):
                if f"{task}-{number}" in outcomes:
                    item.settle(watched.batch.outcome(task, number))
                    del watched.items[task, number]
                    any_came = True
            if not watched.items:
                self._put_away(watched)
        return any_came

    def _take_back(self, watched: Watched) -> None:
        """What another driver's batch has not told of: done, or to be submitted here."""
        self._work.watched.remove(watched)
        for item in watched.items.values():
            if item.is_done():
                item.settle(None)
            else:
                item.adoptable = False
                self._work.pending.append(item)

    def _put_away(self, watched: Watched) -> None:
        self._work.watched.remove(watched)
        if watched.ours and watched.complete:  # one taken up may be at work that nobody here has asked for
            self._spool.finish(watched.batch)

    # --- what has died

    async def poll(self) -> None:
        """Every ``poll_s`` seconds: show that this driver lives, learn of jobs that are over, see to what they left.

        Raises
        ------
        UnansweredError
            Slurm has not answered for longer than is allowed.
        """
        if time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + self._settings.poll_s
        self._spool.beat()
        if not self._work.watched:
            return
        standings = await self.ask(self._slurm.standings, [watched.job_id for watched in self._work.watched])
        if dead := self._dead(standings):
            await self._bury(dead)

    def _dead(self, standings: dict[str, Standing]) -> list[tuple[Watched, int, Standing]]:
        """The tasks that have been over for long enough; their files may take a moment to be seen here."""
        now, settle_s = time.monotonic(), self._settings.settle_s
        dead = []
        for watched in self._work.watched:
            for task in watched.tasks:
                standing = standings.get(watched.identity(task), Standing(""))
                if not standing.over:
                    watched.over_since.pop(task, None)
                    self._warn_if_stuck(watched, task, standing)
                elif now - watched.over_since.setdefault(task, now) >= settle_s:
                    dead.append((watched, task, standing))
                else:
                    self._next_poll = min(self._next_poll, now + settle_s)
        return dead

    def _warn_if_stuck(self, watched: Watched, task: int, standing: Standing) -> None:
        if standing.state == "PENDING" and any(word in standing.reason.lower() for word in STUCK):
            job = watched.job_id
            self._work.warn_once(
                f"{job} {standing.reason}",
                f"Slurm job {watched.identity(task)} waits ({standing.reason}) and may never start. "
                f"See `scontrol show job {job}`; `scontrol release {job}` or `scancel {job}`.",
            )

    async def _bury(self, dead: list[tuple[Watched, int, Standing]]) -> None:
        self.deliver()
        dead = [(watched, task, standing) for watched, task, standing in dead if task in watched.tasks]
        endings = await asyncio.to_thread(self._endings, {watched.job_id for watched, _, _ in dead})
        for watched in {watched for watched, _, _ in dead}:
            tasks = {task for other, task, _ in dead if other is watched}
            watched.batch.release_locks(tasks, self._spool.cache_root)
            watched.buried |= tasks
        for watched, task, standing in dead:
            known = endings.get(watched.identity(task), standing)
            self._see_to(watched, task, known if known.state and known.over else standing)
        for watched in [watched for watched in self._work.watched if not watched.items]:
            self._put_away(watched)

    def _endings(self, job_ids: set[str]) -> dict[str, Standing]:
        """From the accounting; of jobs it does not know (yet), from slurmctld."""
        endings = self._slurm.accounts(job_ids)
        known = {identity.partition("_")[0] for identity, standing in endings.items() if standing.over}
        for job_id in job_ids - known:
            endings |= self._slurm.shown(job_id)
        return endings

    def _see_to(self, watched: Watched, task: int, ended: Standing) -> None:
        """What becomes of the parcels of a task that is over, by their verdicts."""
        batch = watched.batch
        missing = {number: batch.tasks[task][number] for at, number in watched.items if at == task}
        verdicts = judge(
            watched.identity(task),
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
                item.settle(None)
            elif not watched.ours:
                self._work.pending.append(item)  # another driver's job: its end says nothing of ours
            elif isinstance(verdict, Failed):
                item.settle(verdict.error)
            else:
                item.entry = Entry(item.entry.name, item.entry.checksum, verdict.starts)
                item.alone |= verdict.alone
                item.adoptable = False
                self._work.pending.append(item)
                name, identity = item.entry.name, watched.identity(task)
                logger.warning("%s: Slurm job %s ended (%s); submitting it again.", name, identity, ended.state)
