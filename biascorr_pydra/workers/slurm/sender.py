"""Submits what is pending, in batches as large as Slurm takes them."""

from __future__ import annotations

import asyncio
import time

from biascorr_pydra.resources import Resources

from .client import RefusedError, SubmitLimitError
from .spool import Spool
from .submit import Submission
from .work import Item, Settings, Watched, Work

__all__ = ["Sender"]


class Sender:
    """Cuts the pending work into batches and submits them; goes on with smaller ones where Slurm takes no more.

    Parameters
    ----------
    work : what is pending, and where batches go when they are submitted
    spool : where they are written
    submission : how batches are cut and submitted
    settings : limits and times
    """

    def __init__(self, work: Work, spool: Spool, submission: Submission, settings: Settings):
        self._work, self._spool, self._submission, self._settings = work, spool, submission, settings
        self._most_at_once = settings.max_in_queue
        self._limited_since: float | None = None
        self._not_before = 0.0

    async def send(self) -> None:
        """Submit what is pending, as far as there is room.

        Raises
        ------
        SchedulerError
            Slurm does not answer, or has had no room for a single job for longer than is allowed.
        OutputError
            The spool folder cannot be written.
        """
        if time.monotonic() < self._not_before:
            return
        waiting = sorted((item for item in self._work.pending if not item.future.done()), key=lambda item: item.rank)
        self._work.pending = waiting
        for needs, alone in dict.fromkeys((item.needs, item.alone) for item in waiting):
            alike = [item for item in waiting if (item.needs, item.alone) == (needs, alone)]
            if not await self._send_alike(alike, needs, alone):
                return  # the rest when there is room

    async def _send_alike(self, alike: list[Item], needs: Resources, alone: bool) -> bool:
        """Submit items that need the same; False if Slurm takes no more for now."""
        while alike and (room := self._settings.max_in_queue - self._work.in_queue) > 0:
            room = min(room, self._most_at_once)
            chunks = await asyncio.to_thread(self._submission.cut, alike, needs, 1 if alone else None, room)
            taken = [item for chunk in chunks for item in chunk]
            if not await self._send_batch(chunks, needs):
                return False
            alike = alike[len(taken) :]
            self._work.pending = [item for item in self._work.pending if item not in taken]
        return True

    async def _send_batch(self, chunks: list[list[Item]], needs: Resources) -> bool:
        """Submit one batch; False if Slurm takes no more for now."""
        pairs = [[(item.entry, item.parcel) for item in chunk] for chunk in chunks]
        batch = self._spool.create(
            needs, pairs, script=self._submission.script(needs), most_starts=self._settings.most_starts
        )
        items = {(task, number): item for task, chunk in enumerate(chunks) for number, item in enumerate(chunk)}
        watched = Watched(batch, items)
        self._work.watched.append(watched)  # from here on, the end of the run knows of it
        try:
            await asyncio.to_thread(self._submission.submit, batch, self._settings.patience_s)
        except SubmitLimitError as problem:
            self._withdraw(watched)
            self._hold_back(problem, len(chunks))
            return False
        except RefusedError as problem:
            self._withdraw(watched)
            for item in items.values():
                item.fail(self._submission.refusal(problem, needs, item.entry.name))
            return True
        except Exception:
            self._withdraw(watched)
            raise
        self._limited_since, self._most_at_once = None, min(2 * self._most_at_once, self._settings.max_in_queue)
        return True

    def _hold_back(self, problem: SubmitLimitError, tasks: int) -> None:
        """Go on with smaller batches, and at last wait until there is room for one job; for so long as is allowed."""
        now = time.monotonic()
        if self._limited_since is None:
            self._limited_since = now
        if not self._work.watched and now - self._limited_since > self._settings.patience_s:
            raise problem
        self._most_at_once = max(1, tasks // 2)
        if tasks == 1:
            self._not_before = now + self._settings.poll_s
        self._work.warn_once("limit", f"{problem} Going on with fewer at a time.")

    def _withdraw(self, watched: Watched) -> None:
        self._work.watched.remove(watched)
        self._spool.discard(watched.batch)
