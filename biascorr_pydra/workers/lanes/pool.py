"""The lanes of one machine: which are there, what is free, and what runs next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from biascorr_pydra.resources import Resources

from .process import Lane, LaneDiedError

__all__ = ["Pool"]

ROUNDING_GB = 1e-6  # sums and differences of GB do not come back to exactly what they were
PATIENCE_S = 30.0  # how long smaller work may overtake larger work that does not fit yet


@dataclass(order=True)
class _Request:
    rank: tuple
    needs: Resources = field(compare=False)
    parcel: bytes = field(compare=False)
    future: asyncio.Future = field(compare=False)
    kind: type | None = field(compare=False, default=None)
    passed_over: float | None = field(compare=False, default=None)


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
        self._capacity, self._batch = capacity, batch
        self._free_cpus, self._free_gpus = capacity.cpus, list(gpu_ids)
        self._free_gb = float("inf") if capacity.mem_gb is None else capacity.mem_gb
        self._idle: list[Lane] = []
        self._busy: set[Lane] = set()
        self._serving: set[asyncio.Task] = set()
        self._waiting: dict[Resources, list[_Request]] = {}
        self._threads = ThreadPoolExecutor(capacity.cpus, thread_name_prefix="lane")
        self._number, self._wave = itertools.count(), 0

    async def run(self, parcel: bytes, needs: Resources, kind: type | None = None) -> str | None:
        """Run a parcel on a lane when there is one; the error as text, or None. Raises LaneDiedError.

        Parcels of one ``kind`` may be given to a GPU together.
        """
        # What becomes ready after something else has finished follows from it: it goes first, so that scans are
        # finished one after another instead of all being half done. GPUs are never kept waiting for a CPU.
        rank = (-needs.gpus, -self._wave, next(self._number))
        request = _Request(rank, needs, parcel, asyncio.get_running_loop().create_future(), kind)
        heapq.heappush(self._waiting.setdefault(needs, []), request)
        self._start_what_fits()
        return await request.future

    def _start_what_fits(self) -> None:
        while (request := self._next()) is not None:
            requests = [request, *self._more_of(request)]
            try:
                lane = self._take(request.needs, len(requests))
            except OSError as problem:  # no memory, no process, no file handle left to start a lane with
                self._free(request.needs, len(requests))
                for failed in requests:
                    failed.future.set_exception(LaneDiedError(f"its process could not be started: {problem}"))
                continue
            task = asyncio.ensure_future(self._serve(requests, lane))
            self._serving.add(task)  # the loop keeps no hold of its own on it
            task.add_done_callback(self._serving.discard)

    def _more_of(self, request: _Request) -> list[_Request]:
        """Others that a GPU may be given with this one: as many as there are for each free GPU, and memory for them."""
        if not request.kind or not request.needs.gpus or self._batch < 2:
            return []
        heap = self._waiting[request.needs]
        alike = sorted(other for other in heap if other.kind is request.kind and not other.future.done())
        share = -(-(len(alike) + 1) // max(1, len(self._free_gpus) // request.needs.gpus))
        each = request.needs.mem_gb or 0
        room = int(self._free_gb // each) if each else self._batch
        chosen = alike[: max(0, min(share, self._batch, room) - 1)]
        for other in chosen:
            heap.remove(other)
        heapq.heapify(heap)
        return chosen

    def _next(self) -> _Request | None:
        """The first request that fits; none while larger work has waited too long for room."""
        for needs, heap in list(self._waiting.items()):
            while heap and heap[0].future.done():  # cancelled meanwhile
                heapq.heappop(heap)
            if not heap:
                del self._waiting[needs]
        heads = sorted(heap[0] for heap in self._waiting.values())
        now = time.monotonic()
        for head in heads:
            if self._fits(head.needs):
                return heapq.heappop(self._waiting[head.needs])
            head.passed_over = head.passed_over or now
            if now - head.passed_over > PATIENCE_S:
                return None
        return None

    def _fits(self, needs: Resources) -> bool:
        return (
            needs.cpus <= self._free_cpus
            and needs.gpus <= len(self._free_gpus)
            and (needs.mem_gb or 0) <= self._free_gb + ROUNDING_GB
        )

    def _free(self, needs: Resources, count: int) -> None:
        self._free_cpus += needs.cpus
        self._free_gb += count * (needs.mem_gb or 0)

    def _take(self, needs: Resources, count: int) -> Lane:
        self._free_cpus -= needs.cpus
        self._free_gb -= count * (needs.mem_gb or 0)
        gpus = tuple(self._free_gpus[: needs.gpus])
        for lane in list(self._idle):
            if lane.process.poll() is not None:  # killed while it was idle
                self._idle.remove(lane)
                lane.close()
        lane = next((lane for lane in self._idle if lane.gpus == gpus), None)
        if lane is not None:
            self._idle.remove(lane)
        else:
            for other in [lane for lane in self._idle if set(lane.gpus) & set(gpus)]:
                self._idle.remove(other)  # it holds memory of a device that is now another lane's
                other.kill()
            lane = Lane(gpus, needs.cpus)
        del self._free_gpus[: needs.gpus]
        self._busy.add(lane)
        return lane

    async def _serve(self, requests: list[_Request], lane: Lane) -> None:
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
        self._free_gpus = sorted([*self._free_gpus, *lane.gpus])
        self._free(needs, count)
        if alive:
            self._idle.append(lane)
        else:
            lane.kill()

    def peaks_gb(self) -> list[float]:
        """Highest memory of each lane that is there, so far."""
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
