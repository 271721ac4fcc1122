"""`--worker toy`: each job in a process of its own on this machine, one after another."""

from __future__ import annotations

import asyncio
import pickle
import sys

import attrs

from biascorr_pydra.resources import Resources, available
from biascorr_pydra.workers import PlacingWorker
from biascorr_pydra.workers.engine import Job
from biascorr_pydra.workers.execute import pack

JOB = """
import pickle, sys
paths, parcel = pickle.load(sys.stdin.buffer)
from biascorr_pydra.workers.execute import attempt, use_paths
use_paths(paths)
sys.stderr.write(attempt(parcel) or "")
"""


@attrs.define
class ToyWorker(PlacingWorker):
    """Runs one job at a time.

    Parameters
    ----------
    mem_gb : float
        The most that a job may ask for.
    """

    name = "toy"
    remote = False

    mem_gb: float = 4.0
    _turn: asyncio.Lock | None = attrs.field(init=False, default=None, repr=False, eq=False)

    def refuse(self, asked: Resources, name: str) -> None:
        asked.check(Resources(cpus=available().cpus, mem_gb=self.mem_gb), task=name, where="this machine")

    refuse_too_much = refuse

    async def place(self, job: Job, asked: Resources, rerun: bool) -> str | None:
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            pipes = {"stdin": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
            process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", JOB, **pipes)
            _, printed = await process.communicate(pickle.dumps((sys.path, pack(job, rerun))))
        if process.returncode:
            return f"ProcessDiedError: its process ended with code {process.returncode}: {printed.decode()}"
        return printed.decode() or None

    def close(self) -> None:
        self.give_up()
