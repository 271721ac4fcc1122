"""The submitting process's connection to a Dask cluster, its own or an existing one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import Resources

from .own_cluster import OwnCluster
from .task import different, post_mortem, run_parcel, versions
from .view import DaskWorker, View, wanted

__all__ = ["Link"]

CONNECT_S = 20.0
WORKERS_S = 30.0  # how long to wait for the first worker of an existing cluster
VIEW_S = 5.0  # how old what is known of the cluster may be
PATIENCE_S = 120.0  # how long a job waits for workers that were there to come back
AHEAD = 2  # jobs with the scheduler for each worker that can run them


class Link:
    """Submits parcels to a cluster: as many as its workers can soon take, those of scans already begun first.

    Parameters
    ----------
    address : str
        The scheduler's, or the path of a scheduler file.
    local : OwnCluster, optional
        Where it is this process's own.

    Attributes
    ----------
    submitted : int
        How often a job was given to the scheduler.

    Raises
    ------
    ResourceError
        No cluster there, none of its workers there, or with other versions.
    """

    def __init__(self, address: str, local: OwnCluster | None = None):
        from distributed import Client

        self._local, self._name = local, address
        self._view: View | None = None
        self._viewed_at, self._was_lost = 0.0, False
        self._ever: set[DaskWorker] = set()
        self._folders: dict[Path, Path] = {}
        self._waiting: dict[str, list] = defaultdict(list)
        self._under_way: Counter[str] = Counter()
        self._room: dict[str, int] = {}
        self._wave, self._number = 0, itertools.count()
        self.submitted = 0
        try:
            where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
            self._client = Client(**where, set_as_default=False, timeout=CONNECT_S, name="biascorr_pydra")
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"no Dask scheduler answers at {address}",
                value=f"{type(error).__name__}: {error}",
                next_step="Start one (`dask scheduler`), or leave out the address for a cluster on this machine.",
            ) from error
        try:
            self._meet()
        except BaseException:
            self._client.close()
            raise

    def _meet(self) -> None:
        """Wait for a worker, and compare versions with all that are there."""
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise ResourceError(
                f"the Dask cluster at {self._name} has no workers",
                next_step=f"Start some: dask worker {self._name} --nthreads 1 --resources 'CPU=1 MEM_GB=4'.",
            ) from None
        for worker, theirs in self._client.run(versions, on_error="return").items():
            if isinstance(theirs, BaseException):
                difference = f"{type(theirs).__name__}: {theirs}"
            else:
                difference = different(theirs, versions())
            if difference:
                raise ResourceError(
                    f"the Dask worker at {worker} has other versions than the submitting process",
                    value=difference,
                    next_step="Use one environment for the scheduler, the workers and this process.",
                )

    def view(self) -> View:
        """What the cluster offers now, or a few seconds ago."""
        view = self._view
        if view is None or time.monotonic() - self._viewed_at > VIEW_S:
            identity = self._client.scheduler_info(n_workers=-1)
            if "workers" in identity:  # otherwise it does not answer just now
                view = View.from_identity({"address": self._name, **identity}, self._local is not None)
                self._view, self._viewed_at = view, time.monotonic()
                self._ever |= {replace(worker, stuck=False) for worker in view.workers}
        return View(self._name, (), self._local is not None) if view is None else view

    def refuse(self, asked: Resources, name: str) -> None:
        """Refuse what no worker offers or has offered in this run: one that has died may be coming back.

        Raises
        ------
        ResourceError
        """
        if not self.lost and not self.view().fitting(asked):
            self._viewed_at = 0.0
            now = self.view()
            if not replace(now, workers=tuple(self._ever)).fitting(asked):
                now.refuse(asked, name)

    @property
    def lost(self) -> bool:
        """Whether the scheduler has gone."""
        return self._was_lost or self._client.status not in ("running", "connecting")

    async def run(self, pack, checksum: str, cache_root: Path, asked: Resources) -> str | None:
        """Run what ``pack()`` gives on a worker that fits; the error as text, or None."""
        if self.lost:
            return self._gone()
        kind = "GPU" if asked.gpus else "CPU"
        await self._enter(kind, asked)
        try:
            mark = self._folder(cache_root) / checksum
            parcel = pack()
            while True:
                error, again = await self._attempt(parcel, mark, asked)
                if not again:
                    return error
        finally:
            self._leave(kind)

    async def _attempt(self, parcel: bytes, mark: Path, asked: Resources) -> tuple[str | None, bool]:
        from distributed import KilledWorker

        if self.lost:
            return self._gone(), False
        self.submitted += 1
        future = self._client.submit(
            run_parcel,
            parcel,
            checksum=mark.name,
            run_folder=str(mark.parent),
            needs=asked.as_dict(),
            wanted_versions=versions(),
            paths=sys.path if self._local else [],
            pure=False,
            priority=self._wave,
            resources=wanted(asked, self.view()) or None,
        )
        try:
            return await self._outcome(future, asked), False
        except KilledWorker:
            # Dask blames every job that a dying worker held, also those it had not begun.
            verdict = post_mortem(mark, asked)
            return verdict, verdict is None
        except (CancelledError, asyncio.CancelledError) as error:
            if type(error) is asyncio.CancelledError:  # the run is being given up
                raise
            if self._client.status == "running":
                return f"CancelledError: somebody has cancelled it on the cluster ({error})\n", False
            return self._gone(), False
        except Exception as error:  # what Dask itself could not do
            return f"{type(error).__name__}: {error}\n", False

    async def _outcome(self, future, asked: Resources) -> str | None:
        """Wait for a future of Dask's; give up where no worker is left that could run it."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def tell(finished) -> None:
            try:
                set_answer, value = answer.set_result, finished.result()
            except BaseException as error:
                set_answer, value = answer.set_exception, error
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: answer.done() or set_answer(value))

        future.add_done_callback(tell)
        missing_since = None
        try:
            while not (await asyncio.wait({answer}, timeout=VIEW_S))[0]:
                if self.lost:
                    return self._gone()
                if self.view().fitting(asked):
                    missing_since = None
                    self._open("GPU" if asked.gpus else "CPU", asked)
                    continue
                missing_since = missing_since or time.monotonic()
                if time.monotonic() - missing_since > PATIENCE_S:
                    return (
                        f"ResourceError: no worker that could run it has been in the Dask cluster at {self._name} for "
                        f"{PATIENCE_S:g} s; asked: {asked}; there are: {self.view().described()}. "
                        "Start workers, and run again.\n"
                    )
            return answer.result()
        finally:
            if not answer.done():
                future.cancel()
                answer.cancel()

    def _gone(self) -> str:
        self._was_lost = True  # a scheduler that comes back knows nothing of what it was doing
        return (
            f"ResourceError: the Dask scheduler at {self._name} is gone. What was finished is kept: "
            "run again when it is back.\n"
        )

    def _folder(self, cache_root: Path) -> Path:
        """The process's own folder in the cache: a worker that sees it sees the cache."""
        if cache_root not in self._folders:
            mine = f".dask-{socket.gethostname()}-"
            for folder in cache_root.glob(f"{mine}*"):  # of processes that were killed
                if not _alive(int(folder.name.removeprefix(mine).split("-")[0])):
                    shutil.rmtree(folder, ignore_errors=True)
            self._folders[cache_root] = Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}-", dir=cache_root))
        return self._folders[cache_root]

    # --- what is with the scheduler, and what waits here

    async def _enter(self, kind: str, asked: Resources) -> None:
        self._room[kind] = AHEAD * self.view().fitting(asked)
        ready = asyncio.get_running_loop().create_future()
        # What becomes ready after something else has finished follows from it: scans are finished one after another.
        heapq.heappush(self._waiting[kind], (-self._wave, next(self._number), ready))
        self._admit(kind)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self._leave(kind)
            raise

    def _open(self, kind: str, asked: Resources) -> None:
        """Workers may have come."""
        self._room[kind] = AHEAD * self.view().fitting(asked)
        self._admit(kind)

    def _admit(self, kind: str) -> None:
        waiting = self._waiting[kind]
        while waiting and self._under_way[kind] < max(1, self._room[kind]):
            ready = heapq.heappop(waiting)[-1]
            if not ready.done():
                self._under_way[kind] += 1
                ready.set_result(None)

    def _leave(self, kind: str) -> None:
        self._under_way[kind] -= 1
        self._wave += 1
        self._admit(kind)

    @property
    def busy(self) -> bool:
        """Whether jobs are with the scheduler."""
        return sum(self._under_way.values()) > 0

    def close(self, *, at_once: bool) -> None:
        """Leave the cluster; end it if it is this process's own, ``at_once`` where it is in the middle of jobs."""
        try:
            self._client.close(timeout=5)
        finally:
            for folder in self._folders.values():
                shutil.rmtree(folder, ignore_errors=True)
            if self._local is not None:
                self._local.close(at_once=at_once)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
