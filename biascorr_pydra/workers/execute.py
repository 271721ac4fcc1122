"""Run one Pydra job, a task or a whole workflow, in this process: what every worker here does with what it is sent.

Pydra's own ``Job.run`` pickles the job, with its task, its submitter and for a workflow its graph, twice per task and
takes three lock files; over many short tasks that is most of the time. Here a job travels as its task's values and is
executed with one lock, one result, and the job itself only where it failed, for `pydra crash`. Cache folders, results
and errors are laid out as Pydra's, so that any worker finds what another has done; a result is written under a
temporary name and renamed, so that it is whole or absent.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import format_exception
from typing import Any

import cloudpickle
from filelock import SoftFileLock

from . import engine, pickles
from .engine import Job, Result, Submitter, Worker, is_workflow

__all__ = [
    "Parcel",
    "attempt",
    "describe_error",
    "execute",
    "finished",
    "open_parcel",
    "pack",
    "record_failure",
    "use_paths",
    "use_threads",
]


@dataclass(frozen=True)
class Parcel:
    """A job on its way to another process: what is needed to build it again there, and no more.

    Attributes
    ----------
    task_class, values : the task, as its class and the values that are not defaults
    name, state_index, hooks, environment : the job's
    checksum, hashes : the job's and its inputs', so that they are not hashed again before it runs
    cache_root, readonly_caches : where results are looked for and written
    rerun, propagate_rerun : whether the job, and the steps inside it, are computed again though results exist
    """

    task_class: type
    values: dict[str, Any]
    name: str
    state_index: int | None
    hooks: Any
    environment: Any
    checksum: str
    hashes: dict[str, bytes] | None
    cache_root: Path
    readonly_caches: tuple[Path, ...]
    rerun: bool
    propagate_rerun: bool


def pack(job: Job, rerun: bool = False) -> bytes:
    """The job as bytes, for :func:`open_parcel` in another process; tasks of a script's own travel by value."""
    task, submitter = job.task, job.submitter
    parcel = Parcel(
        task_class=type(task),
        values=engine.task_values(task),
        name=job.name,
        state_index=job.state_index,
        hooks=job.hooks,
        environment=job.environment,
        checksum=job.checksum,
        hashes=engine.input_hashes(task),
        cache_root=job.cache_root,
        readonly_caches=tuple(Path(folder) for folder in submitter.readonly_caches or ()),
        rerun=rerun,
        propagate_rerun=submitter.propagate_rerun,
    )
    return pickles.dumps(parcel)


def open_parcel(content: bytes) -> tuple[Job, bool]:
    """Build the job of a parcel again; return it with whether to run it though a result exists."""
    parcel = cloudpickle.loads(content)
    submitter = _submitter(parcel.cache_root, parcel.readonly_caches, parcel.propagate_rerun)
    job = Job(
        parcel.task_class(**parcel.values),
        submitter=submitter,
        name=parcel.name,
        environment=parcel.environment,
        state_index=parcel.state_index,
        hooks=parcel.hooks,
    )
    engine.adopt_identity(job, parcel.checksum, parcel.hashes)
    return job, parcel.rerun


def execute(job: Job, rerun: bool = False) -> Result:
    """Run a job in this process, its steps too if it is a workflow; take the result from the cache if there is one.

    Raises
    ------
    Exception
        Whatever the task raised; the error and the errored result are in the cache folder, as Pydra leaves them.
    """
    if engine.is_audited(job):
        return job.run(rerun=rerun)
    job.hooks.pre_run(job)
    with SoftFileLock(job.lockfile):
        cached = finished(job, rerun)
        if cached is not None:
            return cached
        result = _run(job, rerun)
    job.hooks.post_run(job, result)
    engine.check_inputs_unchanged(job)
    engine.remember_result(job, result)
    return result


def finished(job: Job, rerun: bool = False) -> Result | None:
    """The job's result from the cache, if there is one to be used.

    One that is not to be used, of a failure, of a job that is to run again or whose files are gone, is removed: Pydra
    looks at the results of all jobs that it waits for whenever one of them ends, and takes whatever is there for the
    outcome.
    """
    cached = job.result()
    if cached is None or not (cached.errored or rerun or _files_gone(cached)):
        return cached
    engine.forget_result(job)
    (job.cache_dir / engine.RESULT_FILE).unlink(missing_ok=True)
    return None


