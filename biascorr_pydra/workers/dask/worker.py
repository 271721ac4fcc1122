"""`--worker dask-resources`: a Dask cluster, an existing one by its address or one on this machine."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import attrs

from biascorr_pydra import resources
from biascorr_pydra.errors import InvalidParameterError, ResourceError
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.engine import Job
from biascorr_pydra.workers.execute import pack
from biascorr_pydra.workers.placing import PlacingWorker

if TYPE_CHECKING:
    from .link import Link

__all__ = ["DaskResourcesWorker"]


@attrs.define
class DaskResourcesWorker(PlacingWorker):
    """Runs jobs on a Dask cluster whose workers say what they have: ``GPU``, ``CPU`` and ``MEM_GB``.

    Dask's scheduler places a job on a worker that has what it needs. A worker runs one task at a time, has one GPU or
    none, and keeps what a job has loaded for the next. The cache folder is on a file system that all of them share.

    Parameters
    ----------
    address : str, optional
        The scheduler's, as in tcp://10.0.0.1:8786, or the path of its scheduler file, *.json. Without it a cluster is
        started on this machine when the first job comes, and ended with the run.
    n_procs : int, optional
        CPUs of the local cluster; by default all that this process may use. Its GPU workers come beside them. An
        existing cluster has its own.
    gpus : int or names, optional
        GPUs of the local cluster, one worker each; by default those that are visible.
    mem_gb : float, optional
        Memory of the local cluster, shared out evenly among its workers; by default the machine's.
    cpus_per_worker : int
        CPUs of each of the local cluster's CPU workers: the most that one task can have.
    overrides : node -> field -> number
        Changes to what the tasks say they need, from :func:`biascorr_pydra.resources.parse_overrides`.

    Raises
    ------
    InvalidParameterError
        Dask is not installed, or options that do not go together.
    """

    name = "dask-resources"
    remote = True

    address: str | None = None
    n_procs: int | None = None
    gpus: int | str | tuple[str, ...] | None = None
    mem_gb: float | None = None
    cpus_per_worker: int = 1
    _link: Link | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _unreachable: ResourceError | None = attrs.field(init=False, default=None, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise InvalidParameterError(
                "the dask-resources worker needs Dask, which is not installed",
                next_step="Install it: pip install 'biascorr-pydra[dask]'.",
            )
        given = [name for name in ("gpus", "mem_gb") if getattr(self, name) is not None]
        if self.address is not None and given:
            raise InvalidParameterError(
                "an existing Dask cluster has what it has: give its address, or the size of a local one",
                value=f"address={self.address}, {', '.join(given)}",
            )

    def _local_workers(self) -> list[dict[str, Any]]:
        """The local cluster's workers, as :mod:`biascorr_pydra.workers.dask.local` takes them."""
        machine = resources.available()
        gpus = _gpu_names(self.gpus)
        count = max(1, (self.n_procs or machine.cpus) // self.cpus_per_worker)
        total_gb = self.mem_gb or machine.mem_gb
        memory = {} if total_gb is None else {"MEM_GB": total_gb / (count + len(gpus))}
        limit = int(memory["MEM_GB"] * 1e9) if memory else 0
        kinds = [(f"cpu-{number}", "", {"CPU": self.cpus_per_worker}) for number in range(count)]
        kinds += [(f"gpu-{name}", name, {"GPU": 1}) for name in gpus]
        return [
            {
                "name": name,
                "env": {"CUDA_VISIBLE_DEVICES": device},
                "resources": declared | memory,
                "memory_limit": limit,
            }
            for name, device, declared in kinds
        ]

    @property
    def link(self) -> Link | None:
        """The connection; None while nothing has needed it."""
        return self._link

    def connect(self) -> Link:
        """The connection, made when it is first needed; where that has failed once it is not tried again.

        Raises
        ------
        ResourceError
            No cluster there, none of its workers there, or with other versions.
        """
        from .link import Link
        from .own_cluster import OwnCluster

        if self._unreachable is not None:
            raise self._unreachable
        if self._link is None:
            own = None
            try:
                if self.address is None:
                    own = OwnCluster(self._local_workers(), self.cpus_per_worker)
                self._link = Link(own.address if own is not None else str(self.address), own)
            except BaseException as error:
                if own is not None:
                    own.close(at_once=True)
                if isinstance(error, ResourceError):
                    self._unreachable = error
                raise
        return self._link

    def refuse(self, asked: Resources, name: str) -> None:
        self.connect().refuse(asked, name)

    def refuse_too_much(self, asked: Resources, name: str) -> None:
        largest = self.connect().view().largest
        asked.updated({"minutes": None}).check(largest, task=name, where="any worker of the Dask cluster")

    async def place(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        error = await self.connect().run(lambda: pack(job, rerun), job.checksum, job.cache_root, asked)
        return _named(error, job) if error else None

    def close(self) -> None:
        link, self._link = self._link, None
        busy = link is not None and link.busy
        self.give_up()
        if link is not None:
            link.close(at_once=busy)


def _gpu_names(gpus: int | str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the GPUs: all that are visible (None), so many from 0, or those named ("0,2", or a list)."""
    if gpus is None:
        return resources.gpu_ids()
    if isinstance(gpus, int):
        return tuple(map(str, range(gpus)))
    return tuple(map(str, gpus.split(",") if isinstance(gpus, str) else gpus))


def _named(error: str, job: Job) -> str:
    """The error, with the step and the file it is about where the error is not the task's own."""
    if error.startswith("Traceback"):
        return error
    file = next((value for value in attrs.asdict(job.task, recurse=False).values() if hasattr(value, "fspath")), None)
    kind, _, words = error.partition(": ")
    return f"{kind}: {job.name}{f' of {file.fspath}' if file is not None else ''}: {words}"
