"""What a Dask cluster offers, as its scheduler tells it, and whether a task can ever run there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import Resources

__all__ = ["DaskWorker", "View", "wanted"]


@dataclass(frozen=True)
class DaskWorker:
    """One worker process of the cluster.

    Attributes
    ----------
    threads : int
    gpus, cpus, mem_gb : what it declares by ``--resources 'GPU=1 CPU=2 MEM_GB=8'``; None if it does not
    limit_gb : its memory limit, None for none
    stuck : whether it is paused with nothing running, or on its way out
    """

    threads: int
    gpus: float | None
    cpus: float | None
    mem_gb: float | None
    limit_gb: float | None
    stuck: bool

    @classmethod
    def from_identity(cls, worker: dict[str, Any]) -> DaskWorker:
        """From an entry of the scheduler's ``identity()["workers"]``."""
        declared, status = worker["resources"], worker["status"]
        running = (worker.get("metrics") or {}).get("task_counts", {}).get("executing", 0)
        return cls(
            threads=worker["nthreads"],
            gpus=declared.get("GPU"),
            cpus=declared.get("CPU"),
            mem_gb=declared.get("MEM_GB"),
            limit_gb=worker["memory_limit"] / 1e9 if worker["memory_limit"] else None,
            stuck=not (status in ("running", "init") or (status == "paused" and running)),
        )

    @property
    def memory_gb(self) -> float | None:
        """The memory a task may have: what is declared, or else the limit; None for no limit."""
        return self.limit_gb if self.mem_gb is None else self.mem_gb

    def __str__(self) -> str:
        named = {"GPU": self.gpus, "CPU": self.cpus, "MEM_GB": self.mem_gb}
        words = [f"{name}={value:g}" for name, value in named.items() if value is not None] or ["nothing declared"]
        if self.mem_gb is None and self.limit_gb is not None:
            words.append(f"{self.limit_gb:.1f} GB")
        if self.threads != 1:
            words.append(f"{self.threads} threads")
        if self.stuck:
            words.append("not taking work")
        return " ".join(words)


@dataclass(frozen=True)
class View:
    """The cluster at one moment."""

    address: str
    workers: tuple[DaskWorker, ...]
    local: bool = False

    @classmethod
    def from_identity(cls, identity: dict[str, Any], local: bool) -> View:
        """From the scheduler's ``identity()``."""
        return cls(identity["address"], tuple(map(DaskWorker.from_identity, identity["workers"].values())), local)

    @property
    def bare(self) -> bool:
        """Whether no worker declares CPUs or GPUs: a task of one CPU then goes to any of them."""
        return all(worker.gpus is None and worker.cpus is None for worker in self.workers)

    def fitting(self, asked: Resources) -> int:
        """How many workers can run a task."""
        return sum(self._fits(worker, asked) for worker in self.workers)

    def _fits(self, worker: DaskWorker, asked: Resources) -> bool:
        if worker.stuck or worker.threads != 1:
            return False
        if asked.mem_gb is not None and worker.memory_gb is not None and asked.mem_gb > worker.memory_gb:
            return False
        if asked.gpus:
            return (worker.gpus or 0) >= asked.gpus
        return (1 if self.bare else worker.cpus or 0) >= asked.cpus

    def refuse(self, asked: Resources, name: str) -> None:
        """Refuse what no worker offers.

        Raises
        ------
        ResourceError
            With what is asked, what there is, and how to start what is missing.
        """
        if not self.fitting(asked):
            raise ResourceError(
                f"task {name!r} asks for more than any worker of the Dask cluster at {self.address} offers",
                value=f"asked: {asked.updated({'minutes': None})}; there are: {self.described()}",
                next_step=self._remedy(asked) + _less(asked, name),
            )

    @property
    def largest(self) -> Resources:
        """The most of each that some worker offers."""
        known_gb = [worker.memory_gb for worker in self.workers if worker.memory_gb is not None]
        return Resources(
            cpus=max(1, *(int(worker.cpus or 0) for worker in self.workers)),
            gpus=max(0, *(int(worker.gpus or 0) for worker in self.workers)),
            mem_gb=max(known_gb, default=None) if len(known_gb) == len(self.workers) else None,
        )

    def described(self) -> str:
        """The workers in words, alike ones counted."""
        kinds = {str(worker): 0 for worker in self.workers}
        for worker in self.workers:
            kinds[str(worker)] += 1
        return ", ".join(f"{count} worker(s) with {kind}" for kind, count in kinds.items()) or "no workers"

    def _remedy(self, asked: Resources) -> str:
        if self.local:
            return "Give this cluster more: gpus, mem_gb, cpus_per_worker; with fewer n_procs each has more memory."
        declared = [f"GPU={asked.gpus}"] if asked.gpus else [f"CPU={asked.cpus}"]
        if asked.mem_gb is not None:
            declared.append(f"MEM_GB={asked.mem_gb:g}")
        devices = ",".join(map(str, range(asked.gpus)))
        return (
            f"Start workers for it: CUDA_VISIBLE_DEVICES={devices} dask worker {self.address} --nthreads 1 "
            f"--resources '{' '.join(declared)}'."
        )


def wanted(asked: Resources, view: View) -> dict[str, float]:
    """A task's needs as Dask's scheduler takes them: those that the cluster's workers declare.

    CPUs are counted for tasks without a GPU alone: a worker that has a GPU declares no CPU, so that no other task is
    placed there.
    """
    numbers: dict[str, float] = {}
    if asked.gpus:
        numbers["GPU"] = asked.gpus
    elif not view.bare:
        numbers["CPU"] = asked.cpus
    if asked.mem_gb is not None and any(worker.mem_gb is not None for worker in view.workers):
        numbers["MEM_GB"] = asked.mem_gb
    return numbers


def _less(asked: Resources, name: str) -> str:
    if asked.gpus:
        smaller = "gpus=0"
    elif asked.cpus > 1:
        smaller = "cpus=1"
    elif asked.mem_gb is not None:
        smaller = f"mem_gb={asked.mem_gb / 2:g}"
    else:
        return ""
    return f" Or ask for less: --resources {name}.{smaller}."