def _files_gone(result: Result) -> bool:
    """Whether a file among the outputs is no longer there, or empty as a power cut may leave it."""
    if result.outputs is None:
        return True  # what an interrupted task of another worker leaves
    paths = engine.output_files(result.outputs)
    return any(not path.exists() or (path.is_file() and path.stat().st_size == 0) for path in paths)


def _run(job: Job, rerun: bool) -> Result:
    folder, before = job.cache_dir, Path.cwd()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    pickles.know(type(job.task))
    result = Result(outputs=None, errored=False, cache_dir=folder, task=None)
    os.chdir(folder)
    job.hooks.pre_run_task(job)
    try:
        result.outputs = engine.compute_outputs(job, rerun)
    except BaseException as error:
        result.errored = True
        result.task = job.task
        with suppress(OSError):  # a full disk: the task's own error is the one to tell
            engine.write_error(folder, format_exception(error))
            _write(folder / engine.JOB_FILE, job)
        raise
    finally:
        job.hooks.post_run_task(job, result)
        if is_workflow(job.task):
            engine.without_graph(job)
        with suppress(OSError) if result.errored else nullcontext():
            _write(folder / engine.RESULT_FILE, result)
        os.chdir(before)
    return result


def _write(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "wb") as stream:
        pickles.dump(content, stream)
    os.replace(temporary, path)


# --- workflows, step by step in this process


class _Here(Worker):
    """Runs each job where it is."""

    @classmethod
    def plugin_name(cls) -> str:
        return "here"

    def run(self, job: Job, rerun: bool = False) -> Result:
        return execute(job, rerun)


class _HereSubmitter(Submitter):
    """Expands a workflow in this process, and goes on past a step that fails to those that do not depend on it."""

    def expand_workflow(self, wf_job: Job, rerun: bool) -> None:
        graph = engine.construct(wf_job, self)
        errors: list[str] = []
        tried: set[str] = set()
        jobs = self.get_runnable_tasks(graph)
        while jobs or any(not node.done for node in graph.nodes):
            for job in jobs:
                if job.checksum in tried:
                    continue
                tried.add(job.checksum)
                try:
                    execute(job, rerun and self.propagate_rerun)
                except Exception as error:
                    engine.mark_errored(job)
                    place = "" if job.state_index is None else f"({job.state_index})"
                    text = "".join(format_exception(error))
                    errors.append(f"Job {job.name + place!r}, {job.task!r}, errored:{text}")
            jobs = self.get_runnable_tasks(graph)
        if errors:
            listed = "\n\n".join(errors)
            raise RuntimeError(
                f"Workflow job {wf_job} failed with errors:\n\n{listed}\n\n"
                f"See output directory for details: {wf_job.cache_dir}"
            )


@lru_cache(maxsize=16)
def _submitter(cache_root: Path, readonly_caches: tuple[Path, ...], propagate_rerun: bool) -> Submitter:
    return _HereSubmitter(
        cache_root=cache_root,
        worker=_Here(),
        readonly_caches=list(readonly_caches) or None,
        propagate_rerun=propagate_rerun,
    )


def record_failure(job: Job, error: str) -> None:
    """Leave an errored result for a job whose process could not: the engine, and the user, then read why.

    Parameters
    ----------
    job : the job that failed
    error : what happened, as text; an error that the job's own process has left stays
    """
    if job.result() is None:
        job.cache_dir.mkdir(exist_ok=True)
        engine.write_error(job.cache_dir, error.splitlines(keepends=True))
        _write(job.cache_dir / engine.JOB_FILE, job)
        _write(job.cache_dir / engine.RESULT_FILE, engine.errored_result(job))
    engine.mark_errored(job)


# --- for a process that is sent parcels


def attempt(parcel: bytes) -> str | None:
    """Run a parcel; the error as text, or None. A task cannot end the process, nor leave it in another folder."""
    home = Path.cwd()
    try:
        job, rerun = open_parcel(parcel)
        execute(job, rerun)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        return describe_error(error)
    finally:
        os.chdir(home)
    return None


def use_threads(cpus: int) -> None:
    """Let torch, if it is loaded, use as many threads as there are CPUs for the next job."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != cpus:
        torch.set_num_threads(cpus)


def describe_error(error: BaseException) -> str:
    """The error with its traceback as text, to travel where the exception itself cannot."""
    return "".join(format_exception(type(error), error, error.__traceback__))


def use_paths(paths: list[str]) -> None:
    """Let this process import what the submitting one can."""
    sys.path[:] = list(dict.fromkeys([*sys.path, *paths]))
