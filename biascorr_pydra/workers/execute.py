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

import attrs
import cloudpickle
from fileformats.core import FileSet
from filelock import SoftFileLock
from pydra.engine.job import Job
from pydra.engine.result import Result, copyfile_workflow, record_error
from pydra.engine.submitter import Submitter
from pydra.engine.workflow import Workflow
from pydra.utils.general import is_workflow
from pydra.utils.messenger import AuditFlag
from pydra.workers.base import Worker

from . import pickles

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
    task = job.task
    values = {}
    for field in attrs.fields(type(task)):
        value = getattr(task, field.name)
        if field.init and value is not field.default:
            values[field.name.lstrip("_")] = value
    submitter = job.submitter
    parcel = Parcel(
        task_class=type(task),
        values=values,
        name=job.name,
        state_index=job.state_index,
        hooks=job.hooks,
        environment=job.environment,
        checksum=job.checksum,
        hashes=task._hashes,
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
    job._checksum, job.task._hashes = parcel.checksum, parcel.hashes
    return job, parcel.rerun


def execute(job: Job, rerun: bool = False) -> Result:
    """Run a job in this process, its steps too if it is a workflow; take the result from the cache if there is one.

    Raises
    ------
    Exception
        Whatever the task raised; the error and the errored result are in the cache folder, as Pydra leaves them.
    """
    if job.audit.audit_flags != AuditFlag.NONE:
        return job.run(rerun=rerun)  # Pydra's own provenance records
    job.hooks.pre_run(job)
    with SoftFileLock(job.lockfile):
        found = finished(job, rerun)
        if found is not None:
            return found
        result = _run(job, rerun)
    job.hooks.post_run(job, result)
    job._check_for_hash_changes()
    job._cached_result = result
    return result


def finished(job: Job, rerun: bool = False) -> Result | None:
    """The job's result from the cache, if there is one to be used.

    One that is not to be used, of a failure, of a job that is to run again or whose files are gone, is removed: Pydra
    looks at the results of all jobs that it waits for whenever one of them ends, and takes whatever is there for the
    outcome.
    """
    found = job.result()
    if found is None or not (found.errored or rerun or _files_gone(found)):
        return found
    job._errored, job._cached_result = False, None
    (job.cache_dir / "_result.pklz").unlink(missing_ok=True)
    return None


def _files_gone(result: Result) -> bool:
    """Whether a file among the outputs is no longer there, or empty as a power cut may leave it."""
    if result.outputs is None:
        return True  # what an interrupted task of another worker leaves
    values = [value for value in attrs.asdict(result.outputs, recurse=False).values() if value is not None]
    values = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    paths = [path for value in values if isinstance(value, FileSet) for path in value.fspaths]
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
        job.task._run(job, rerun)
        outputs = job.task.Outputs._from_job(job)
        result.outputs = copyfile_workflow(wf_path=folder, outputs=outputs) if is_workflow(job.task) else outputs
    except BaseException as error:
        result.errored = True
        result.task = job.task
        with suppress(OSError):  # a full disk: the task's own error is the one to tell
            record_error(folder, error=format_exception(error))
            _write(folder / "_job.pklz", job)
        raise
    finally:
        job.hooks.post_run_task(job, result)
        if is_workflow(job.task):
            job.return_values = {}  # the graph and every job in it
        with suppress(OSError) if result.errored else nullcontext():
            _write(folder / "_result.pklz", result)
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

    _plugin_name = "here"

    def run(self, job: Job, rerun: bool = False) -> Result:
        return execute(job, rerun)


class _HereSubmitter(Submitter):
    """Expands a workflow in this process, and goes on past a step that fails to those that do not depend on it."""

    def expand_workflow(self, wf_job: Job, rerun: bool) -> None:
        # Not kept in Pydra's cache of constructed workflows: that grows with every scan.
        workflow = Workflow.construct(wf_job.task, dont_cache=True)
        graph = workflow.execution_graph(submitter=self)
        wf_job.return_values = {"workflow": workflow, "exec_graph": graph}
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
                    job._errored = True
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
    found = job.result()
    if found is None:
        job.cache_dir.mkdir(exist_ok=True)
        record_error(job.cache_dir, error=error.splitlines(keepends=True))
        _write(job.cache_dir / "_job.pklz", job)
        _write(
            job.cache_dir / "_result.pklz", Result(outputs=None, errored=True, cache_dir=job.cache_dir, task=job.task)
        )
    job._errored = True


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
