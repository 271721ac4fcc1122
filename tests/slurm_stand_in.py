"""Slurm for tests: its commands with given answers, or played in this process."""

import asyncio
import stat
from collections import Counter
from pathlib import Path

import pytest

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm import queue
from biascorr_pydra.workers.slurm.client import NodeKind, Standing
from biascorr_pydra.workers.slurm.queue import Queue
from biascorr_pydra.workers.slurm.spool import Batch
from biascorr_pydra.workers.slurm.submit import Submission
from biascorr_pydra.workers.slurm.work import Settings

NODES = "main|main*|1|2|23081|gpu:2|infinite\nlong|long|10|64|515000|gpu:a100:4(S:0-1),shard:8|2-00:30:00\n"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts commands on the PATH that answer with given text, and note what they were asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))  # and no others: there may be a real Slurm

    def command(name: str, out: str = "", err: str = "", code: int = 0, script: str | None = None):
        (folder / f"{name}.out").write_text(out)
        (folder / f"{name}.err").write_text(err)
        body = f'/bin/cat "{folder}/{name}.out"; /bin/cat "{folder}/{name}.err" >&2; exit {code}\n'
        file = folder / name
        file.write_text(script or f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n{body}')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    command.calls = lambda: (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return command


class PlayedSlurm:
    """Jobs do what ``play(batch folder, submission number)`` writes; it answers their standing by task."""

    def __init__(self, play):
        self.play, self.calls, self.jobs, self.cancelled, self.by_name = play, Counter(), {}, [], {}

    def patiently(self, ask, *arguments, patience_s):
        return ask(*arguments)

    def nodes(self):
        return [NodeKind("main", default=True, count=1, cpus=8, gpus=2, mem_gb=24.2, minutes=None)]

    def max_array(self):
        return 1000

    def submit(self, arguments):
        self.calls["sbatch"] += 1
        folder = Path(arguments[-1]).parent
        standings = self.play(folder, self.calls["sbatch"])
        job, array = str(self.calls["sbatch"]), any(option.startswith("--array") for option in arguments)
        self.jobs[job] = {f"{job}_{task}" if array else job: s for task, s in standings.items()}
        return job

    def standings(self, jobs):
        self.calls["squeue"] += 1
        return {name: s for job in jobs for name, s in self.jobs.get(job, {}).items()}

    def accounts(self, jobs):
        self.calls["sacct"] += 1
        return self.standings(jobs)

    def shown(self, job_id):
        return {}

    def find(self, name):
        return self.by_name.get(name)

    def cancel(self, jobs):
        self.cancelled += jobs


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(queue, "COLLECT_S", 0.01)
    monkeypatch.setattr(queue, "LOOK_S", (0.01, 0.02))


def make_queue(cache_root, slurm, *, chunk="auto", **options) -> Queue:
    made = Submission(slurm, sbatch_args=(), chunk=chunk, max_running=None, setup="")
    made.look(0)
    cache_root.mkdir(exist_ok=True)
    usual = {"poll_s": 0.02, "settle_s": 0.02, "patience_s": 1, "max_requeues": 2, "max_in_queue": 100}
    return Queue(cache_root, slurm, made, Settings(**usual | options))


def run_all(queue: Queue, names, needs=None, close=True) -> dict:
    async def main():
        runs = [queue.run(name, f"sum-{name}", needs or Resources(), b"", is_done=bool) for name in names]
        return await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 20)

    answers = dict(zip(names, asyncio.run(main()), strict=True))
    if close:
        queue.close()
    return answers


def finish(folder, error=None, only=None):
    """Write outcomes, as the jobs of a batch do; the standing of those that are complete."""
    batch = Batch.load(folder)
    for task, entries in enumerate(batch.tasks):
        for number, entry in enumerate(entries):
            if only is None or entry.name in only:
                batch.put_outcome(task, number, error)
    return {task: Standing("COMPLETED", code=0) for task in range(len(batch.tasks))}
