"""The jobs that wait for room on a machine, and which of them goes next."""

from __future__ import annotations

import asyncio
import heapq
import time
from dataclasses import dataclass, field

from biascorr_pydra.resources import Resources

from .room import Room

__all__ = ["Line", "Request"]

PATIENCE_S = 30.0  # how long smaller work may overtake larger work that does not fit yet


@dataclass(order=True)
class Request:
    """A job that waits.

    Attributes
    ----------
    rank : what goes first
    needs : what it is to be given
    parcel : the work, for the lane
    future : where somebody waits for its error, as text, or None
    kind : jobs of one kind may be given to a GPU together; None: never
    passed_over_since : since when others have gone before it for want of room, by the monotonic clock in seconds
    """

    rank: tuple[int, ...]
    needs: Resources = field(compare=False)
    parcel: bytes = field(compare=False)
    future: asyncio.Future[str | None] = field(compare=False)
    kind: type | None = field(compare=False, default=None)
    passed_over_since: float | None = field(compare=False, default=None)


class Line:
    """Requests in order of their rank, one heap for each kind of needs."""

    def __init__(self) -> None:
        self._heaps: dict[Resources, list[Request]] = {}

    def push(self, request: Request) -> None:
        """Let a request wait."""
        heapq.heappush(self._heaps.setdefault(request.needs, []), request)

    def pop(self, room: Room) -> Request | None:
        """The first request that there is room for; none while larger work has waited too long for room."""
        self._forget_cancelled()
        now = time.monotonic()
        for head in sorted(heap[0] for heap in self._heaps.values()):
            if room.fits(head.needs):
                return heapq.heappop(self._heaps[head.needs])
            if head.passed_over_since is None:
                head.passed_over_since = now
            if now - head.passed_over_since > PATIENCE_S:
                return None
        return None

    def pop_alike(self, request: Request, room: Room, most: int) -> list[Request]:
        """Others that a GPU may be given together with a request that was just popped.

        As many as fall to each free GPU, no more than there is memory for, and with the request ``most`` at most.
        """
        if not request.kind or not request.needs.gpus or most < 2:
            return []
        heap = self._heaps.get(request.needs, [])
        alike = sorted(other for other in heap if other.kind is request.kind and not other.future.done())
        chosen = alike[: max(0, room.share(request.needs, len(alike) + 1, most) - 1)]
        for other in chosen:
            heap.remove(other)
        heapq.heapify(heap)
        return chosen

    def _forget_cancelled(self) -> None:
        for needs, heap in list(self._heaps.items()):
            while heap and heap[0].future.done():
                heapq.heappop(heap)
            if not heap:
                del self._heaps[needs]
