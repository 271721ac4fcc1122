"""From what tasks need to sbatch: how many go into one job, with which options, and what is refused beforehand."""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeVar

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import THREAD_VARIABLES, Resources

from .client import NodeKind, RefusedError, Slurm
from .spool import Batch

__all__ = ["Submission"]

JOB_MINUTES = 60  # one job asks for about this at most, so that it still fits between others in the schedule
MOST_TOGETHER = 10  # parcels a job where tasks do not say how long they take
FEW = 100  # so many jobs of one kind at a time are never too many
Piece = TypeVar("Piece")

START_UP_MINUTES = 2  # for loading the software, over what the parcels ask for


class Submission:
    """Cuts work into batches and submits them.

    Parameters
    ----------
    slurm : the commands
    sbatch_args : the user's own options, after ours, so that they decide
    chunk : parcels a job, or "auto"
    max_running : how many jobs of one batch may run at a time; None for no limit of ours
    setup : shell lines to run first in each job
    """

    def __init__(
        self, slurm: Slurm, *, sbatch_args: Sequence[str], chunk: int | str, max_running: int | None, setup: str
    ):
        self._slurm, self._arguments = slurm, list(sbatch_args)
        self._looking = threading.Lock()
        self._kinds: list[NodeKind] = []
        self._has_looked = False
        self._chunk, self._max_running, self._setup = chunk, max_running, setup

    # --- what there is

    @cached_property
    def _max_array(self) -> int:
        return self._slurm.max_array()

    def look(self, patience_s: float) -> None:
        """Learn, once, what the partitions that jobs go to have.

        Raises
        ------
        SchedulerError
            There is no Slurm here, or it does not answer for so long.
        ResourceError
            A partition that the user names does not exist.
        """
        with self._looking:
            if not self._has_looked:
                self._kinds = self._chosen(self._slurm.patiently(self._slurm.nodes, patience_s=patience_s))
                self._has_looked = True

    def _chosen(self, every: list[NodeKind]) -> list[NodeKind]:
        names = _partitions(self._arguments)
        kinds = [kind for kind in every if (kind.partition in names if names else kind.default)]
        if names and not kinds:
            known = ", ".join(sorted({kind.partition for kind in every})) or "none"
            raise ResourceError("Slurm has no such partition", value=", ".join(names), next_step=f"There are: {known}.")
        return kinds or every

    def check(self, asked: Resources, name: str) -> None:
        """Refuse what no node can ever give; after :meth:`look`.

        Raises
        ------
        ResourceError
            With what is asked and what there is.
        """
        capacities = [Resources(kind.cpus, kind.gpus, kind.mem_gb, kind.minutes) for kind in self._kinds]
        if not capacities or any(not asked.beyond(capacity) for capacity in capacities):
            return
        most = Resources(
            *(_largest(values) for values in zip(*(c.as_dict().values() for c in capacities), strict=True))
        )
        where = f"any node of Slurm's partition {' or '.join(sorted({kind.partition for kind in self._kinds}))}"
        asked.check(most, task=name, where=where)
        listed = "; ".join(str(capacity) for capacity in dict.fromkeys(capacities))
        raise ResourceError(
            f"task {name!r} asks for more at once than {where} can ever give",
            value=f"{asked} (there are nodes with {listed})",
            next_step=f"Lower one of them (--resources {name}.cpus=...), or choose another partition.",
        )

    def refusal(self, problem: RefusedError, asked: Resources, name: str) -> RefusedError:
        """What the user reads where sbatch refuses."""
        options = shlex.join(self._options(asked, 1))
        return RefusedError(
            f"Slurm does not take the job of task {name!r}, which asks for {asked}",
            value=problem.value,
            next_step=f"It was submitted with: sbatch {options}. Change --resources {name}... or sbatch_args.",
        )

    # --- cutting

    def cut(self, group: Sequence[Piece], asked: Resources, size: int | None, room: int) -> list[list[Piece]]:
        """Cut work that needs the same into the tasks of one batch: no more tasks than there is room for.

        Parameters
        ----------
        group : the work, in the order in which it is to go
        asked : what each piece of it needs
        size : pieces a task; None for what was chosen, or what ``chunk`` says
        room : how many tasks there may be
        """
        size = size or (self._auto(len(group), asked) if self._chunk == "auto" else int(self._chunk))
        taken = group[: size * min(room, self._max_array)]
        count = math.ceil(len(taken) / size)
        return [list(taken[k * len(taken) // count : (k + 1) * len(taken) // count]) for k in range(count)]

    def _auto(self, waiting: int, asked: Resources) -> int:
        """Parcels a job: as few as keep the number of jobs moderate, as many as fit in about an hour."""
        most = MOST_TOGETHER
        if asked.minutes is not None:
            limit = min(filter(None, (JOB_MINUTES, self._time_limit)))
            most = int((limit - START_UP_MINUTES) // asked.minutes)
        places = sum(kind.count * _places(kind, asked) for kind in self._kinds)
        return max(1, min(most, math.ceil(waiting / min(4 * max(places, 1), FEW))))

    @property
    def _time_limit(self) -> float | None:
        limits = [kind.minutes for kind in self._kinds if kind.minutes is not None]
        return max(limits) if limits and len(limits) == len(self._kinds) else None

    # --- submitting

    def submit(self, batch: Batch, patience_s: float) -> None:
        """Submit a batch and note its job's id; where Slurm does not answer, first look whether it has taken it."""
        tries = itertools.count()

        def once() -> str:
            if next(tries) and (job_id := self._slurm.find(batch.slurm_name)):
                return job_id
            return self._slurm.submit(self.arguments(batch))

        batch.job_id = self._slurm.patiently(once, patience_s=patience_s)
        batch.save()

    def arguments(self, batch: Batch) -> list[str]:
        """What sbatch is called with for a batch."""
        tasks, logs = len(batch.tasks), str(batch.folder).replace("%", "%%")
        place = "%a" if batch.is_array else "0"
        array = f"--array=0-{tasks - 1}" + (f"%{self._max_running}" if self._max_running else "")
        return [
            f"--job-name={batch.slurm_name}",
            f"--output={logs}/{place}.out",
            f"--error={logs}/{place}.err",
            *([array] if batch.is_array else []),
            *self._options(batch.needs, max(len(task) for task in batch.tasks)),
            f"{batch.folder}/job.sh",
        ]

    def _options(self, asked: Resources, parcels: int) -> list[str]:
        options = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={asked.cpus}", "--requeue", "--open-mode=append"]
        if asked.gpus:
            options.append(f"--gres=gpu:{asked.gpus}")
        if asked.mem_gb is not None:
            options.append(f"--mem={math.ceil(asked.mem_gb * 1e9 / 2**20)}M")
        if asked.minutes is not None:
            wanted = parcels * asked.minutes + START_UP_MINUTES
            options.append(f"--time={math.ceil(min(wanted, self._time_limit or wanted))}")
        return options + self._arguments

    def script(self, asked: Resources) -> str:
        """The job's shell script, with @FOLDER@ for the batch's folder."""
        lines = ["#!/bin/bash", "export NO_ET=1", *(f"export {name}={asked.cpus}" for name in THREAD_VARIABLES)]
        if not asked.gpus:
            lines.append("export CUDA_VISIBLE_DEVICES=''")
        if self._setup:
            lines.append(self._setup)
        python = shlex.quote(sys.executable)
        lines.append(f'exec {python} -u -m {__package__}.job @FOLDER@ "${{SLURM_ARRAY_TASK_ID:-0}}"')
        return "\n".join(lines) + "\n"


def _largest(values: Iterable[Any]) -> Any:
    """The largest number; None, no limit, is larger than any."""
    numbers = list(values)
    return None if None in numbers else max(numbers)


def _places(kind: NodeKind, asked: Resources) -> int:
    """How many such tasks a node of this kind can run at a time."""
    by_gpus = kind.gpus // asked.gpus if asked.gpus else kind.cpus
    by_memory = int(kind.mem_gb // asked.mem_gb) if asked.mem_gb else kind.cpus
    return min(kind.cpus // asked.cpus, by_gpus, by_memory)


def _partitions(arguments: Sequence[str]) -> list[str]:
    """The partitions that the user's options name, or the environment."""
    text = os.environ.get("SBATCH_PARTITION", "")
    for argument, following in itertools.pairwise([*arguments, ""]):
        if match := re.fullmatch(r"--partition=(.+)|-p(.+)", argument):
            text = match.group(1) or match.group(2)
        elif argument in ("-p", "--partition"):
            text = following
    return [name for name in text.split(",") if name]
