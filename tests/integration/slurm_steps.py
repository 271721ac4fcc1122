"""Tasks for the Slurm tests, which note what they were given and do as they are told; and a driver of its own process.

python slurm_steps.py CACHE_ROOT FOLDER COUNT SECONDS [NAME=VALUE ...]
"""

import json
import os
import sys
from pathlib import Path

from pydra.compose import python, workflow

from biascorr_pydra.resources import Resources, requires


def _needs(task) -> Resources:
    return Resources(gpus=task.gpus, mem_gb=task.mem_gb, minutes=task.minutes)


@requires(_needs)
@python.define(outputs=["out"])
def Step(  # noqa: N802
    x: int,
    folder: str,
    does: str = "ok",
    seconds: float = 0.0,
    gpus: int = 0,
    mem_gb: float | None = None,
    minutes: float | None = None,
) -> int:
    """Note the process, its devices and its times in FOLDER; then answer, fail, die or fill memory."""
    import time

    note = {"x": x, "pid": os.getpid(), "job": os.environ["SLURM_JOB_ID"], "begin": time.time()}
    note |= {"devices": os.environ.get("CUDA_VISIBLE_DEVICES"), "threads": os.environ.get("OMP_NUM_THREADS")}
    begun = Path(folder) / f"begun-{x}-{time.time_ns()}"
    begun.write_text(json.dumps(note))
    if does == "fail":
        raise ValueError(f"{x} is refused")
    if does == "die":
        os.kill(os.getpid(), 9)
    if does == "crash":
        os.abort()
    kept = bytearray(0)
    if does == "fill":
        kept = bytearray(b"x") * (2000 * 2**20)
    time.sleep(seconds)
    note["end"] = time.time() + 0 * len(kept)
    (Path(folder) / f"ended-{x}-{time.time_ns()}").write_text(json.dumps(note))
    return x + 1


@workflow.define(outputs=["out"])
def Steps(  # noqa: N802
    xs: list[int],
    folder: str,
    does: list[str],
    seconds: float = 0.0,
    gpus: int = 0,
    mem_gb: float | None = None,
    minutes: float | None = None,
) -> list[int]:
    """One step for each x."""
    step = Step(folder=folder, seconds=seconds, gpus=gpus, mem_gb=mem_gb, minutes=minutes)
    step = workflow.add(step.split(("x", "does"), x=xs, does=does).combine("x"), name="step")
    return step.out


@requires(mem_gb=0.4)
@workflow.define(outputs=["out"])
def Scan(x: int, folder: str) -> int:  # noqa: N802
    """Two steps, one after the other, in one piece."""
    first = workflow.add(Step(x=x, folder=folder), name="first")
    second = workflow.add(Step(x=first.out, folder=folder), name="second")
    return second.out


@workflow.define(outputs=["out"])
def Cohort(xs: list[int], folder: str) -> list[int]:  # noqa: N802
    """One scan for each x."""
    scan = workflow.add(Scan(folder=folder).split("x", x=xs).combine("x"), name="scan")
    return scan.out


if __name__ == "__main__":
    from pydra.engine import Submitter

    from biascorr_pydra.workers.slurm.worker import SlurmResourcesWorker

    cache_root, folder, count, seconds, *options = sys.argv[1:]
    worker = SlurmResourcesWorker(**dict(option.split("=", 1) for option in options))
    task = Steps(xs=list(range(int(count))), folder=folder, does=["ok"] * int(count), seconds=float(seconds))
    with Submitter(worker=worker, cache_root=cache_root) as submitter:
        result = submitter(task, raise_errors=False)
    print(
        json.dumps({"errored": result.errored, "out": None if result.errored else result.outputs.out, **worker.calls})
    )
