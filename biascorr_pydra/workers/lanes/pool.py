"""The lanes of one machine: which are there, and what each of them runs next."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from concurrent.futures import ThreadPoolExecutor

from biascorr_pydra.resources import Resources

from .line import Line, Request
from .process import Lane, LaneDiedError
from .room import Room

__all__ = ["Pool"]


class Pool:
    """Lanes started as they are needed, within a capacity; work of scans already begun goes first.

    Parameters
    ----------
    capacity : Resources
        CPUs, GPUs and memory that all lanes together may use; memory None: not counted.
    gpu_ids : names of the GPUs, as CUDA_VISIBLE_DEVICES takes them
    batch : int
        How many tasks of one kind a GPU is given at once, where they can do part of their work together.
    """

    def __init__(self, capacity: Resources, gpu_ids: tuple[str, ...], batch: int = 1):
        self._room, self._line, self._batch = Room(capacity, gpu_ids), Line(), batch
        self._idle: list[Lane] = []
        self._busy: set[Lane] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(capacity.cpus, thread_name_prefix="lane")
        self._number, self._wave = itertools.count(), 0

    async def run(self, parcel: bytes, needs: Resources, kind: type | None = None) -> str | None:
        """Run a parcel on a lane when there is one; the error as text, or None.

        Parcels of one ``kind`` may be given to a GPU together.

        Raises
        ------
        LaneDiedError
            The lane's process could not be started, died, or took longer than it may.
        """
        # What becomes ready after something else has finished follows from it: it goes first, so that scans are
        # finished one after another instead of all being half done. GPUs are never kept waiting for a CPU.
        rank = (-needs.gpus, -self._wave, next(self._number))
        request = Request(rank, needs, parcel, asyncio.get_running_loop().create_future(), kind)
        self._line.push(request)
        self._start_what_fits()
        return await request.future

    def _start_what_fits(self) -> None:
        while (request := self._line.pop(self._room)) is not None:
            requests = [request, *self._line.pop_alike(request, self._room, self._batch)]
            gpus = self._room.take(request.needs, len(requests))
            try:
                lane = self._lane_for(gpus, request.needs.cpus)
            except OSError as problem:  # no memory, no process, no file handle left to start a lane with
                self._room.give_back(request.needs, gpus, len(requests))
                for failed in requests:
                    failed.future.set_exception(LaneDiedError(f"its process could not be started: {problem}"))
                continue
            self._busy.add(lane)
            task = asyncio.ensure_future(self._serve(requests, lane))
            self._serving.add(task)  # the loop keeps no hold of its own on it
            task.add_done_callback(self._serving.discard)

    def _lane_for(self, gpus: tuple[str, ...], threads: int) -> Lane:
        """An idle lane with exactly these GPUs, or a new one."""
        for lane in list(self._idle):
            if lane.process.poll() is not None:  # killed while it was idle
                self._idle.remove(lane)
                lane.close()
        for lane in self._idle:
            if lane.gpus == gpus:
                self._idle.remove(lane)
                return lane
        for lane in [lane for lane in self._idle if set(lane.gpus) & set(gpus)]:
            self._idle.remove(lane)  # it holds memory of a device that is now another lane's
            lane.kill()
        return Lane(gpus, threads)

    async def _serve(self, requests: list[Request], lane: Lane) -> None:
        loop, needs = asyncio.get_running_loop(), requests[0].needs
        parcels = [request.parcel for request in requests]
        waiting = [request.future for request in requests]
        try:
            errors = await loop.run_in_executor(self._threads, lane.call, parcels, needs)
        except BaseException as problem:
            self._give_back(needs, lane, len(requests), alive=False)
            for future in waiting:
                if not future.done():
                    future.set_exception(problem)
            if not isinstance(problem, Exception):
                raise
        else:
            self._give_back(needs, lane, len(requests), alive=True)
            for future, error in zip(waiting, errors, strict=True):
                if not future.done():
                    future.set_result(error)
        self._wave += 1
        self._start_what_fits()

    def _give_back(self, needs: Resources, lane: Lane, count: int, *, alive: bool) -> None:
        self._busy.discard(lane)
        self._room.give_back(needs, lane.gpus, count)
        if alive:
            self._idle.append(lane)
        else:
            lane.kill()

    def peaks_gb(self) -> list[float]:
        """Highest memory of each lane that is there, so far, in GB."""
        return [lane.peak_gb for lane in (*self._idle, *self._busy)]

    def close(self) -> None:
        """End every lane: idle ones by closing them, those at work (an interrupted run) at once."""
        for lane in self._busy:
            lane.kill()
        for lane in self._idle:
            lane.close()
        for lane in self._idle:
            try:
                lane.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                lane.kill()
        self._idle, self._busy = [], set()
        self._threads.shutdown(wait=True)
